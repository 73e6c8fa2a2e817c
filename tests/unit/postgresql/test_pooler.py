"""PgBouncer's configuration, rendered by Ansible with the role's defaults."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.playbooks import run_playbook
from tests.static.repository import REPOSITORY

ROLE = REPOSITORY / "roles/postgresql"
HOST: dict[str, Any] = {
    "postgresql_address": "10.1.1.71",
    "__postgresql_host": {"packages": {"pgbouncer": "1.24.1-1"}},
    "__postgresql_certificate": "",
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("pooler")
    cases: dict[str, dict[str, Any]] = {
        "default": {},
        "wanted": {
            "postgresql_pooler_ignored_parameters": ["extra_float_digits", "options", "statement_timeout"],
            "postgresql_pooler_tracked_parameters": ["search_path"],
        },
    }
    template = {"src": str(ROLE / "templates/etc/pgbouncer/pgbouncer.ini.j2"), "mode": "0644"}
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "tasks": [
            {"ansible.builtin.template": {**template, "dest": str(folder / name)}, "vars": HOST | values}
            for name, values in cases.items()
        ],
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    code, output = run_playbook(folder, "localhost,", folder / "play.yml")
    assert code == 0, output
    return {name: (folder / name).read_text().splitlines() for name in cases}


def test_start_up_parameters_of_clients(rendered: dict[str, list[str]]) -> None:
    assert "ignore_startup_parameters = extra_float_digits" in rendered["default"]
    assert not any(line.startswith("track_extra_parameters") for line in rendered["default"])
    assert "ignore_startup_parameters = extra_float_digits, options, statement_timeout" in rendered["wanted"]
    assert "track_extra_parameters = IntervalStyle, search_path" in rendered["wanted"]
