"""The port matrix between hosts: who is named gets in, who is not is dropped."""

from __future__ import annotations

import json

from testinfra.host import Host

testinfra_hosts = ["ansible://all"]

ADDRESSES = {
    "test-base-1": "10.95.1.5",
    "test-lb-1": "10.95.1.10",
    "test-rke2-server-1": "10.95.1.21",
    "test-rke2-server-2": "10.95.1.22",
    "test-rke2-agent-1": "10.95.1.41",
}


KNOCK = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def knock(door):
    try:
        socket.create_connection(door, timeout=2).close()
        return "open"
    except ConnectionRefusedError:
        return "closed"
    except OSError:
        return "dropped"

print(json.dumps(list(ThreadPoolExecutor(20).map(knock, map(tuple, json.loads(sys.argv[1]))))))
"""


def knock(host: Host, doors: list[tuple[str, int]]) -> list[str]:
    """Try ports of other hosts: open, closed (let through, nobody listens) or dropped."""
    asked = json.dumps([(ADDRESSES[name], port) for name, port in doors])
    answers: list[str] = json.loads(host.check_output("python3 -c %s %s", KNOCK, asked))
    return answers


MATRIX = [
    ("test-rke2-server-1", "test-rke2-server-2", 2380, True),
    ("test-rke2-server-1", "test-rke2-server-2", 10250, True),
    ("test-rke2-agent-1", "test-rke2-server-1", 9345, True),
    ("test-rke2-agent-1", "test-rke2-server-1", 2379, False),
    ("test-lb-1", "test-rke2-server-1", 6443, True),
    ("test-lb-1", "test-rke2-server-1", 443, True),
    ("test-lb-1", "test-rke2-server-1", 10250, False),
    ("test-rke2-server-1", "test-lb-1", 9345, True),
    ("test-base-1", "test-lb-1", 9345, False),
    ("test-base-1", "test-lb-1", 443, True),
    ("test-base-1", "test-rke2-server-1", 6443, False),
    # SSH is for administrators, not for neighbours in the private network.
    ("test-rke2-server-1", "test-rke2-server-2", 22, False),
    ("test-rke2-server-1", "test-base-1", 22, False),
]


def test_only_the_named_peers_get_in(host: Host) -> None:
    own = host.check_output("uname --nodename")
    rows = [row for row in MATRIX if row[0] == own]
    answers = knock(host, [(target, port) for _, target, port, _ in rows])
    wrong = [
        f"{own} to {target} port {port}: {answer}"
        for (_, target, port, let_in), answer in zip(rows, answers, strict=True)
        if (answer != "dropped") is not let_in
    ]
    assert wrong == []


def test_peers_are_known_by_name_and_reached_by_ping(host: Host) -> None:
    assert host.check_output("getent hosts test-rke2-server-2").split()[0] == ADDRESSES["test-rke2-server-2"]
    assert host.run("ping -c 1 -W 2 test-rke2-server-2").rc == 0
