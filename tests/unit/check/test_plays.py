"""Which roles a play runs, and which of their options it sets."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.slipway.platform.plugins.plugin_utils.inventory import read_plays, read_roles

INCLUDE = "ansible.builtin.include_role"


def test_a_role_in_an_included_file_is_one_of_the_play(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    included = [{INCLUDE: {"name": "backup"}}, {INCLUDE: {"name": "other", "tasks_from": "prepare"}}]
    (tmp_path / "tasks/run.yml").write_text(json.dumps(included))
    play = {
        "hosts": "database",
        "vars": {"backup_bucket": "a", "ansible_user": "b"},
        "tasks": [{"ansible.builtin.include_tasks": "tasks/run.yml"}, {INCLUDE: {"name": "server"}, "vars": {"x": 1}}],
    }
    (tmp_path / "database.yml").write_text(json.dumps([play]))
    (found,) = read_plays(tmp_path)
    assert {name: set(options) for name, options in found.roles.items()} == {
        "backup": {"backup_bucket", "ansible_user"},
        "server": {"backup_bucket", "ansible_user", "x"},
    }
    spec = {"argument_specs": {"main": {"options": {"backup_bucket": {"type": "str"}}}}}
    path = tmp_path / "roles/backup/meta/argument_specs.yml"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(spec))
    (role,) = read_roles(tmp_path / "roles", [found])
    assert role.wired == {frozenset({"database"}): {"backup_bucket"}} and role.groups == {"database"}
