"""What the callback names exists, and workers do not import it again."""

from __future__ import annotations

import json
from pathlib import Path

from tests.playbooks import run_playbook

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
