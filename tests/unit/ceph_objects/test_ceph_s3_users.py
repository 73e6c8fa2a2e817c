"""S3 users: what is planned for the metadata that is there, and how it goes to the cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.ceph_s3_users import (
    User,
    UserError,
    check,
    plan,
    undeclared,
)
from ansible_collections.slipway.platform.plugins.modules import ceph_s3_users as module

WANTED = User("writer", "Writer", "ACCESS", "the-secret", max_buckets=-1, quota_gb=5)
THERE = plan(WANTED, None).data


def test_a_new_user_has_everything() -> None:
    made = plan(WANTED, None)
    assert made.changes[0] == "create S3 user writer"
    assert made.data["keys"] == [{"user": "writer", "access_key": "ACCESS", "secret_key": "the-secret"}]
    assert made.data["user_quota"] == {
        "enabled": True, "check_on_raw": False, "max_size": 5 * 1024**3, "max_objects": -1,
    }  # fmt: skip
    assert (made.data["max_buckets"], made.data["suspended"]) == (-1, 0)


def test_nothing_is_planned_for_what_is_as_wanted() -> None:
    assert plan(WANTED, THERE).changes == []


def test_what_is_read_is_not_changed_by_planning() -> None:
    before = json.dumps(THERE)
    plan(replace(WANTED, suspended=True, secret_key="another"), THERE)
    assert json.dumps(THERE) == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"suspended": True}, "set the suspension of S3 user writer to 1"),
        ({"max_buckets": 3}, "set the number of buckets of S3 user writer to 3"),
        ({"display_name": "W"}, "set the name of S3 user writer to W"),
        ({"quota_gb": 6}, "set the quota of S3 user writer"),
        ({"quota_gb": 0}, "set the quota of S3 user writer"),
        ({"quota_objects": 9}, "set the quota of S3 user writer"),
        ({"secret_key": "another"}, "give the key of S3 user writer another secret"),
        ({"access_key": "NEW"}, "give S3 user writer its key"),
    ],
)
def test_each_difference_is_one_change(change: dict[str, Any], sentence: str) -> None:
    made = plan(replace(WANTED, **change), THERE)
    assert made.changes == [sentence]
    assert plan(replace(WANTED, **change), made.data).changes == []
    assert "another" not in sentence or "secret" in sentence


def test_a_quota_that_is_off_remembers_what_it_likes() -> None:
    data = THERE | {"user_quota": {"enabled": False, "check_on_raw": False, "max_size": 77, "max_objects": 0}}
    assert plan(replace(WANTED, quota_gb=0), data).changes == []


def test_a_key_goes_only_when_it_is_named() -> None:
    old = {"user": "writer", "access_key": "OLD", "secret_key": "x"}
    data = THERE | {"keys": [*THERE["keys"], old]}
    assert plan(WANTED, data).data["keys"] == data["keys"]
    assert undeclared(["writer"], {"writer": data}, [WANTED]) == ["1 further key of S3 user writer"]
    named = replace(WANTED, retired_access_keys=("OLD",))
    made = plan(named, data)
    assert made.changes == ["take a retired key from S3 user writer"]
    assert made.data["keys"] == THERE["keys"]


def test_what_ceph_keeps_beside_stays() -> None:
    made = plan(replace(WANTED, suspended=True), THERE | {"mfa_ids": ["1"], "attrs": []})
    assert (made.data["mfa_ids"], made.data["attrs"]) == (["1"], [])


def test_undeclared_users_are_named() -> None:
    assert undeclared(["writer", "stranger"], {}, [WANTED]) == ["S3 user stranger"]


def test_nothing_is_given_twice() -> None:
    check([WANTED, replace(WANTED, name="other", access_key="OTHER")])
    with pytest.raises(UserError, match="same name writer"):
        check([WANTED, replace(WANTED, access_key="OTHER")])
    with pytest.raises(UserError, match="same access key ACCESS"):
        check([WANTED, replace(WANTED, name="other")])
    with pytest.raises(UserError, match="among the retired"):
        User.from_options({
            "name": "a", "display_name": None, "access_key": "A", "secret_key": "s", "max_buckets": 0, "quota_gb": 0,
            "quota_objects": 0, "suspended": False, "retired_access_keys": ["A"],
        })  # fmt: skip


def test_a_secret_is_not_shown() -> None:
    assert "the-secret" not in repr(WANTED)
    assert "the-secret" not in " ".join(plan(WANTED, None).changes)


class Memory:
    """A cluster that keeps users' metadata, and remembers what it was called with."""

    def __init__(self, pools: list[str]) -> None:
        self.pools = pools
        self.users: dict[str, dict[str, Any]] = {}
        self.calls: list[list[str]] = []
        self.forgets = False

    def json(self, args: list[str]) -> Any:
        self.calls.append(args)
        return self.pools

    def tool(self, command: list[str], input: str | None = None) -> str:
        self.calls.append(command)
        if command[0] == "radosgw-admin":
            name = command[3].removeprefix("user:")
            entry = json.loads(input or "")
            if not self.forgets:
                self.users[name] = entry | {"ver": {"tag": "t", "ver": 1}}
            return ""
        names = json.loads(input or "")
        return json.dumps({
            "names": list(self.users),
            "users": {name: entry for name, entry in self.users.items() if name in names},
        })  # fmt: skip


def keep(cluster: Memory, *, check_mode: bool = False) -> tuple[list[str], list[str]]:
    return module.keep(cluster, [WANTED], check_mode=check_mode)  # type: ignore[arg-type]


def test_once_made_nothing_is_done_again() -> None:
    cluster = Memory([".rgw.root"])
    announced, _ = keep(cluster, check_mode=True)
    assert cluster.users == {}
    done, _ = keep(cluster)
    assert done == announced
    assert keep(cluster) == ([], [])


def test_no_secret_is_an_argument() -> None:
    cluster = Memory([".rgw.root"])
    keep(cluster)
    assert all("the-secret" not in word and "ACCESS" not in word for call in cluster.calls for word in call)


def test_asking_makes_no_pools() -> None:
    cluster = Memory(["other"])
    assert keep(cluster, check_mode=True)[0]
    assert cluster.calls == [["osd", "pool", "ls"]]


def test_a_cluster_that_forgets_is_told() -> None:
    cluster = Memory([".rgw.root"])
    cluster.forgets = True
    with pytest.raises(UserError, match="did not keep"):
        keep(cluster)
