"""Errors of SSH that pass by waiting, and those that end the wait at once, with a program in place of ssh."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.plugin_utils import ssh

from tests.playbooks import run_playbook

CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Offending ED25519 key in /s/known_hosts:1
Host key verification failed."""
UNPROTECTED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Permissions 0644 for '/k' are too open.
slipway@203.0.113.7: Permission denied (publickey)."""
TOO_MANY = (
    "Received disconnect from 203.0.113.7 port 22:2: Too many authentication failures\nDisconnected from 203.0.113.7"
)
PERMANENT = [
    (
        CHANGED,
        "its SSH host key is not the one in /s t/known_hosts (WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!)",
    ),
    (CHANGED, "remove the old key with ssh-keygen -R trial-1.7 -f /s t/known_hosts"),
    (TOO_MANY, "ended the login of slipway after too many keys of the SSH agent (Received disconnect"),
    (TOO_MANY, "Set ansible_ssh_private_key_file, so that no other key is offered"),
    (UNPROTECTED, "the SSH private key /k cannot be used"),
    (
        "no such identity: /k: No such file or directory\nPermission denied (publickey).",
        "private key /k cannot be used",
    ),
    ("ssh: connect to host 203.0.113.7 port 22: Network is unreachable", "this machine has no route to 203.0.113.7"),
    ("ssh: connect to host 203.0.113.7 port 22: Permission denied", "a firewall of this machine rejects"),
    ("ssh: Could not resolve hostname trial-1: Name or service not known", "no address is known"),
    ("Unable to negotiate with 203.0.113.7 port 22: no matching host key type found.", "share no algorithm"),
    ("/root/.ssh/config: line 3: Bad configuration option: foo", "this machine's SSH settings are not valid"),
]
PASSING = [
    "ssh: connect to host 203.0.113.7 port 22: Connection refused",
    "ssh: connect to host 203.0.113.7 port 22: Connection timed out",
    "ssh: connect to host 203.0.113.7 port 22: No route to host",
    "kex_exchange_identification: read: Connection reset by peer",
    "System is booting up. Unprivileged users are not permitted to log in yet.\nConnection closed by 203.0.113.7",
    "Connection timed out during banner exchange",
]
OPTIONS = {
    "ssh_common_args": "-o 'UserKnownHostsFile=\"/s t/known_hosts\"' -o HostKeyAlias=trial-1.7",
    "remote_user": "slipway",
    "private_key_file": "/k",
}
TARGET = ssh.target_of("trial-1", {"ansible_host": "203.0.113.7"}, OPTIONS)


@pytest.mark.parametrize(("output", "text"), PERMANENT)
def test_a_permanent_error_has_its_own_sentence(output: str, text: str) -> None:
    error = ssh.login_error(f"Failed to connect to the host via ssh: {output}", TARGET, 0.0)
    assert error.permanent
    assert str(error).startswith("trial-1 (203.0.113.7): ")
    assert text in str(error)
    assert "@@" not in str(error)


@pytest.mark.parametrize("output", PASSING)
def test_an_error_of_a_booting_host_passes(output: str) -> None:
    assert not ssh.login_error(output, TARGET, 1e6).permanent


def test_a_rejected_key_is_permanent_when_it_stays_rejected() -> None:
    output = "slipway@203.0.113.7: Permission denied (publickey)."
    assert not ssh.login_error(output, TARGET, ssh.AUTHENTICATION_SECONDS - 1).permanent
    error = ssh.login_error(output, TARGET, ssh.AUTHENTICATION_SECONDS)
    assert error.permanent
    assert "rejects the login of slipway with /k (slipway@203.0.113.7: Permission denied (publickey))" in str(error)


def waited(folder: Path, program: str, hosts: dict[str, Any], timeout_seconds: int = 30) -> tuple[int, str]:
    executable = folder / "ssh program"
    executable.write_text(f"#!/bin/sh\nfor last; do :; done\n{program}\n")
    executable.chmod(0o755)
    task = {"ansible.builtin.include_role": {"name": "provision", "tasks_from": "wait_boot"}}
    play = {"hosts": "all", "gather_facts": False, "any_errors_fatal": True, "tasks": [task]}
    (folder / "play.yml").write_text(json.dumps([play]))
    variables = {
        "ansible_ssh_executable": str(executable),
        "ansible_user": "slipway",
        "provision_wait_seconds": timeout_seconds,
    }
    (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
    code, output = run_playbook(folder, folder / "hosts.json", folder / "play.yml")
    return code, " ".join(output.split())


def test_one_sentence_for_the_host_that_fails_and_none_for_the_other(tmp_path: Path) -> None:
    program = """case "$*" in *203.0.113.8*) ;; *) echo "Host key verification failed." >&2; exit 255 ;; esac
case $last in *result.json*) echo '{"v1": {"errors": []}}' ;; esac"""
    started = time.monotonic()
    hosts = {"trial-1": {"ansible_host": "203.0.113.7"}, "trial-2": {"ansible_host": "203.0.113.8"}}
    code, output = waited(tmp_path, program, hosts)
    assert code != 0
    assert time.monotonic() - started < 20  # of 30
    assert "trial-1 (203.0.113.7): its SSH host key is not the one in" in output
    assert "undefined" not in output
    assert "failed=0" in output.partition("trial-2 :")[2]


def test_a_host_that_boots_is_waited_for(tmp_path: Path) -> None:
    state = tmp_path / "state"
    program = f"""case " $* " in *" -O check "*) exit 1 ;; esac
echo x >> '{state}'
[ $(wc -l < '{state}') -gt 2 ] || {{ echo "ssh: connect to host h port 22: Connection refused" >&2; exit 255; }}
[ $(wc -l < '{state}') -gt 4 ] || exit 0
echo '{{"v1": {{"errors": []}}}}'"""
    code, output = waited(tmp_path, program, {"trial-1": {"ansible_host": "203.0.113.7"}})
    assert code == 0, output


def test_the_reasons_at_the_end_of_the_wait(tmp_path: Path) -> None:
    program = 'echo "ssh: connect to host 203.0.113.7 port 22: Connection refused" >&2; exit 255'
    _, output = waited(tmp_path, program, {"trial-1": {"ansible_host": "203.0.113.7"}}, 1)
    assert (
        "trial-1 (203.0.113.7): SSH does not answer (ssh: connect to host 203.0.113.7 port 22: Connection refused)"
        in output
    )
    assert "Check its console, and whether platform_admin_cidrs contains the address of the controller." in output

    program = """case $last in *result.json*) echo '{"v1": {"errors": ["no package"]}}' ;; esac"""
    _, output = waited(tmp_path, program, {"trial-1": {"ansible_host": "203.0.113.7"}})
    assert (
        "trial-1 (203.0.113.7): cloud-init did not succeed (no package). Read /var/log/cloud-init-output.log" in output
    )

    _, output = waited(tmp_path, "", {"trial-1": {"ansible_host": "203.0.113.7"}}, 1)
    assert "trial-1 (203.0.113.7): cloud-init is still running after" in output


def test_a_host_without_an_address(tmp_path: Path) -> None:
    program = 'echo "ssh: Could not resolve hostname trial-1: Name or service not known" >&2; exit 255'
    code, output = waited(tmp_path, program, {"trial-1": {}})
    assert code != 0
    assert "trial-1: no address is known (ssh: Could not resolve" in output
    assert "playbooks/provision.yml creates it" in output
