"""Versions as dpkg compares them, and the probes of a load balancer's listeners."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.filter.debian_version import debian_version_at_least
from ansible_collections.slipway.platform.plugins.filter.load_balancer_probes import load_balancer_probes

PAIRS = [
    ("1.26.3-3+deb13u10", "1.26.3-3+deb13u9", True),
    ("1.26.3-3+deb13u9", "1.26.3-3+deb13u10", False),
    ("1.26.3-3+deb13u10", "1.26.3-3+deb13u10", True),
    ("1.26.3-3", "1.26.3-3+deb13u1", False),
    ("1.30.4-1~bookworm", "1.30.4-1", False),
    ("1.30.4-1~bookworm", "1.26.3-3+deb13u10", True),
    ("1:1.0-1", "2.0-1", True),
    ("2.0-1", "1:1.0-1", False),
    ("3.5.7-1~deb13u1", "3.5", True),
    ("3.0.19-1~deb12u2", "3.5", False),
    ("0", "1.25.1", False),
    ("1.0", "1.0-0", True),
    ("1.0-0", "1.0", True),
    ("1.0~rc1", "1.0", False),
    ("1.0~~", "1.0~", False),
    ("1.0a", "1.0+", False),
    ("1.09-1", "1.9-1", True),
]


@pytest.mark.parametrize(("version", "floor", "enough"), PAIRS)
def test_versions(version: str, floor: str, enough: bool) -> None:
    assert debian_version_at_least(version, floor) is enough


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not installed")
@pytest.mark.parametrize(("version", "floor", "enough"), PAIRS)
def test_dpkg_agrees(version: str, floor: str, enough: bool) -> None:
    returncode = subprocess.run(["dpkg", "--compare-versions", version, "ge", floor], check=False).returncode
    assert (returncode == 0) is enough


@pytest.mark.parametrize("version", ["", "1 2", None, 3.5])
def test_an_invalid_version_is_rejected(version: str) -> None:
    with pytest.raises(AnsibleFilterError, match="is not a version of a Debian package"):
        debian_version_at_least(version, "1")


LISTENERS = [["0.0.0.0", "[::]"], ["198.51.100.7"], ["10.0.1.10"], ["*.apps.example", "rancher.example"]]


def test_every_name_is_probed_where_tls_is_terminated() -> None:
    probes = load_balancer_probes(LISTENERS, "/c.crt")
    assert {"address": "127.0.0.1", "port": 80} in probes
    assert {(p["address"], p["server_name"]) for p in probes if p.get("tls")} == {
        ("127.0.0.1", "slipway-probe.apps.example"),
        ("127.0.0.1", "rancher.example"),
        ("::1", "slipway-probe.apps.example"),
        ("::1", "rancher.example"),
    }
    assert probes[-2:] == [{"address": "198.51.100.7", "port": 6443}, {"address": "10.0.1.10", "port": 9345}]


def test_passthrough_ports_are_probed_by_tcp_alone() -> None:
    probes = load_balancer_probes(LISTENERS, "", passthrough=True)
    assert [p["port"] for p in probes] == [80, 443, 80, 443, 6443, 9345]
    assert not any("tls" in p for p in probes)


def test_without_a_certificate_443_is_not_probed() -> None:
    assert 443 not in {p["port"] for p in load_balancer_probes(LISTENERS, "")}
