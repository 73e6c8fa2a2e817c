"""What base rejects before it changes a host, because an administrator would lose access."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks import run_playbook

OPENING = {"name": "SSH", "protocol": "tcp", "ports": ["22"], "world": False, "sources": ["198.51.100.0/24"]}
SOUND: dict[str, Any] = {
    "base_admin_public_keys": ["ssh-ed25519 AAAA admin"],
    "base_users": [{"name": "anna", "public_keys": []}],
    "base_removed_users": ["berta"],
    "base_firewall_openings": [OPENING],
}


def checked(folder: Path, values: dict[str, Any], **changes: Any) -> str:
    """The output of the checks; empty when they pass."""
    login = {"user": "slipway", "address": "198.51.100.7", "port": 22, "is_local": False} | changes
    host = {"login": login, "clock": "{{ now().timestamp() | int }}", "container": "none", "interface": None}
    task = {"ansible.builtin.include_role": {"name": "base", "tasks_from": "check"}, "vars": {"__base_host": host}}
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": SOUND | values, "tasks": [task]}
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([play]))
    code, output = run_playbook(folder, "localhost,", playbook)
    return "" if code == 0 else " ".join(output.split())


def test_a_sound_host_passes(tmp_path: Path) -> None:
    assert checked(tmp_path, {}) == ""


def test_a_session_from_the_host_itself_passes_no_firewall(tmp_path: Path) -> None:
    assert checked(tmp_path, {}, address="10.0.0.5", is_local=True) == ""


@pytest.mark.parametrize(
    ("values", "login", "message"),
    [
        ({"base_admin_public_keys": []}, {}, "base_admin_public_keys is empty, so no administrator could log in"),
        ({}, {"user": "carla"}, "logs in as carla, but SSH would only allow slipway, anna"),
        ({"base_removed_users": ["anna", "root"]}, {}, "base_removed_users holds anna, root, which the host needs"),
        ({"base_removed_users": ["slipway"]}, {}, "base_removed_users holds slipway"),
        ({}, {"address": "203.0.113.9"}, "from 203.0.113.9, which the firewall would drop on port 22"),
    ],
)
def test_losing_access_is_rejected(tmp_path: Path, values: dict[str, Any], login: dict[str, str], message: str) -> None:
    assert message in checked(tmp_path, values, **login)
