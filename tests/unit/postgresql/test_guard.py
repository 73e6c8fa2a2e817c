"""The start guard with each answer of a peer: rendered by Ansible, commands stubbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
STUBS = {
    "readlink": "echo /dev/sdb",
    "findmnt": "echo /dev/sdb",
    "df": "echo 1000M",
    "ip": "echo '2: eth1 inet 10.1.1.71/24'",
    "psql": 'echo "$*" >>"$CALLS"; echo "$ANSWER"; exit "$CODE"',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two guards, one of a host with a peer and one of a host that is alone, and the commands that they call."""
    folder = tmp_path_factory.mktemp("guard")
    for name, text in STUBS.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "data").mkdir()
    (folder / "data/PG_VERSION").write_text("17\n")
    role = REPOSITORY / "roles/postgresql"
    template = {"src": str(role / "templates/usr/local/lib/slipway/postgresql-guard.j2"), "mode": "0755"}
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(role / "defaults/main.yml"), str(role / "vars/main.yml")],
        "tasks": [
            {"ansible.builtin.template": {**template, "dest": str(folder / name)}, "vars": {"postgresql_peers": peers}}
            for name, peers in (("peer", {"db-2": "10.1.1.72"}), ("alone", {}))
        ],
    }
    values = {
        "postgresql_version": "17",
        "postgresql_address": "10.1.1.71",
        "postgresql_volume_device": "/dev/sdb",
        "__postgresql_data_dir": str(folder / "data"),
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), folder / "play.yml", "-i", "localhost,",
         "-e", json.dumps({**values, "ansible_python_interpreter": sys.executable})],
        cwd=REPOSITORY, check=True, capture_output=True, timeout=120,
        env={**os.environ, "ANSIBLE_CACHE_PLUGIN": "memory", "SLIPWAY_ARTIFACTS": str(folder / "artifacts")},
    )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("guard", "standby", "answer", "code", "starts", "queried"),
    [
        ("peer", False, "f", 0, False, True),
        ("peer", False, "t", 0, True, True),
        (
            "peer",
            False,
            "",
            2,
            True,
            True,
        ),  # refused, filtered, starting up, a certificate or password that is no longer valid
        ("peer", True, "f", 0, True, False),
        ("alone", False, "f", 0, True, False),
    ],
    ids=["peer is primary", "peer is standby", "peer gives no answer", "own data is a standby's", "no peer"],
)
def test_a_primary_starts_unless_a_peer_is_primary(
    folder: Path, guard: str, standby: bool, answer: str, code: int, starts: bool, queried: bool
) -> None:
    signal, calls = folder / "data/standby.signal", folder / "calls"
    calls.write_text("")
    signal.touch()
    if not standby:
        signal.unlink()
    done = subprocess.run(
        [folder / guard], capture_output=True, text=True, check=False, timeout=30,
        env={"PATH": f"{folder}:/usr/bin:/bin", "CALLS": str(calls), "ANSWER": answer, "CODE": str(code)},
    )  # fmt: skip
    assert (done.returncode == 0) is starts, done.stderr
    assert starts or "db-2 is the primary now" in done.stderr
    assert ("connect_timeout=5" in calls.read_text()) is queried, "it would wait for a filtered peer"


@pytest.mark.parametrize("path", ["roles/postgresql/README.md", "docs/runbooks/promote_postgresql.md"])
def test_the_limit_of_the_guard_is_stated(path: str) -> None:
    text = (REPOSITORY / path).read_text()
    assert "split-brain" in text and "fencing" in text and "gives no answer" in " ".join(text.split())
    assert "No host starts as primary while another one is" not in text
