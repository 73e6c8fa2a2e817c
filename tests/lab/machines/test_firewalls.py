"""Firewalls: rendering of the rule sets (without root), and their effect."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machines.base import FirewallRule, FirewallSpec, MachineError
from lab.machines.firewalls import render, rule_lines
from tests.lab.machines.conftest import Lab

ANY = ("0.0.0.0/0", "::/0")
SSH = FirewallRule("in", "tcp", "22", ANY)


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        (SSH, ["meta nfproto ipv4 tcp dport 22 accept", "meta nfproto ipv6 tcp dport 22 accept"]),
        (
            FirewallRule("in", "udp", "1024-2048", ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.1/32")),
            ["ip saddr { 10.0.0.0/8, 192.0.2.1/32 } udp dport 1024-2048 accept"],
        ),
        (
            FirewallRule("out", "tcp", "any", ("2001:db8::/32",)),
            ["ip6 daddr { 2001:db8::/32 } meta l4proto tcp accept"],
        ),
        (
            FirewallRule("in", "icmp", None, ANY),
            ["meta nfproto ipv4 meta l4proto icmp accept", "meta nfproto ipv6 meta l4proto ipv6-icmp accept"],
        ),
        (FirewallRule("in", "gre", None, ("192.0.2.0/24",)), ["ip saddr { 192.0.2.0/24 } meta l4proto gre accept"]),
    ],
)
def test_rules_are_rendered_for_nft(rule: FirewallRule, lines: list[str]) -> None:
    assert rule_lines(rule) == lines


def test_an_unknown_protocol_is_rejected() -> None:
    with pytest.raises(MachineError, match="sctp"):
        rule_lines(FirewallRule("in", "sctp", None, ANY))


def test_the_table_is_replaced_as_a_whole() -> None:
    text = render({7: FirewallSpec(7, (SSH,))}, {1: (7,), 2: ()}, ["192.0.2.53"])
    assert text.startswith("table inet firewalls\ndelete table inet firewalls\n")
    assert 'oifname vmap { "p1" : jump s1-in }' in text
    assert "p2" not in text
    assert "iifname vmap" not in text, "outbound is open until there is an out rule"
    assert "ip daddr { 192.0.2.53 } th dport 53 accept" in text


def test_one_out_rule_closes_outbound_traffic() -> None:
    out = FirewallSpec(8, (FirewallRule("out", "tcp", "443", ANY),))
    text = render({7: FirewallSpec(7, (SSH,)), 8: out}, {1: (7, 8)})
    assert 'iifname vmap { "p1" : jump s1-out }' in text
    assert text.count("jump f7-in") == text.count("jump f8-in") == text.count("jump f8-out") == 1


@pytest.fixture
def filtered(lab: Lab) -> Iterator[Lab]:
    """The second host behind a firewall that allows inbound SSH."""
    lab.machines.apply_firewall(FirewallSpec(70, (SSH,)))
    lab.machines.set_host_firewalls(2, [70])
    yield lab
    lab.machines.set_host_firewalls(2, [])
    lab.machines.delete_firewall(70)


@pytest.mark.real
def test_inbound(filtered: Lab) -> None:
    lab = filtered
    assert lab.logs_in(2)
    assert not lab.succeeds(1, f"ping -c1 -W1 {lab.specs[2].ipv4}")
    assert not lab.succeeds(1, f"ping -c1 -W1 {lab.specs[2].ipv6_network[:-3]}1")  # type: ignore[index]
    # Private networks are not filtered; replies and metadata always pass.
    assert lab.succeeds(1, "ping -c1 -W1 10.40.1.11")
    assert lab.succeeds(2, f"ping -c1 -W1 {lab.specs[1].ipv4}")
    assert lab.succeeds(2, "curl -sf http://169.254.169.254/hetzner/v1/metadata/hostname")
    lab.machines.set_host_firewalls(2, [])
    assert lab.succeeds(1, f"ping -c1 -W1 {lab.specs[2].ipv4}")


@pytest.mark.real
def test_outbound(filtered: Lab) -> None:
    lab = filtered
    lab.machines.apply_firewall(FirewallSpec(70, (SSH, FirewallRule("out", "icmp", None, ANY))))
    assert lab.succeeds(2, f"ping -c1 -W1 {lab.specs[1].ipv4}")
    assert lab.run(2, f"curl -s -m 1 telnet://{lab.specs[1].ipv4}:22").returncode == 28
    assert lab.succeeds(2, "getent ahostsv4 $(awk '/^URIs/ {print $2; exit}' /etc/apt/sources.list.d/* | cut -d/ -f3)")


@pytest.mark.real
def test_established_connections_survive_new_rules(filtered: Lab) -> None:
    lab = filtered
    lab.machines.apply_firewall(FirewallSpec(71, (FirewallRule("in", "tcp", "9000", ANY),)))
    lab.machines.set_host_firewalls(2, [70, 71])
    listen = (
        "import socket; s = socket.create_server(('', 9000)); c, _ = s.accept()\nwhile d := c.recv(99): c.sendall(d)\n"
    )
    lab.output(2, f"cat > /tmp/echo.py <<'END'\n{listen}END\nsystemd-run -q python3 /tmp/echo.py; sleep 1")
    import socket

    with socket.create_connection((lab.address(2), 9000), 5) as stream:
        for turn in range(3):
            lab.machines.apply_firewall(FirewallSpec(71, ()) if turn % 2 else FirewallSpec(71, (SSH,)))
            stream.sendall(b"still there")
            assert stream.recv(99) == b"still there"
    assert not lab.answers(2, 9000)
    lab.machines.set_host_firewalls(2, [70])
    lab.machines.delete_firewall(71)


@pytest.mark.real
def test_an_invalid_rule_set_is_rejected_as_a_whole(filtered: Lab) -> None:
    lab = filtered
    with pytest.raises(MachineError):
        lab.machines.apply_firewall(FirewallSpec(70, (FirewallRule("in", "tcp", "99999", ANY),)))
    assert lab.logs_in(2)
    assert not lab.succeeds(1, f"ping -c1 -W1 {lab.specs[2].ipv4}")


@pytest.mark.real
def test_an_unknown_firewall_is_an_error(lab: Lab) -> None:
    with pytest.raises(MachineError, match="firewall 999 does not exist"):
        lab.machines.set_host_firewalls(2, [999])
