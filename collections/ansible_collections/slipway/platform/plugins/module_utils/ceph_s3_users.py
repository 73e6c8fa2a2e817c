"""What has to change in Ceph's S3 users so that they are as declared: pure decisions on their metadata."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
GIGABYTE = 1024**3
UNLIMITED = -1
NO_QUOTA: Json = {"enabled": False, "check_on_raw": False, "max_size": UNLIMITED, "max_objects": UNLIMITED}


class UserError(Exception):
    """A declaration that cannot be. One sentence."""


@dataclass(frozen=True)
class User:
    """A user as declared."""

    name: str
    display_name: str
    access_key: str
    secret_key: str = field(repr=False)
    max_buckets: int = 0
    quota_gb: int = 0
    quota_objects: int = 0
    suspended: bool = False
    retired_access_keys: tuple[str, ...] = ()

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> User:
        """From the validated options of a module."""
        user = cls(
            name=options["name"],
            display_name=options["display_name"] or options["name"],
            access_key=options["access_key"],
            secret_key=options["secret_key"],
            max_buckets=options["max_buckets"],
            quota_gb=options["quota_gb"],
            quota_objects=options["quota_objects"],
            suspended=options["suspended"],
            retired_access_keys=tuple(options["retired_access_keys"] or ()),
        )
        if user.access_key in user.retired_access_keys:
            raise UserError(
                f"S3 user {user.name}: its access key is among the retired ones; take it off one of the two"
            )
        return user

    @property
    def quota(self) -> Json:
        return {
            "enabled": bool(self.quota_gb or self.quota_objects),
            "check_on_raw": False,
            "max_size": self.quota_gb * GIGABYTE or UNLIMITED,
            "max_objects": self.quota_objects or UNLIMITED,
        }


def check(users: Sequence[User]) -> None:
    """Nothing twice: a name, or an access key, which opens one account only."""
    for what, values in (("name", [user.name for user in users]), ("access key", [user.access_key for user in users])):
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise UserError(f"two S3 users have the same {what} {', '.join(twice)}; each must have its own")


@dataclass
class Plan:
    """What to do to one user: its whole new metadata, and what differs, in words without a secret."""

    data: Json
    changes: list[str] = field(default_factory=list)


def fresh(user: User) -> Json:
    """The metadata of a user that is not there yet, as far as Ceph does not fill it in itself."""
    return {
        "user_id": user.name,
        "display_name": user.display_name,
        "email": "",
        "suspended": 0,
        "max_buckets": 1000,
        "subusers": [],
        "keys": [],
        "swift_keys": [],
        "caps": [],
        "op_mask": "read, write, delete",
        "bucket_quota": dict(NO_QUOTA),
        "user_quota": dict(NO_QUOTA),
        "type": "rgw",
    }


def plan(wanted: User, found: Json | None) -> Plan:
    """The metadata as it should be. Keys that are not declared stay, unless they are named as retired."""
    made = Plan(copy.deepcopy(found) if found is not None else fresh(wanted))
    data, name = made.data, wanted.name
    if found is None:
        made.changes.append(f"create S3 user {name}")
    simple = {
        "display_name": (wanted.display_name, "name"),
        "max_buckets": (wanted.max_buckets, "number of buckets"),
        "suspended": (int(wanted.suspended), "suspension"),
    }
    for entry, (value, word) in simple.items():
        if data.get(entry) != value:
            data[entry] = value
            made.changes.append(f"set the {word} of S3 user {name} to {value}")
    quota = data.setdefault("user_quota", dict(NO_QUOTA))
    different = {key: value for key, value in wanted.quota.items() if quota.get(key) != value}
    # A limit that is off is no difference, whatever number it remembers.
    if different and (wanted.quota["enabled"] or "enabled" in different):
        quota.update(wanted.quota)
        quota.pop("max_size_kb", None)  # the older word for the same; it would be a second truth
        made.changes.append(f"set the quota of S3 user {name}")
    _plan_keys(made, wanted)
    return made


def _plan_keys(made: Plan, wanted: User) -> None:
    keys: list[Json] = made.data.setdefault("keys", [])
    mine = next((key for key in keys if key["access_key"] == wanted.access_key), None)
    if mine is None:
        keys.append({"user": wanted.name, "access_key": wanted.access_key, "secret_key": wanted.secret_key})
        made.changes.append(f"give S3 user {wanted.name} its key")
    elif mine["secret_key"] != wanted.secret_key:
        mine["secret_key"] = wanted.secret_key
        made.changes.append(f"give the key of S3 user {wanted.name} another secret")
    for key in [key for key in keys if key["access_key"] in wanted.retired_access_keys]:
        keys.remove(key)
        made.changes.append(f"take a retired key from S3 user {wanted.name}")


def undeclared(names: Iterable[str], found: Mapping[str, Json], wanted: Sequence[User]) -> list[str]:
    """Users and keys that nobody declared, in words. Ceph's own users are not ours to judge."""
    declared = {user.name: user for user in wanted}
    told = [f"S3 user {name}" for name in sorted(names) if name not in declared]
    for name, user in declared.items():
        keys = (found.get(name) or {}).get("keys", [])
        others = [key for key in keys if key["access_key"] not in (user.access_key, *user.retired_access_keys)]
        if others:
            told.append(f"{len(others)} further key{'s' if len(others) > 1 else ''} of S3 user {name}")
    return told
