"""S3 users: planned changes of their metadata, and how it is written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.ceph_s3_users import (
    User,
    UserError,
    plan,
    undeclared,
    validate,
)
from ansible_collections.slipway.platform.plugins.modules import ceph_s3_users as module

WANTED = User("writer", "Writer", "ACCESS", "the-secret", max_buckets=-1, quota_gb=5)
EXISTING = plan(WANTED, None).data


def test_a_new_user_has_everything() -> None:
    made = plan(WANTED, None)
    assert made.changes[0] == "create S3 user writer"
    assert made.data["keys"] == [{"user": "writer", "access_key": "ACCESS", "secret_key": "the-secret"}]
    assert made.data["user_quota"] == {
        "enabled": True, "check_on_raw": False, "max_size": 5 * 1024**3, "max_objects": -1,
    }  # fmt: skip
    assert (made.data["max_buckets"], made.data["suspended"]) == (-1, 0)


def test_no_change_without_drift() -> None:
    assert plan(WANTED, EXISTING).changes == []


def test_planning_does_not_modify_its_input() -> None:
    before = json.dumps(EXISTING)
    plan(replace(WANTED, suspended=True, secret_key="another"), EXISTING)
    assert json.dumps(EXISTING) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suspended": True}, "set the suspension of S3 user writer to 1"),
        ({"max_buckets": 3}, "set the number of buckets of S3 user writer to 3"),
        ({"display_name": "W"}, "set the name of S3 user writer to W"),
        ({"quota_gb": 6}, "set the quota of S3 user writer"),
        ({"quota_gb": 0}, "set the quota of S3 user writer"),
        ({"quota_objects": 9}, "set the quota of S3 user writer"),
        ({"secret_key": "another"}, "change the secret of S3 user writer"),
        ({"access_key": "NEW"}, "add the key of S3 user writer"),
    ],
)
def test_each_difference_is_one_change(change: dict[str, Any], message: str) -> None:
    made = plan(replace(WANTED, **change), EXISTING)
    assert made.changes == [message]
    assert plan(replace(WANTED, **change), made.data).changes == []
    assert "another" not in message


def test_the_numbers_of_a_disabled_quota_are_ignored() -> None:
    data = EXISTING | {"user_quota": {"enabled": False, "check_on_raw": False, "max_size": 77, "max_objects": 0}}
    assert plan(replace(WANTED, quota_gb=0), data).changes == []


def test_a_key_is_removed_only_if_it_is_retired() -> None:
    old = {"user": "writer", "access_key": "OLD", "secret_key": "x"}
    data = EXISTING | {"keys": [*EXISTING["keys"], old]}
    assert plan(WANTED, data).data["keys"] == data["keys"]
    assert undeclared(["writer"], {"writer": data}, [WANTED]) == ["1 undeclared key of S3 user writer"]
    named = replace(WANTED, retired_access_keys=("OLD",))
    made = plan(named, data)
    assert made.changes == ["remove a retired key of S3 user writer"]
    assert made.data["keys"] == EXISTING["keys"]


def test_other_metadata_is_preserved() -> None:
    made = plan(replace(WANTED, suspended=True), EXISTING | {"mfa_ids": ["1"], "attrs": []})
    assert (made.data["mfa_ids"], made.data["attrs"]) == (["1"], [])


def test_undeclared_users_are_named() -> None:
    assert undeclared(["writer", "other"], {}, [WANTED]) == ["S3 user other"]


def test_names_and_access_keys_are_unique() -> None:
    validate([WANTED, replace(WANTED, name="other", access_key="OTHER")])
    with pytest.raises(UserError, match="duplicate name writer"):
        validate([WANTED, replace(WANTED, access_key="OTHER")])
    with pytest.raises(UserError, match="duplicate access key ACCESS"):
        validate([WANTED, replace(WANTED, name="other")])
    with pytest.raises(UserError, match="also in retired_access_keys"):
        User.from_options({
            "name": "a", "display_name": None, "access_key": "A", "secret_key": "s", "max_buckets": 0, "quota_gb": 0,
            "quota_objects": 0, "suspended": False, "retired_access_keys": ["A"],
        })  # fmt: skip


def test_a_secret_is_not_shown() -> None:
    assert "the-secret" not in repr(WANTED)
    assert "the-secret" not in " ".join(plan(WANTED, None).changes)


class Memory:
    """Test double of a cluster that stores users' metadata and records its calls."""

    def __init__(self, pools: list[str]) -> None:
        self.pools = pools
        self.users: dict[str, dict[str, Any]] = {}
        self.calls: list[list[str]] = []
        self.discards = False

    def json(self, args: list[str]) -> Any:
        self.calls.append(args)
        return self.pools

    def tool(self, command: list[str], input: str | None = None) -> str:
        self.calls.append(command)
        if command[0] == "radosgw-admin":
            name = command[3].removeprefix("user:")
            entry = json.loads(input or "")
            if not self.discards:
                self.users[name] = entry | {"ver": {"tag": "t", "ver": 1}}
            return ""
        names = json.loads(input or "")
        return json.dumps({
            "names": list(self.users),
            "users": {name: entry for name, entry in self.users.items() if name in names},
        })  # fmt: skip


def reconcile(cluster: Memory, *, check_mode: bool = False) -> tuple[list[str], list[str]]:
    return module.reconcile(cluster, [WANTED], check_mode=check_mode)  # type: ignore[arg-type]


def test_a_second_run_changes_nothing() -> None:
    cluster = Memory([".rgw.root"])
    planned, _ = reconcile(cluster, check_mode=True)
    assert cluster.users == {}
    done, _ = reconcile(cluster)
    assert done == planned
    assert reconcile(cluster) == ([], [])


def test_no_secret_is_an_argument() -> None:
    cluster = Memory([".rgw.root"])
    reconcile(cluster)
    assert all("the-secret" not in word and "ACCESS" not in word for call in cluster.calls for word in call)


def test_reading_creates_no_pools() -> None:
    cluster = Memory(["other"])
    assert reconcile(cluster, check_mode=True)[0]
    assert cluster.calls == [["osd", "pool", "ls"]]


def test_discarded_changes_are_an_error() -> None:
    cluster = Memory([".rgw.root"])
    cluster.discards = True
    with pytest.raises(UserError, match="changes were not stored"):
        reconcile(cluster)
