"""What is read from the output of dpkg, ip and the SSH session."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ansible_collections.slipway.platform.plugins.modules.host_info import (
    content_of,
    dpkg_interrupted,
    installed_versions,
    interface_with,
    matching,
    private_key_of,
    sensitive_file_of,
    session,
    shell_of,
)


def test_only_installed_packages_have_a_version() -> None:
    output = "installed ok nginx 1.26.3-3\nconfig-files ok chrony 4.6\nnot-installed ok curl \ninstalled ok other 1\n"
    versions, unfinished = installed_versions(["nginx", "chrony", "curl", "lego"], output)
    assert versions == {"nginx": "1.26.3-3", "chrony": None, "curl": None, "lego": None}
    assert unfinished == []


def test_packages_of_a_killed_installation_are_unfinished() -> None:
    output = "unpacked ok b 1\nhalf-installed reinstreq a 1\ninstalled ok c 1\ntriggers-pending ok d 1\n"
    assert installed_versions(["a", "c"], output) == ({"a": None, "c": "1"}, ["a", "b", "d"])


def test_a_killed_dpkg_leaves_numbered_files(tmp_path: Path) -> None:
    assert not dpkg_interrupted(tmp_path / "none")
    (tmp_path / "tmp.i").touch()
    assert not dpkg_interrupted(tmp_path)
    (tmp_path / "0001").touch()
    assert dpkg_interrupted(tmp_path)


def test_the_session_has_client_and_port() -> None:
    expected = session({"SSH_CONNECTION": "198.19.255.1 50000 198.18.0.5 22"}, "anna")
    assert expected == {"user": "anna", "address": "198.19.255.1", "port": 22, "is_local": False}
    assert session({"SSH_CONNECTION": "10.0.0.5 50000 ::ffff:10.0.0.5 22"}, "anna")["is_local"] is True
    assert session({"SSH_CONNECTION": "::ffff:203.0.113.7 1 ::1 2222"}, "anna")["address"] == "203.0.113.7"
    assert session({"SSH_CONNECTION": "fe80::1%eth0 1 fe80::2%eth0 22"}, "anna")["address"] == "fe80::1"
    assert session({}, "root") == {"user": "root", "address": None, "port": None, "is_local": False}


def test_the_interface_with_the_address_is_found() -> None:
    output = '[{"ifname": "eth0", "mtu": 1500, "addr_info": [{"local": "10.0.0.1"}]}, {"ifname": "lo", "mtu": 65536}]'
    assert interface_with("10.0.0.1", output) == {"name": "eth0", "mtu": 1500}
    assert interface_with("10.0.0.2", output) is None
    assert interface_with("10.0.0.2", "") is None


def test_a_missing_file_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert content_of(str(tmp_path / "a")) == "x"
    assert content_of(str(tmp_path / "b")) is None
    (tmp_path / "c").write_bytes(b"\xff\xfe")
    assert content_of(str(tmp_path / "c")) == "\ufffd\ufffd"
    assert private_key_of(str(tmp_path / "b"), str) is None
    assert sensitive_file_of(str(tmp_path / "b")) is None


def test_a_sensitive_file_is_described_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret")
    path.chmod(0o600)
    found = sensitive_file_of(str(path))
    assert found is not None and found.pop("owner") and found.pop("group")
    assert found == {"mode": "0600", "sha256": hashlib.sha256(b"secret").hexdigest()}


def test_a_private_key_is_described_by_its_file_and_its_public_half(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret")
    path.chmod(0o640)
    expected = private_key_of(str(path), lambda name: f"public half of {name}")
    assert expected is not None and expected.pop("owner") and expected.pop("group")
    assert expected == {"mode": "0640", "public_key": f"public half of {path}"}


def test_an_account_has_its_shell() -> None:
    assert shell_of("root")
    assert shell_of("nobody-of-that-name") is None


def test_a_pattern_gives_sorted_paths(tmp_path: Path) -> None:
    for name in ("18/main/PG_VERSION", "17/main/PG_VERSION", "17/main.before-18/PG_VERSION", "17/PG_VERSION"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = ["17/main.before-18", "17/main", "18/main"]
    assert matching(f"{tmp_path}/*/*/PG_VERSION") == sorted(f"{tmp_path}/{name}/PG_VERSION" for name in found)
    assert matching(f"{tmp_path}/17/PG_VERSION") == [f"{tmp_path}/17/PG_VERSION"]
    assert matching(f"{tmp_path}/nowhere/*") == matching(f"{tmp_path}/nowhere") == []
