"""What the callback names exists, and workers do not import it again."""

from __future__ import annotations

import json
from pathlib import Path

from tests.playbooks import REPOSITORY, run_playbook

PLAY = [
    {
        "name": "Tell what a worker has",
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {
                "name": "Write the modules of the worker",
                "ansible.builtin.copy": {"content": "{{ lookup('loaded') | to_json }}", "dest": "{{ out }}"},
            }
        ],
    }
]
LOOKUP = """
import gc, sys
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        return [{"modules": sorted(sys.modules), "frozen": gc.get_freeze_count()}]
"""


def test_a_worker_has_the_filters_before_it_uses_one(tmp_path: Path) -> None:
    (tmp_path / "lookup_plugins").mkdir()
    (tmp_path / "lookup_plugins/loaded.py").write_text(LOOKUP)
    (tmp_path / "play.yml").write_text(json.dumps(PLAY))
    code, output = run_playbook(tmp_path, "localhost,", tmp_path / "play.yml", "-e", f"out={tmp_path}/out.json")
    assert code == 0, output
    assert "WARNING" not in output, "every plugin that is named exists: " + output
    found = json.loads((tmp_path / "out.json").read_text())
    prefix = "ansible_collections.slipway.platform.plugins"
    wanted = {f"{prefix}.filter.{name}" for name in ("ceph_cluster", "postgresql", "rke2", "verify")}
    wanted |= {
        f"{prefix}.lookup.template",
        "ansible.plugins.connection.ssh",
        "ansible_collections.ansible.builtin.plugins.action.assert",
    }
    assert wanted <= set(found["modules"]), wanted - set(found["modules"])
    assert found["frozen"] > 10_000


def test_a_second_run_takes_templates_and_modules_from_the_first(tmp_path: Path) -> None:
    settings = (REPOSITORY / "ansible.cfg").read_text().replace("= collections", f"= {REPOSITORY}/collections")
    settings = settings.replace(":collections", f":{REPOSITORY}/collections")
    (tmp_path / "ansible.cfg").write_text(f"{settings}\n[callback_preload]\ncache_dir = {tmp_path}/cache\n")
    task = {"name": "Show", "ansible.builtin.command": "echo {{ [1, 2] | sum }}", "changed_when": False}
    play = {"name": "Try", "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    made = []
    for _ in range(2):
        code, output = run_playbook(
            tmp_path, "localhost,", tmp_path / "play.yml", "-v", config=tmp_path / "ansible.cfg"
        )
        assert code == 0, output
        assert "stdout: '3'" in output
        made.append({path: path.stat().st_ino for path in (tmp_path / "cache").rglob("*") if path.is_file()})
    assert made[0] == made[1], "nothing is made again"
    assert {path.parent.name.split("-")[0] for path in made[0]} == {"modules", "templates"}
