"""Data of another version: one definition, evaluated by Ansible as the role has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
ROLE = REPOSITORY / "roles/postgresql"
VOLUME = "/var/lib/postgresql"
# Folders with data on the volume of a host whose postgresql_version is 17, the target of a restore, and what is wrong.
CASES: dict[str, tuple[list[str], str, str]] = {
    "an empty volume": ([], "", ""),
    "its own data": (["17/main"], "", ""),
    "its own data beside what an upgrade kept": (["16/main", "17/main"], "", ""),
    "a newer version beside its own": (["17/main", "18/main"], "", 'Set it to "18"'),
    "an older version alone": (["16/main"], "", 'Set it to "16"'),
    "a newer version alone": (["18/main"], "", 'Set it to "18"'),
    "a restore in the place of an older version": (["16/main"], "latest", ""),
    "a restore beside a newer version": (["18/main"], "latest", 'Set it to "18"'),
    "data where no version lies": (["data"], "", f"{VOLUME}/data"),
    "data of the volume itself": (["."], "", f"data in {VOLUME}"),
    "its own data beside a strange folder": (["17/main", "data"], "", ""),
    "data of a previous data directory": (["16/main.before-20261121T101500Z"], "", ""),
    "what interrupted runs left": (["17/main.unfinished", "17/main.restored", "17/main.drill"], "", ""),
    "a previous data directory and another in use": (["16/main.before-1", "18/main"], "", 'Set it to "18"'),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("version")
    globs = [f"{VOLUME}/PG_VERSION", f"{VOLUME}/*/PG_VERSION", f"{VOLUME}/*/*/PG_VERSION"]
    cases = []
    for name, (folders, target, _) in CASES.items():
        paths = [f"{VOLUME}/{path}/PG_VERSION".replace("/./", "/") for path in folders]
        hits = {glob: [path for path in paths if path.count("/") == glob.count("/")] for glob in globs}
        cases.append({"name": name, "globs": hits, "target": target})
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "tasks": [
            {
                "ansible.builtin.copy": {
                    "content": "{{ dict(foreign=__postgresql_version_mismatch, "
                    "fault=__postgresql_version_fault) | to_json }}",
                    "dest": f"{folder}/{{{{ item.name }}}}",
                    "mode": "0600",
                },
                "loop": cases,
                "vars": {
                    "__postgresql_host": {"globs": "{{ item.globs }}"},
                    "postgresql_restore_target": "{{ item.target }}",
                },
            }
        ],
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), folder / "play.yml", "-i", "localhost,",
         "-e", json.dumps({"postgresql_version": "17", "ansible_python_interpreter": sys.executable})],
        cwd=REPOSITORY, check=True, capture_output=True, timeout=120,
        env={**os.environ, "ANSIBLE_CACHE_PLUGIN": "memory", "SLIPWAY_ARTIFACTS": str(folder / "artifacts")},
    )  # fmt: skip
    return {name: json.loads((folder / name).read_text()) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_data_of_another_version_is_found(found: dict[str, Any], name: str) -> None:
    message = CASES[name][2]
    assert found[name]["foreign"] is bool(message)
    assert message in found[name]["fault"]


def test_no_task_has_a_definition_of_its_own() -> None:
    users = [path.name for path in (ROLE / "tasks").glob("*.yml") if "__postgresql_version_paths" in path.read_text()]
    assert users == []
