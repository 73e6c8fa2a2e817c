"""Decisions of the role rancher: versions, the password's hash, findings, settings."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.filter.rancher import rancher_setting, rancher_version_faults
from ansible_collections.slipway.platform.plugins.module_utils.rancher import findings, password_is, version_faults

STATE = {
    "installed_version": "2.15.0",
    "administrator": "user-abcde",
    "password_current": True,
    "local_active": True,
    "telemetry_enabled": False,
    "server_version": "v2.15.0",
}


@pytest.mark.parametrize(
    ("installed", "wanted", "allowed"),
    [
        ("", "2.15.0", False),
        ("2.15.0", "2.15.0", False),
        ("2.15.0", "2.15.1", True),
        ("2.15.9", "2.16.0", True),
    ],
)
def test_a_version_that_may_follow(installed: str, wanted: str, allowed: bool) -> None:
    assert version_faults(installed, wanted, allowed) == []


@pytest.mark.parametrize(
    ("installed", "wanted", "allowed", "reason"),
    [
        ("2.16.0", "2.15.9", True, "2.15.9 is older than the installed 2.16.0, and Rancher has no downgrade"),
        ("2.15.1", "2.15.0", False, "2.15.0 is older than the installed 2.15.1"),
        ("2.14.4", "2.16.0", True, "2.16.0 skips a minor after the installed 2.14.4. Upgrade to the newest 2.15 first"),
        ("2.15.0", "3.0.0", True, "3.0.0 skips a minor after the installed 2.15.0"),
        ("2.15.0", "2.15.1", False, "2.15.1, but 2.15.0 is installed"),
        ("2.15.0", "2.16.0", False, "upgrade with playbooks/operations/upgrade_rancher.yml"),
    ],
)
def test_a_version_that_must_not_follow(installed: str, wanted: str, allowed: bool, reason: str) -> None:
    (fault,) = version_faults(installed, wanted, allowed)
    assert fault.startswith("rancher_version: ")
    assert reason in fault


def test_a_version_without_three_numbers_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match="rancher_version: latest is no version of three numbers"):
        rancher_version_faults("latest", "2.15.0")


def secret(password: str, algorithm: str = "pbkdf2sha3512") -> dict[str, Any]:
    salt = b"s" * 32
    key = hashlib.pbkdf2_hmac("sha3_512", password.encode(), salt, 210000, 32)
    data = {"password": base64.b64encode(key).decode(), "salt": base64.b64encode(salt).decode()}
    return {"metadata": {"annotations": {"cattle.io/password-hash": algorithm}}, "data": data}


def test_a_password_is_recognized_by_its_hash() -> None:
    assert password_is(secret("correct horse"), "correct horse")
    assert not password_is(secret("correct horse"), "battery staple")


def test_a_secret_without_a_known_hash_is_another_password() -> None:
    assert not password_is(secret("correct horse", "bcrypt"), "correct horse")
    assert not password_is({"metadata": {}, "data": None}, "correct horse")


def test_a_healthy_rancher_has_no_findings() -> None:
    assert findings(STATE, "2.15.0") == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"installed_version": ""}, "Rancher is not installed"),
        ({"installed_version": "2.14.4"}, "2.14.4 is installed, declared is 2.15.0"),
        ({"local_active": False}, "its local cluster is not Active"),
        ({"password_current": False}, "the password of admin is not rancher_admin_password"),
        ({"telemetry_enabled": True}, "it sends telemetry"),
    ],
)
def test_each_fault_is_a_finding(change: dict[str, Any], sentence: str) -> None:
    (finding,) = findings({**STATE, **change}, "2.15.0")
    assert sentence in finding


def test_a_setting_is_text() -> None:
    setting = rancher_setting({"key": "auth-user-session-ttl-minutes", "value": 480})
    assert (setting["metadata"]["name"], setting["value"]) == ("auth-user-session-ttl-minutes", "480")
