"""The monitor addresses in the configuration of a monitor's container."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.ceph_monitor_config import (
    addresses_of,
    with_monitors,
    write_in_place,
)

BOOTSTRAPPED = """\
# minimal ceph.conf for 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
[global]
\tfsid = 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
\tmon_host = [v2:10.0.1.51:3300/0,v1:10.0.1.51:6789/0]
[mon.prod-ceph-2]
public addr = 10.0.1.52
"""
ALL = ["10.0.1.51", "10.0.1.52", "10.0.1.53"]


def test_only_the_addresses_change() -> None:
    text = with_monitors(BOOTSTRAPPED, ALL)
    before, after = BOOTSTRAPPED.splitlines(), text.splitlines()
    assert [index for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new] == [3]
    assert after[3] == (
        "\tmon_host = [v2:10.0.1.51:3300/0,v1:10.0.1.51:6789/0] [v2:10.0.1.52:3300/0,v1:10.0.1.52:6789/0] "
        "[v2:10.0.1.53:3300/0,v1:10.0.1.53:6789/0]"
    )
    assert with_monitors(text, ALL) == text


@pytest.mark.parametrize(
    ("addresses", "known"),
    [(ALL[:1], True), (ALL, False), (["10.0.1.5"], False), ([], False)],
)
def test_all_monitors_and_no_others(addresses: list[str], known: bool) -> None:
    assert (addresses_of(BOOTSTRAPPED) == sorted(addresses)) is known


def test_the_order_does_not_matter() -> None:
    assert addresses_of(with_monitors(BOOTSTRAPPED, ALL[::-1])) == ALL


def test_a_removed_monitor_is_not_listed() -> None:
    assert addresses_of(with_monitors(BOOTSTRAPPED, ALL)) != ALL[1:]


def test_a_configuration_without_mon_host_is_an_error() -> None:
    with pytest.raises(ValueError, match="no line begins with mon_host"):
        with_monitors("[global]\n", ALL)


def test_the_inode_stays_the_same(tmp_path: Path) -> None:
    """A container has mounted it."""
    path = tmp_path / "config"
    path.write_text(with_monitors(BOOTSTRAPPED, ALL))
    inode = path.stat().st_ino
    write_in_place(path, BOOTSTRAPPED)
    assert (path.read_text(), path.stat().st_ino) == (BOOTSTRAPPED, inode)
