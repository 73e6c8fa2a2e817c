"""Options of operations: read from the specs beside the playbooks, and rejected before anything happens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.slipway.platform.plugins.plugin_utils.options import option_faults, playbook_options

from tests.playbooks import run_playbook

OPTIONS = {
    "op_drain_name": {"type": "str", "required": True, "description": "Host to drain."},
    "op_drain_timeout_seconds": {"type": "int", "description": "Timeout."},
    "op_drain_clients": {"type": "list", "elements": "str", "description": "Clients."},
    "op_drain_plain": {"type": "bool", "description": "Whether it is plain."},
}
GIVEN = {"op_drain_name": "a"}


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        (GIVEN, []),
        (GIVEN | {"op_drain_timeout_seconds": "60", "op_drain_plain": "true", "op_drain_clients": ["b"]}, []),
        ({}, ["op_drain_name: not given. Set it with -e: Host to drain."]),
        (
            GIVEN | {"op_drain_nam": "b"},
            ["op_drain_nam: not an option of this playbook. Did you mean op_drain_name[?]"],
        ),
        (
            GIVEN | {"op_upgrade_postgresql_back": "17"},
            ["op_upgrade_postgresql_back: renamed. Use op_upgrade_postgresql_rollback."],
        ),
        (
            GIVEN | {"op_zzz": 1},
            [
                "op_zzz: not an option of this playbook. Remove it; the options are op_drain_clients, op_drain_name, "
                "op_drain_plain, op_drain_timeout_seconds."
            ],
        ),
        (GIVEN | {"op_drain_timeout_seconds": "soon"}, [r'op_drain_timeout_seconds\b.*"soon"']),
        (GIVEN | {"op_drain_clients": "client.a"}, [r'op_drain_clients\b.*"client\.a".*as a list']),
        (GIVEN | {"op_drain_plain": "perhaps"}, [r'op_drain_plain\b.*"perhaps"']),
        ({"op_drain_name": None}, [r"op_drain_name\b"]),
        ({"op_drain_name": ["a"]}, [r'op_drain_name\b.*\["a"\]']),
        (
            {"op_zz": 1, "op_drain_plain": 7},
            ["op_drain_name: not given", "op_zz: not an option", r"op_drain_plain\b.*7"],
        ),
    ],
)
def test_faults_of_options(given: dict[str, Any], messages: list[str]) -> None:
    faults = list(option_faults(given, OPTIONS))
    assert len(faults) == len(messages)
    for fault, message in zip(faults, messages, strict=True):
        assert re.match(message, fault)


def test_a_playbook_without_options() -> None:
    assert list(option_faults({"op_x": 1}, {})) == ["op_x: not an option of this playbook. Remove it; there are none."]


def declare(path: Path, plays: list[dict[str, Any]], **options: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(plays))
    if options:
        spec = {"argument_specs": {path.stem: {"options": options}}}
        path.with_suffix(".meta.yml").write_text(yaml.safe_dump(spec))


def test_options_of_imported_playbooks_are_known_and_not_required(tmp_path: Path) -> None:
    option = {"type": "str", "required": True, "description": "x"}
    declare(tmp_path / "inner.yml", [], op_inner=option, other=option)
    declare(tmp_path / "middle.yml", [{"ansible.builtin.import_playbook": "inner.yml"}])
    (tmp_path / "operations").mkdir()
    outer = tmp_path / "operations/outer.yml"
    declare(outer, [{"ansible.builtin.import_playbook": "../middle.yml"}], op_outer=option)
    assert playbook_options(outer) == {"op_inner": {**option, "required": False}, "op_outer": option}


@pytest.mark.parametrize(
    ("operation", "options", "message"),
    [
        ("drain_ceph_host", {"op_drain_ceph_host_nam": "x"}, "op_drain_ceph_host_name: not given."),
        ("drain_ceph_host", {"op_drain_ceph_host_nam": "x"}, "Did you mean op_drain_ceph_host_name?"),
        ("rotate_ceph_keys", {"op_rotate_ceph_keys_clients": "client.a"}, '"client.a"'),
        ("drill_postgresql", {"op_drill_postgresql_host": "x"}, "op_drill_postgresql_host: not an option"),
    ],
)
@pytest.mark.parametrize("limit", [[], ["--limit", "ceph"]], ids=["all", "limit"])
def test_an_operation_rejects_options_before_anything_happens(
    tmp_path: Path, operation: str, options: dict[str, Any], message: str, limit: list[str]
) -> None:
    inventory = tmp_path / "hosts.yml"
    groups = {name: {"hosts": {f"{name}-1": {}}} for name in ("ceph", "postgresql", "rke2_server")}
    inventory.write_text(yaml.safe_dump({"all": {"children": groups, "vars": {"platform_environment": "trial"}}}))
    playbook = f"playbooks/operations/{operation}.yml"
    code, output = run_playbook(tmp_path, inventory, playbook, "-e", json.dumps(options), *limit)
    text = " ".join(output.split())
    assert code != 0
    assert message in text
    assert f"Nothing has been changed. See docs/runbooks/{operation}.md." in text
    assert text.count("TASK [") == 1
