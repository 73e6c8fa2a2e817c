"""The lookup renders as Ansible's own does, with the variables of the task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.playbooks import run_playbook

TEMPLATES = {
    "plain.j2": "nothing to fill in\n",
    "values.j2": "{% for name in names %}\nname {{ name }}\n{% endfor %}\n{{ host.address }}\\d+ {{ inner }}\n\n",
    "include.j2": "before\n{% include 'part.j2' %}\nafter\n",
    "part.j2": "part of {{ task_value }}",
    "more.j2": "{{ task_value }} {{ added }}\n",
}


def play(folder: Path, expression: str) -> tuple[int, str]:
    role = folder / "roles/trial"
    for name, text in TEMPLATES.items():
        (role / "templates").mkdir(parents=True, exist_ok=True)
        (role / "templates" / name).write_text(text)
    (role / "tasks").mkdir(exist_ok=True)
    tasks = [
        {
            "name": "Show",
            "ansible.builtin.copy": {"content": f"{{{{ {expression} }}}}", "dest": str(folder / "out.json")},
            "vars": {
                "names": ["a", "b"],
                "host": {"address": "10.0.0.1"},
                "inner": "{{ task_value }}",
                "task_value": "42 ä",
            },
        }
    ]
    (role / "tasks/main.yml").write_text(json.dumps(tasks))
    plays = [{"name": "Try", "hosts": "localhost", "connection": "local", "gather_facts": False, "roles": ["trial"]}]
    (folder / "play.yml").write_text(json.dumps(plays))
    return run_playbook(folder, "localhost,", folder / "play.yml")


@pytest.mark.parametrize(
    "arguments",
    ["'plain.j2'", "'values.j2'", "'include.j2'", "'more.j2', template_vars={'added': 'x', 'task_value': 1}"],
)
def test_it_renders_as_ansibles_own_lookup(tmp_path: Path, arguments: str) -> None:
    ours, theirs = (
        f"lookup('{lookup}', {arguments})" for lookup in ("slipway.platform.template", "ansible.builtin.template")
    )
    code, output = play(tmp_path, f"[{ours}, {theirs}] | to_json")
    assert code == 0, output
    rendered, expected = json.loads((tmp_path / "out.json").read_text())
    assert rendered == expected


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("lookup('slipway.platform.template', 'missing.j2')", "template 'missing.j2' is not in the templates folder"),
        ("lookup('slipway.platform.template', 'undefined.j2')", "'nowhere' is undefined"),
    ],
)
def test_what_cannot_be_rendered_fails_with_its_reason(tmp_path: Path, expression: str, reason: str) -> None:
    (tmp_path / "roles/trial/templates").mkdir(parents=True)
    (tmp_path / "roles/trial/templates/undefined.j2").write_text("{{ nowhere }}")
    code, output = play(tmp_path, expression)
    assert code != 0
    assert reason in " ".join(output.split())
