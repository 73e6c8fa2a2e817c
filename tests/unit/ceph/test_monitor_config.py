"""What a monitor's container is told of the other monitors."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.ceph_monitor_config import (
    addresses_of,
    with_monitors,
    write_in_place,
)

FOUNDED = """\
# minimal ceph.conf for 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
[global]
\tfsid = 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
\tmon_host = [v2:10.0.1.51:3300/0,v1:10.0.1.51:6789/0]
[mon.prod-ceph-2]
public addr = 10.0.1.52
"""
ALL = ["10.0.1.51", "10.0.1.52", "10.0.1.53"]


def test_only_the_addresses_change() -> None:
    text = with_monitors(FOUNDED, ALL)
    before, after = FOUNDED.splitlines(), text.splitlines()
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
    assert (addresses_of(FOUNDED) == sorted(addresses)) is known


def test_the_order_does_not_matter() -> None:
    assert addresses_of(with_monitors(FOUNDED, ALL[::-1])) == ALL


def test_a_monitor_that_left_is_not_asked_any_more() -> None:
    assert addresses_of(with_monitors(FOUNDED, ALL)) != ALL[1:]


def test_a_configuration_without_monitors_is_refused() -> None:
    with pytest.raises(ValueError, match="no line of it begins with mon_host"):
        with_monitors("[global]\n", ALL)


def test_the_file_stays_the_same_one(tmp_path: Path) -> None:
    """A container has mounted it."""
    path = tmp_path / "config"
    path.write_text(with_monitors(FOUNDED, ALL))
    inode = path.stat().st_ino
    write_in_place(path, FOUNDED)
    assert (path.read_text(), path.stat().st_ino) == (FOUNDED, inode)
