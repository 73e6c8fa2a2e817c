"""The file that a monitor's container has for /etc/ceph/ceph.conf: which monitors a program in there asks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

LINE = re.compile(r"^(\s*)mon[_ ]host\s*=.*$", re.M)
PORTS = {"v2": 3300, "v1": 6789}


def mon_host(addresses: Sequence[str]) -> str:
    """The monitors' addresses as Ceph writes them, both protocols' ports for each."""
    return " ".join(
        f"[{','.join(f'{protocol}:{address}:{port}/0' for protocol, port in PORTS.items())}]" for address in addresses
    )


def with_monitors(text: str, addresses: Sequence[str]) -> str:
    """The configuration with these monitors in it; all else stays as it is. ValueError when it names none at all."""
    if not LINE.search(text):
        raise ValueError("no line of it begins with mon_host")
    return LINE.sub(lambda line: f"{line[1]}mon_host = {mon_host(addresses)}", text, count=1)


def addresses_of(text: str) -> list[str]:
    """The monitors that are named."""
    line = LINE.search(text)
    return sorted(set(re.findall(r"v2:([^\s,\]]+):\d+", line[0]))) if line else []


def write_in_place(path: Path, text: str) -> None:
    """Into the file that is there: a container has mounted it, and would go on seeing one that was put in its place."""
    with path.open("r+", encoding="utf-8") as file:
        file.write(text)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
