"""config.toml, the options of the role, and the plan of runners at the server."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.filter import gitlab_runner as filters
from ansible_collections.slipway.platform.plugins.module_utils import gitlab_runners
from ansible_collections.slipway.platform.plugins.module_utils.gitlab_runner import faults, primary_fingerprints
from ansible_collections.slipway.platform.plugins.module_utils.gitlab_runners import (
    Action,
    GitlabError,
    Registration,
    Wanted,
    plan,
)

from tests.static.repository import role_defaults

TOKEN = "glrt-" + "a" * 20
VALID = {name.removeprefix("gitlab_runner_"): value for name, value in role_defaults("gitlab_runner").items()} | {
    "url": "https://gitlab.example.org", "server_version": "19.3.1", "metrics_address": "10.40.1.81",
    "build_token": TOKEN, "deploy_token": TOKEN + "b",
}  # fmt: skip


def test_a_dict_is_written_as_toml() -> None:
    value = {
        "concurrent": 4, "name": 'a "quoted" \\ tab\t ünïcode', "on": True, "share": 0.5, "absent": None,
        "words": ["a", "b"], "empty": [],
        "runners": [{"tls-ca-file": "x", "docker": {"image": "i", "none": None}}, {"name": "two"}],
    }  # fmt: skip
    text = filters.toml(value)
    expected = {key: item for key, item in value.items() if item is not None}
    expected["runners"] = [{"tls-ca-file": "x", "docker": {"image": "i"}}, {"name": "two"}]
    assert tomllib.loads(text) == expected


def test_a_value_that_toml_does_not_have_is_rejected() -> None:
    with pytest.raises(AnsibleFilterError, match=r"a\.b: a bytes cannot be written as TOML"):
        filters.toml({"a": {"b": b"x"}})


def test_the_defaults_are_valid() -> None:
    assert list(faults(VALID)) == []


@pytest.mark.parametrize(
    ("changed", "name", "text"),
    [
        ({"version": "19.4.0"}, "version", "is newer than the server, 19.3.1"),
        ({"version": "20.0.0"}, "version", "is newer than the server, 19.3.1"),
        ({"build_allowed_images": []}, "build_allowed_images", "allows every image"),
        ({"build_subnet": "8.8.8.0/24"}, "build_subnet", "no private IPv4 network"),
        ({"build_subnet": "172.30.250.1/24"}, "build_subnet", "no private IPv4 network"),
        ({"build_subnet": "10.0.0.0/8"}, "build_subnet", "of /16 to /28"),
        ({"build_blocked_cidrs": ["10.0.0.0/8"]}, "build_blocked_cidrs", "the metadata service 169.254.169.254"),
        ({"build_blocked_cidrs": ["169.254.0.0/16"]}, "build_blocked_cidrs", "the private address of the host"),
        ({"build_blocked_cidrs": ["10.0.0.0/8", "169.254.0.0/16", "x"]}, "build_blocked_cidrs", "'x' is no IPv4"),
        ({"deploy_token": TOKEN}, "deploy_token", "is the same as gitlab_runner_build_token"),
        ({"build_token": "", "deploy_token": ""}, "build_token", "playbooks/operations/create_runner.yml"),
        ({"source": "binary"}, "binary_checksum", "Set the SHA-256"),
        ({"deploy_executor": "docker"}, "deploy_image", "Set the execution environment"),
        ({"cache_bucket": "cache"}, "cache_endpoint", "gitlab_runner_cache_bucket is set"),
        (
            {"cache_bucket": "backup", "backup_bucket": "backup", "cache_endpoint": "s3.example.org",
             "cache_access_key": "a", "cache_secret_key": "b"},
            "cache_bucket", "is the bucket of the backups",
        ),
    ],
)  # fmt: skip
def test_a_faulty_option_is_named(changed: dict[str, Any], name: str, text: str) -> None:
    found = list(faults(VALID | changed))
    assert [(fault, message) for fault, message in found if fault == name and text in message], found


def test_no_message_shows_a_secret() -> None:
    secrets = {"build_token": TOKEN, "deploy_token": TOKEN, "cache_bucket": "cache", "cache_secret_key": "secret"}
    messages = filters.gitlab_runner_faults(
        {f"gitlab_runner_{name}": value for name, value in (VALID | secrets).items()}
    )
    assert len(messages) == 3
    assert [message for message in messages if TOKEN in message or "'secret'" in message] == []


def test_the_network_has_a_gateway_and_no_dns_server() -> None:
    network = json.loads(filters.gitlab_runner_network("172.30.250.0/24", "gitlab-build", "ab" * 32))
    assert network["subnets"] == [{"subnet": "172.30.250.0/24", "gateway": "172.30.250.1"}]
    assert (network["network_interface"], network["dns_enabled"], network["ipv6_enabled"]) == (
        "gitlab-build",
        False,
        False,
    )


def test_fingerprints_of_subkeys_are_ignored() -> None:
    lines = ["pub:-:255:22:AB:1::", "fpr:::::::::AAAA:", "uid:-::::1:", "sub:-:255:18:CD:1::", "fpr:::::::::BBBB:"]
    assert primary_fingerprints(lines) == ["AAAA"]


SETTINGS = {"tag_list": ["build"], "locked": False}
BUILD = Wanted("build", "slipway prod build", SETTINGS)
STORED = {"build": Registration(7, TOKEN)}
ROW = {"id": 7, "description": "slipway prod build"}


@pytest.mark.parametrize(
    ("stored", "rows", "known", "valid", "expected"),
    [
        ({}, [], {}, {}, [("create", 0)]),
        (STORED, [ROW], {"build": SETTINGS}, {"build": True}, []),
        (STORED, [], {}, {}, [("create", 0)]),
        (STORED, [ROW], {"build": SETTINGS}, {"build": False}, [("delete", 7), ("create", 0)]),
        ({}, [ROW], {}, {}, [("delete", 7), ("create", 0)]),
        (STORED, [ROW, {**ROW, "id": 8}], {"build": SETTINGS}, {"build": True}, [("delete", 8)]),
        (STORED, [ROW, {"id": 9, "description": "another"}], {"build": SETTINGS}, {"build": True}, []),
        (STORED, [ROW], {"build": {"tag_list": ["x"], "locked": False}}, {"build": True}, [("update", 7)]),
        (STORED, [ROW], {"build": {"locked": False, "tag_list": ["build"], "paused": True}}, {"build": True}, []),
    ],
)
def test_the_plan(
    stored: Mapping[str, Registration], rows: list[Any], known: Any, valid: Any, expected: list[tuple[str, int]]
) -> None:
    actions = plan([BUILD], [], stored, rows, known, valid)
    assert [(action.kind, action.id) for action in actions] == expected


def test_a_removed_runner_is_deleted_wherever_it_is() -> None:
    rows = [{**ROW, "id": 8}, {"id": 9, "description": "another"}]
    actions = plan([], [BUILD], STORED, rows, {"build": SETTINGS}, {"build": True})
    assert actions == [Action("delete", "build", "to be removed", id) for id in (7, 8)]


class Memory:
    """A server with fixed answers; records the calls."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers, self.calls = list(answers), []  # type: ignore[var-annotated]

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        self.calls.append((method, path, body))
        return self.answers.pop(0)


def test_actions_are_carried_out_in_their_order() -> None:
    server = Memory((204, None), (201, {"id": 11, "token": "glrt-new"}))
    actions = [Action("delete", "build", "stale", 7), Action("create", "build", "not stored")]
    created = gitlab_runners.apply(actions, {"build": BUILD}, server, {"runner_type": "instance_type"})
    assert created == {"build": Registration(11, "glrt-new")}
    assert server.calls == [
        ("DELETE", "runners/7", None),
        ("POST", "user/runners", {"runner_type": "instance_type", "description": "slipway prod build", **SETTINGS}),
    ]


def test_a_long_list_is_read_page_by_page() -> None:
    server = Memory((200, [ROW] * 100), (200, [ROW]))
    assert len(gitlab_runners.listed(server, "runners/all")) == 101
    assert server.calls[1][1] == "runners/all?per_page=100&page=2"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((401, {}), "rejects the access token"),
        ((400, {"message": "tag_list is empty"}), "status 400: tag_list is empty"),
    ],
)
def test_an_error_of_the_server_is_one_sentence(answer: tuple[int, Any], text: str) -> None:
    with pytest.raises(GitlabError, match=text):
        gitlab_runners.require(Memory(answer), "POST", "user/runners", {})
