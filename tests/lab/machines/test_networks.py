"""Networks as Hetzner has them: routed, never bridged."""

from __future__ import annotations

import dataclasses

import pytest

from lab.machines.base import AttachmentSpec, NetworkSpec, Route
from tests.lab.machines.conftest import LEGS, NETWORKS, RANGE, Lab
from tests.support.deadlines import until

pytestmark = pytest.mark.real


def test_public_link(lab: Lab) -> None:
    assert f"inet {lab.specs[1].ipv4}/32" in lab.output(1, "ip -4 addr show dev eth0")
    assert lab.output(1, "ip route show default").startswith("default via 172.31.1.1 dev eth0")
    assert lab.output(1, "ip -6 route show default").startswith("default via fe80::1 dev eth0")
    assert "mtu 1500" in lab.output(1, "ip link show dev eth0")
    assert lab.succeeds(1, f"ping -c1 -W1 {lab.specs[2].ipv4}")
    assert lab.succeeds(1, f"ping -c1 -W1 {lab.specs[2].ipv6_network[:-3]}1")  # type: ignore[index]


def test_floating_ips_are_routed_to_a_running_host_and_move(lab: Lab) -> None:
    v4, v6 = str(lab.settings.public_range[200]), str(lab.settings.public_range_v6[200 << 64])
    specs = {number: dataclasses.replace(lab.specs[number], floating_ips=(v4, f"{v6}/64")) for number in (1, 2)}
    pings = f"ping -c1 -W1 {v4} && ping -c1 -W1 {v6}1"
    addresses = {f"{v4}/32", f"{v6}1/64 nodad"}
    assert not lab.succeeds(3, pings)
    try:
        for number, other in ((1, 2), (2, 1)):
            lab.machines.route_floating_ips(lab.specs[other])
            lab.machines.route_floating_ips(specs[number])
            assert not lab.succeeds(3, pings), "the system of the host does not have the addresses yet"
            lab.output(number, " && ".join(f"ip addr add {address} dev eth0" for address in addresses))
            # Neighbours that did not answer before are asked again after seconds.
            until(lambda: lab.succeeds(3, pings), 20)
            assert lab.succeeds(number, f"ping -c1 -W1 -I {v4} {lab.specs[3].ipv4}"), "also as a source"
            lab.output(number, " && ".join(f"ip addr del {address.split()[0]} dev eth0" for address in addresses))
        hosts = (lab.specs[1], specs[2], lab.specs[3])
        assert lab.machines.reconcile(lab.desired(hosts=hosts)) == []
    finally:
        for number in specs:
            lab.machines.route_floating_ips(lab.specs[number])


def test_internet_access(lab: Lab) -> None:
    """IPv4 through this machine; IPv6 is unreachable, without a timeout."""
    assert lab.succeeds(1, "getent ahostsv4 $(awk '/^URIs/ {print $2; exit}' /etc/apt/sources.list.d/* | cut -d/ -f3)")
    assert "unreachable" in lab.run(1, "ping -c1 -W3 2600::1").stdout.lower()


def test_private_link(lab: Lab) -> None:
    addresses = lab.output(1, "ip addr show dev enp7s0")
    assert "inet 10.40.1.10/32" in addresses and "mtu 1450" in addresses and "86:00:00:00:00:01" in addresses
    assert "inet6" not in addresses
    assert lab.output(1, "ip route show dev enp7s0") == "10.40.0.0/16 via 10.40.0.1 \n10.40.0.1 scope link"


def test_mtu_is_1450(lab: Lab) -> None:
    assert lab.succeeds(1, "ping -c1 -W1 -M do -s 1422 10.40.1.11")
    assert not lab.succeeds(1, "ping -c1 -W1 -M do -s 1423 10.40.1.11")


def test_members_share_no_segment(lab: Lab) -> None:
    """Only the gateway answers ARP, and no broadcast arrives."""
    probe = (
        "import socket,struct,sys\n"
        "nic, target = 'enp7s0', socket.inet_aton(sys.argv[1])\n"
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x806)); s.bind((nic, 0)); s.settimeout(1)\n"
        "mac = bytes.fromhex(open(f'/sys/class/net/{nic}/address').read().strip().replace(':', ''))\n"
        "own = socket.inet_aton('10.40.1.10')\n"
        "head = struct.pack('!HHHBBH', 0x806, 1, 0x800, 6, 4, 1)\n"
        "s.send(b'\\xff' * 6 + mac + head + mac + own + bytes(6) + target)\n"
        "try:\n"
        "    while True:\n"
        "        frame = s.recv(100)\n"
        "        if frame[20:22] == b'\\0\\2' and frame[28:32] == target: print('answer'); break\n"
        "except TimeoutError: print('silence')\n"
    )
    lab.output(1, f"cat > /tmp/arp.py <<'END'\n{probe}END")
    assert lab.output(1, "python3 /tmp/arp.py 10.40.0.1") == "answer"
    assert lab.output(1, "python3 /tmp/arp.py 10.40.1.11") == "silence"
    assert not lab.succeeds(1, "ping -c1 -W1 -b 255.255.255.255 -I enp7s0")


def test_networks_with_the_same_range_are_separate(lab: Lab) -> None:
    assert lab.succeeds(1, "ping -c1 -W1 10.40.1.11")
    assert not lab.succeeds(3, "ping -c1 -W1 10.40.1.11")
    assert "unreachable" in lab.run(3, "ping -c1 -W2 10.40.1.11").stdout.lower()


def test_a_spoofed_source_is_dropped(lab: Lab) -> None:
    lab.output(2, "ip addr add 10.40.9.9/32 dev enp7s0")
    assert not lab.succeeds(2, "ping -c1 -W1 -I 10.40.9.9 10.40.1.10")
    lab.output(2, "ip addr del 10.40.9.9/32 dev enp7s0")


def test_alias_addresses(lab: Lab) -> None:
    lab.output(2, "ip addr add 10.40.1.50/32 dev lo")
    assert lab.succeeds(1, "ping -c1 -W1 10.40.1.50")
    leg = LEGS[1]
    lab.machines.attach(dataclasses.replace(leg, alias_ips=()))
    assert not lab.succeeds(1, "ping -c1 -W1 10.40.1.50")
    lab.machines.attach(leg)
    assert lab.succeeds(1, "ping -c1 -W1 10.40.1.50")


def test_routes_of_a_network(lab: Lab) -> None:
    """A destination behind a member, as pod networks and NAT hosts are."""
    lab.output(2, "sysctl -qw net.ipv4.ip_forward=1; ip addr add 10.99.0.1/32 dev lo")
    lab.output(1, "ip route replace 10.99.0.0/24 via 10.40.0.1 dev enp7s0")
    assert not lab.succeeds(1, "ping -c1 -W1 10.99.0.1")
    lab.machines.apply_network(NetworkSpec(50, "one", RANGE, (Route("10.99.0.0/24", "10.40.1.11"),)))
    assert lab.succeeds(1, "ping -c1 -W1 10.99.0.1")
    lab.machines.apply_network(NETWORKS[0])
    assert not lab.succeeds(1, "ping -c1 -W1 10.99.0.1")


def test_attach_and_detach_while_running(lab: Lab) -> None:
    extra = NetworkSpec(52, "extra", "10.50.0.0/24")
    lab.machines.apply_network(extra)
    attachments = [AttachmentSpec(n, 52, f"10.50.0.{n + 1}", f"86:00:00:00:01:0{n}", "enp8s0") for n in (1, 2)]
    for leg in attachments:
        lab.machines.attach(leg)
        lab.machines.attach(leg)
    assert lab.succeeds(1, "ping -c1 -W1 10.50.0.3")
    lab.machines.detach(2, 52)
    lab.machines.detach(2, 52)
    assert not lab.succeeds(1, "ping -c1 -W1 10.50.0.3")
    assert not lab.succeeds(2, "ip link show enp8s0")
    lab.machines.delete_network(52)
    assert not lab.succeeds(1, "ip link show enp8s0")


def test_a_wider_range_is_routed_on_running_hosts(lab: Lab) -> None:
    narrow = NetworkSpec(53, "grows", "10.60.0.0/24")
    lab.machines.apply_network(narrow)
    lab.machines.attach(AttachmentSpec(1, 53, "10.60.0.2", "86:00:00:00:02:01", "enp8s0"))
    lab.machines.apply_network(dataclasses.replace(narrow, ip_range="10.60.0.0/16"))
    assert "10.60.0.0/16 via 10.60.0.1" in lab.output(1, "ip route show dev enp8s0")
    lab.machines.delete_network(53)


def test_a_host_with_only_a_private_network(lab: Lab) -> None:
    spec = lab.spec(7, ipv4=None, ipv6_network=None)
    lab.machines.create_host(spec)
    lab.machines.attach(AttachmentSpec(7, 50, "10.40.1.70", "86:00:00:00:00:07", "enp7s0"))
    try:
        lab.machines.power_on(spec)
        ssh_answers = "ssh-keyscan -T 2 10.40.1.70 2>/dev/null | grep -q ed25519"
        assert lab.succeeds(1, f"for i in $(seq 20); do {ssh_answers} && exit 0; sleep 1; done; exit 1")
        assert lab.output(7, "curl -sf http://169.254.169.254/hetzner/v1/metadata/hostname") == "server-7"
    finally:
        lab.machines.delete_host(7)


def test_connections_from_outside_and_other_labs_are_dropped(lab: Lab) -> None:
    """The machine forwards only replies into the lab."""
    rules = lab.machines._router.machine_rules()
    assert f'oifname "{lab.settings.uplink_interface}" drop' in rules
