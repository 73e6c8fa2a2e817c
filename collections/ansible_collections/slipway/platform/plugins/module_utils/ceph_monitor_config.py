"""The ceph.conf of a monitor's container: the monitors that a program in it connects to."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

LINE = re.compile(r"^(\s*)mon[_ ]host\s*=.*$", re.M)
PORTS = {"v2": 3300, "v1": 6789}


def mon_host(addresses: Sequence[str]) -> str:
    """The monitors' addresses in the format of mon_host, with both protocols for each."""
    return " ".join(
        f"[{','.join(f'{protocol}:{address}:{port}/0' for protocol, port in PORTS.items())}]" for address in addresses
    )


def with_monitors(text: str, addresses: Sequence[str]) -> str:
    """The configuration with these monitors and no other change. ValueError without a mon_host line."""
    if not LINE.search(text):
        raise ValueError("no line begins with mon_host")
    return LINE.sub(lambda line: f"{line[1]}mon_host = {mon_host(addresses)}", text, count=1)


def addresses_of(text: str) -> list[str]:
    """Addresses of the monitors in a configuration."""
    line = LINE.search(text)
    return sorted(set(re.findall(r"v2:([^\s,\]]+):\d+", line[0]))) if line else []


def write_in_place(path: Path, text: str) -> None:
    """Overwrite the file without replacing it: the container has mounted this inode and would keep the old one."""
    with path.open("r+", encoding="utf-8") as file:
        file.write(text)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
