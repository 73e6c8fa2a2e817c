"""The module of the operation create_runner against the lab's GitLab."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.gitlab_runners import (
    Action,
    GitlabError,
    Registration,
    Wanted,
    apply,
    details,
    listed,
    plan,
    require,
    token_valid,
)
from ansible_collections.slipway.platform.plugins.modules.gitlab_runners import RealServer

from tests.lab.gitlab.conftest import OPERATOR, Gitlab

DEPLOY = Wanted(
    "deploy",
    "slipway test deploy",
    {
        "tag_list": ["deploy"],
        "run_untagged": False,
        "locked": True,
        "access_level": "ref_protected",
        "paused": False,
    },
)


def converge(gitlab: Gitlab, stored: dict[str, Registration], *removed: Wanted) -> list[Action]:
    """A run of the module; `stored` gets what it would store."""
    server = RealServer(gitlab.url, OPERATOR, "")
    known: dict[str, Any] = {name: row for name in stored if (row := details(server, stored[name].id))}
    valid = {name: token_valid(server, stored[name]) for name in known}
    wanted = [] if removed else [DEPLOY]
    actions = plan(wanted, removed, stored, listed(server, "runners/all"), known, valid)
    stored |= apply(actions, {"deploy": DEPLOY}, server, {"runner_type": "instance_type"})
    return actions


def kinds(actions: list[Action]) -> list[str]:
    return [action.kind for action in actions]


def test_a_runner_is_created_once_corrected_and_removed(gitlab: Gitlab) -> None:
    stored: dict[str, Registration] = {}
    assert kinds(converge(gitlab, stored)) == ["create"]
    (runner,) = gitlab.store.runners()
    assert (runner.tags, runner.locked, runner.access_level) == (("deploy",), True, "ref_protected")
    assert stored == {"deploy": Registration(runner.id, runner.token)}
    assert converge(gitlab, stored) == []
    gitlab.store.change_runner(runner.id, paused=True, tags=("other",))
    assert kinds(converge(gitlab, stored)) == ["update"]
    assert gitlab.store.runners() == [runner]
    assert kinds(converge(gitlab, stored, DEPLOY)) == ["delete"]
    assert gitlab.store.runners() == []


def test_a_runner_whose_token_was_not_stored_is_replaced(gitlab: Gitlab) -> None:
    converge(gitlab, {})
    stored: dict[str, Registration] = {}
    assert kinds(converge(gitlab, stored)) == ["delete", "create"]
    assert [runner.id for runner in gitlab.store.runners()] == [stored["deploy"].id]


def test_a_stored_token_that_is_not_valid_is_replaced(gitlab: Gitlab) -> None:
    stored: dict[str, Registration] = {}
    converge(gitlab, stored)
    stored["deploy"] = Registration(stored["deploy"].id, "glrt-" + "x" * 20)
    assert kinds(converge(gitlab, stored)) == ["delete", "create"]
    assert converge(gitlab, stored) == []


def test_faults_of_the_connection_are_one_sentence(gitlab: Gitlab) -> None:
    with pytest.raises(GitlabError, match="rejects the access token"):
        require(RealServer(gitlab.url, "glpat-other", ""), "GET", "version")
    gitlab.stop()
    with pytest.raises(GitlabError, match=r"does not answer: .*refused"):
        require(RealServer(gitlab.url, OPERATOR, ""), "GET", "version")
    gitlab.start()
