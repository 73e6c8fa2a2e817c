"""The port matrix between hosts: declared peers are accepted, all others are dropped."""

from __future__ import annotations

import json

from testinfra.host import Host

from tests.support.deadlines import until
from tests.support.inventory import Inventory

testinfra_hosts = [f"ansible://{group}" for group in ("load_balancer", "rke2_server", "rke2_agent", "postgresql")]


PROBE = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def probe(endpoint):
    try:
        socket.create_connection(endpoint, timeout=2).close()
        return "open"
    except ConnectionRefusedError:
        return "closed"
    except OSError:
        return "dropped"

print(json.dumps(list(ThreadPoolExecutor(20).map(probe, map(tuple, json.loads(sys.argv[1]))))))
"""


def probe(host: Host, inventory: Inventory, endpoints: list[tuple[str, int]]) -> list[str]:
    """Probe ports of other hosts: open, closed (accepted, no listener) or dropped."""
    arguments = json.dumps([(inventory.address(name), port) for name, port in endpoints])
    answers: list[str] = json.loads(host.check_output("python3 -c %s %s", PROBE, arguments))
    return answers


BALANCER, SERVER, ANOTHER, AGENT = ("load_balancer", 0), ("rke2_server", 0), ("rke2_server", 1), ("rke2_agent", 0)
# Neither a Kubernetes node nor a load balancer.
DATABASE = ("postgresql", 0)

MATRIX = [
    (SERVER, ANOTHER, 2380, True),
    (SERVER, ANOTHER, 10250, True),
    (AGENT, SERVER, 9345, True),
    (AGENT, SERVER, 2379, False),
    (BALANCER, SERVER, 6443, True),
    (BALANCER, SERVER, 443, True),
    (BALANCER, SERVER, 10250, False),
    (SERVER, BALANCER, 9345, True),
    (DATABASE, BALANCER, 9345, False),
    (DATABASE, BALANCER, 443, True),
    (DATABASE, SERVER, 6443, False),
    # SSH is open to administrators, not to hosts of the private network.
    (SERVER, ANOTHER, 22, False),
    (SERVER, DATABASE, 22, False),
]


def test_only_declared_peers_are_accepted(host: Host, inventory: Inventory) -> None:
    def name_of(kind: tuple[str, int]) -> str:
        return inventory.group(kind[0])[kind[1]]

    own = host.check_output("uname --nodename")
    rows = [(name_of(target), port, accepted) for source, target, port, accepted in MATRIX if name_of(source) == own]
    answers = probe(host, inventory, [(target, port) for target, port, _ in rows])
    wrong = [
        f"{own} to {target} port {port}: {answer}"
        for (target, port, accepted), answer in zip(rows, answers, strict=True)
        if (answer != "dropped") is not accepted
    ]
    assert wrong == []


POD = """
ip netns add pod && ip link add pod0 type veth peer name eth0 netns pod && ip address add 10.99.0.1/30 dev pod0
ip link set pod0 up && ip -n pod address add 10.99.0.2/30 dev eth0 && ip -n pod link set eth0 up
ip -n pod route add default via 10.99.0.1
nft 'table ip pod { chain translate { type nat hook prerouting priority dstnat
tcp dport { 80, 30080 } dnat to 10.99.0.2:8080
}; }'
systemd-run --quiet --unit pod ip netns exec pod python3 -m http.server 8080
"""
"""A program behind a hostPort (80) and a NodePort (30080), as Kubernetes has them."""
POD_END = "systemctl stop pod; nft delete table ip pod; ip link delete pod0; ip netns delete pod"


def test_redirected_ports_are_filtered_as_the_host_s_own(host: Host, inventory: Inventory) -> None:
    client = host.check_output("uname --nodename")
    if client not in (inventory.group("load_balancer")[0], inventory.group("rke2_agent")[0]):
        return  # one client that may connect to port 80, and one that may not
    name = inventory.group("rke2_server")[1]
    server = inventory.host(name)
    with server.sudo():
        server.check_output(POD)
        try:
            until(lambda: server.run("ip netns exec pod ss --listening --numeric | grep -q :8080").rc == 0, 20)
            answers = probe(host, inventory, [(name, 80), (name, 30080)])
        finally:
            server.run(POD_END)
    assert answers == (["open", "dropped"] if client == inventory.group("load_balancer")[0] else ["dropped", "dropped"])


def test_peers_resolve_by_name_and_answer_ping(host: Host, inventory: Inventory) -> None:
    peer = inventory.group("rke2_server")[1]
    assert host.check_output(f"getent hosts {peer}").split()[0] == inventory.address(peer)
    assert host.run(f"ping -c 1 -W 2 {peer}").rc == 0
