"""A cluster of the previous release is built, and upgraded to the inventory's while its API answers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hcloud import Client

from tests.platform.conftest import INVENTORY, REPOSITORY, play
from tests.platform.database import Site
from tests.platform.test_rke2 import AGENTS, SERVERS, Calls, connect, cordons

RELEASE_BEFORE = "v1.36.2+rke2r1"
LONGEST_GAP_SECONDS = 5
"""Between two answered calls, one per second."""
RELEASE = yaml.safe_load((REPOSITORY / INVENTORY / "group_vars/all/platform.yml").read_text())["rke2_version"]


def releases(kubeconfig: Path) -> dict[str, str]:
    nodes = connect(kubeconfig).list_node(_request_timeout=5).items
    return {node.metadata.name: node.status.node_info.kubelet_version for node in nodes}


def longest_gap(calls: Calls) -> float:
    answered = sorted(done for _started, done in calls.answered)
    return max(after - before for before, after in pairwise(answered))


@pytest.fixture(scope="module")
def kubeconfig(description: dict[str, Any]) -> Path:
    return Path(description["secrets_path"]).parent / "ansible/kubeconfig"


def test_a_platform_of_a_cluster_and_its_store_is_built(kubeconfig: Path) -> None:
    """Without the groups of other services, and with the previous release."""
    run = play("-e", f"rke2_version={RELEASE_BEFORE}")
    assert run.code == 0, run.excerpt
    assert releases(kubeconfig) == dict.fromkeys(SERVERS + AGENTS, RELEASE_BEFORE)


def test_an_upgrade_takes_one_node_at_a_time_and_the_api_answers(
    kubeconfig: Path, cloud: Client, description: dict[str, Any]
) -> None:
    calls = Calls(kubeconfig)
    with cordons(kubeconfig) as cordoned, calls.running():
        run = play("-e", f"op_upgrade_rke2_version={RELEASE}", playbook="playbooks/operations/upgrade_rke2.yml")
    assert run.code == 0, run.excerpt
    assert releases(kubeconfig) == dict.fromkeys(SERVERS + AGENTS, RELEASE)
    # An agent may be drained between two reads.
    assert set(SERVERS) <= set().union(*cordoned)
    assert max(len(names) for names in cordoned) == 1
    site, find = Site(cloud, description), "find /var/lib/rancher/rke2/server/db -name 'before-change-*' -size +0"
    assert [name for name in SERVERS if site.on(name, find)] == SERVERS[:1], "one server saves a snapshot before"
    gap = longest_gap(calls)
    print(
        f"{len(calls.failed)} of {len(calls.failed) + len(calls.answered)} calls failed, {gap:.1f} s without an answer"
    )
    again = play()
    assert (again.code, again.changed) == (0, {}), again.excerpt
    assert gap <= LONGEST_GAP_SECONDS, calls.failed
    # A server resets the connections to its API before it restarts: at most one call is in progress at that moment.
    assert len(calls.failed) <= len(SERVERS), calls.failed
