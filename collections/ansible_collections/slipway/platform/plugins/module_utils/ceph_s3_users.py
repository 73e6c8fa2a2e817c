"""Changes that reconcile Ceph's S3 users with their declaration: pure decisions on their metadata."""

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
    """An invalid declaration, as one message."""


@dataclass(frozen=True)
class User:
    """A declared user."""

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
                f"S3 user {user.name}: its access key is also in retired_access_keys. Remove it from one of the two"
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


def validate(users: Sequence[User]) -> None:
    """Names and access keys must be unique."""
    for kind, values in (("name", [user.name for user in users]), ("access key", [user.access_key for user in users])):
        if duplicates := sorted({value for value in values if values.count(value) > 1}):
            raise UserError(
                f"S3 users: duplicate {kind} {', '.join(duplicates)}. Declare a different one for each user"
            )


@dataclass
class Plan:
    """The new metadata of one user, and its changes without secrets."""

    data: Json
    changes: list[str] = field(default_factory=list)


def fresh(user: User) -> Json:
    """The metadata of a new user, without the fields that Ceph sets itself."""
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
    """The wanted metadata. Undeclared keys stay unless they are retired."""
    planned = Plan(copy.deepcopy(found) if found is not None else fresh(wanted))
    data, name = planned.data, wanted.name
    if found is None:
        planned.changes.append(f"create S3 user {name}")
    simple = {
        "display_name": (wanted.display_name, "name"),
        "max_buckets": (wanted.max_buckets, "number of buckets"),
        "suspended": (int(wanted.suspended), "suspension"),
    }
    for entry, (value, word) in simple.items():
        if data.get(entry) != value:
            data[entry] = value
            planned.changes.append(f"set the {word} of S3 user {name} to {value}")
    quota = data.setdefault("user_quota", dict(NO_QUOTA))
    different = {key: value for key, value in wanted.quota.items() if quota.get(key) != value}
    # The numbers of a disabled quota do not matter.
    if different and (wanted.quota["enabled"] or "enabled" in different):
        quota.update(wanted.quota)
        quota.pop("max_size_kb", None)  # the older field for the same limit would contradict the new one
        planned.changes.append(f"set the quota of S3 user {name}")
    _plan_keys(planned, wanted)
    return planned


def _plan_keys(planned: Plan, wanted: User) -> None:
    keys: list[Json] = planned.data.setdefault("keys", [])
    own = next((key for key in keys if key["access_key"] == wanted.access_key), None)
    if own is None:
        keys.append({"user": wanted.name, "access_key": wanted.access_key, "secret_key": wanted.secret_key})
        planned.changes.append(f"add the key of S3 user {wanted.name}")
    elif own["secret_key"] != wanted.secret_key:
        own["secret_key"] = wanted.secret_key
        planned.changes.append(f"change the secret of S3 user {wanted.name}")
    for key in [key for key in keys if key["access_key"] in wanted.retired_access_keys]:
        keys.remove(key)
        planned.changes.append(f"remove a retired key of S3 user {wanted.name}")


def undeclared(names: Iterable[str], found: Mapping[str, Json], wanted: Sequence[User]) -> list[str]:
    """Undeclared users and keys."""
    declared = {user.name: user for user in wanted}
    messages = [f"S3 user {name}" for name in sorted(names) if name not in declared]
    for name, user in declared.items():
        keys = (found.get(name) or {}).get("keys", [])
        others = [key for key in keys if key["access_key"] not in (user.access_key, *user.retired_access_keys)]
        if others:
            messages.append(f"{len(others)} undeclared key{'s' if len(others) > 1 else ''} of S3 user {name}")
    return messages
