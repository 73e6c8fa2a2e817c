"""An upgrade of the running cluster to the inventory's release fails no call of the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.platform.conftest import INVENTORY, REPOSITORY, play
from tests.platform.test_1_interrupted import RELEASE_BEFORE
from tests.platform.test_rke2 import AGENTS, SERVERS, Calls, connect, cordons

RELEASE = yaml.safe_load((REPOSITORY / INVENTORY / "group_vars/all/platform.yml").read_text())["rke2_version"]


def releases(kubeconfig: Path) -> dict[str, str]:
    nodes = connect(kubeconfig).list_node(_request_timeout=5).items
    return {node.metadata.name: node.status.node_info.kubelet_version for node in nodes}


def test_an_upgrade_takes_one_node_at_a_time_and_fails_no_call(description: dict[str, Any]) -> None:
    kubeconfig = Path(description["secrets_path"]).parent / "ansible/kubeconfig"
    nodes = SERVERS + AGENTS
    assert releases(kubeconfig) == dict.fromkeys(nodes, RELEASE_BEFORE), "built by test_1_interrupted.py"
    calls = Calls(kubeconfig)
    with cordons(kubeconfig) as cordoned, calls.running():
        run = play("-e", f"op_upgrade_rke2_version={RELEASE}", playbook="playbooks/operations/upgrade_rke2.yml")
    assert run.code == 0, run.output[-6000:]
    assert releases(kubeconfig) == dict.fromkeys(nodes, RELEASE)
    # An agent may be drained between two reads.
    assert set(SERVERS) <= set().union(*cordoned)
    assert max(len(names) for names in cordoned) == 1
    assert calls.failed == []
