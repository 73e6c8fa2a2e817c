"""The environment destroyed, then its store of backups: only what is named. No site is left after this."""

from __future__ import annotations

import pytest
from hcloud import Client

from tests.platform.conftest import Run, play

ENVIRONMENT = "lab"
STORE = f"{ENVIRONMENT}-store"
KINDS = ("servers", "volumes", "networks", "firewalls", "placement_groups", "ssh_keys")


def objects(cloud: Client, owner: str) -> set[str]:
    """All that carries the label of an owner, as kind/name."""
    label = f"slipway_environment={owner}"
    return {f"{kind}/{entry.name}" for kind in KINDS for entry in getattr(cloud, kind).get_all(label_selector=label)}


def destroy(*arguments: str) -> Run:
    return play(*arguments, playbook="playbooks/operations/destroy.yml")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("-e", "op_destroy_environment=prod"), 2),
        (("--check", "-e", f"op_destroy_environment={ENVIRONMENT}"), 0),
    ],
    ids=["no name", "another name", "check mode"],
)
def test_nothing_is_destroyed(cloud: Client, arguments: tuple[str, ...], code: int) -> None:
    before = objects(cloud, ENVIRONMENT) | objects(cloud, STORE)
    run = destroy(*arguments)
    assert run.code == code, run.excerpt
    assert ("Nothing has been deleted" in run.text) is bool(code)
    assert "lab-ceph-1" in run.output, "it lists what would go"
    assert objects(cloud, ENVIRONMENT) | objects(cloud, STORE) == before


@pytest.mark.parametrize("owner", [ENVIRONMENT, STORE])
def test_objects_of_the_named_owner_alone_are_destroyed(cloud: Client, owner: str) -> None:
    others = objects(cloud, STORE) if owner == ENVIRONMENT else set()
    assert objects(cloud, owner) and (others or owner == STORE)
    run = destroy("-e", f"op_destroy_environment={owner}")
    assert run.code == 0, run.excerpt
    assert objects(cloud, owner) == set()
    assert objects(cloud, STORE) == others
    for mode in ([], ["--check"]):
        again = destroy(*mode, "-e", f"op_destroy_environment={owner}")
        assert again.code == 0, again.excerpt
        assert again.changed == {}
