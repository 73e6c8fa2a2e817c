"""Pools, file systems and clients of a Ceph cluster: steps from the actual to the declared state. Pure functions.

Nothing is ever removed. Changes to the safety of data (size, min_size, CRUSH rule) need the pool's name in a
confirmation.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Declared = Mapping[str, Any]

ERASURE = 3
KEY_TYPES = {1: "aes", 2: "aes256k"}
INSECURE_KEYS = ("config", "set", "mon", "mon_auth_allow_insecure_key")

# Users and pools that Ceph creates itself, or that other parts of the role declare.
OWN_CLIENTS = (
    "client.admin",
    "client.bootstrap-",
    "client.crash",
    "client.ceph-exporter",
    "client.rgw.",
    "client.agent.",
)
OWN_APPLICATIONS = ("mgr", "mgr_devicehealth", "rgw")


@dataclass(frozen=True)
class Step:
    """One command, its summary, and whether it runs another program of the image than `ceph`."""

    summary: str
    command: tuple[str, ...]
    input: str | None = None
    tool: bool = False


@dataclass(frozen=True)
class Wanted:
    """The declared state, and defaults."""

    pools: Sequence[Declared] = ()
    filesystems: Sequence[Declared] = ()
    clients: Sequence[Declared] = ()
    confirm: Sequence[str] = ()
    hosts: Sequence[str] = ()
    key_type: str = "aes"
    size: int = 3

    def all_pools(self) -> list[Declared]:
        """The pools declared, and those of the file systems."""
        own = []
        for filesystem in self.filesystems:
            name, size = filesystem["name"], filesystem.get("size", 0)
            own += [
                {"name": f"cephfs.{name}.meta", "application": "cephfs", "size": size},
                {
                    "name": f"cephfs.{name}.data",
                    "application": "cephfs",
                    "size": size,
                    "bulk": filesystem.get("bulk", False),
                },
            ]
        return [*self.pools, *own]

    def copies(self, pool: Declared) -> tuple[int, int]:
        """size and min_size of a replicated pool."""
        size = pool.get("size") or self.size
        return size, pool.get("min_size") or (2 if size > 2 else 1)


@dataclass
class Result:
    steps: list[Step] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


# --- actual state ---------------------------------------------------------------------------------------------------


def parse_resources(answers: Mapping[str, Any]) -> Json:
    """Pools, file systems, MDS services and clients in the terms of the declaration, without secrets."""
    rules = {rule["rule_id"]: rule["rule_name"] for rule in answers["rules"]}
    names = {pool["pool_id"]: pool["pool_name"] for pool in answers["pools"]}
    return {
        "pools": {pool["pool_name"]: _pool(pool, rules) for pool in answers["pools"]},
        "filesystems": {
            _fs_name(one): _filesystem(one, names) for one in answers["filesystems"].get("filesystems", [])
        },
        "mds": {str(spec.get("service_id", "")): spec for spec in answers["mds"] if spec.get("service_type") == "mds"},
        "clients": {
            entry["entity"]: {"caps": dict(entry.get("caps", {})), "key_type": key_type(entry.get("key", ""))}
            for entry in answers["auth"].get("auth_dump", [])
            if str(entry["entity"]).startswith("client.")
        },
        "namespaces": dict(answers.get("namespaces", {})),
        "groups": dict(answers.get("groups", {})),
        "insecure_keys": str(answers.get("insecure_keys", "false")).strip().strip('"') == "true",
    }


def _pool(pool: Json, rules: Mapping[int, str]) -> Json:
    return {
        "type": "erasure" if pool["type"] == ERASURE else "replicated",
        "size": pool["size"],
        "min_size": pool["min_size"],
        "pg_num": pool.get("pg_num_target", pool["pg_num"]),
        "autoscale": pool.get("pg_autoscale_mode", "on"),
        "crush_rule": rules.get(pool["crush_rule"], str(pool["crush_rule"])),
        "applications": sorted(pool.get("application_metadata", {})),
        "bulk": "bulk" in str(pool.get("flags_names", "")).split(","),
        "quota_bytes": pool.get("quota_max_bytes", 0),
        "quota_objects": pool.get("quota_max_objects", 0),
    }


def _fs_name(entry: Json) -> str:
    return str(entry["mdsmap"]["fs_name"])


def _filesystem(entry: Json, names: Mapping[int, str]) -> Json:
    mds_map = entry["mdsmap"]
    return {
        "metadata": names.get(mds_map["metadata_pool"], ""),
        "data": [names.get(number, "") for number in mds_map["data_pools"]],
        "active": sum(one.get("state") == "up:active" for one in mds_map.get("info", {}).values()),
    }


def key_type(key: str) -> str:
    """Type of a key: the first two bytes of a CephX secret."""
    try:
        (number,) = struct.unpack_from("<H", base64.b64decode(key))
    except (binascii.Error, struct.error):
        return "unknown"
    return KEY_TYPES.get(number, f"type {number}")


# --- pools ----------------------------------------------------------------------------------------------------------


def pool_steps(view: Json, wanted: Wanted) -> Result:
    result = Result()
    for pool in wanted.all_pools():
        have = view["pools"].get(pool["name"])
        if have is None:
            _create_pool(result, pool, wanted)
        else:
            _change_pool(result, pool, have, wanted)
    return result


def _create_pool(result: Result, pool: Declared, wanted: Wanted) -> None:
    """The application is set last: a pool without one is not in use, which shows an interrupted run."""
    name, erasure = pool["name"], pool.get("type", "replicated") == "erasure"
    command = ["osd", "pool", "create", name, "--pool_type", "erasure" if erasure else "replicated"]
    if erasure:
        command += ["--erasure_code_profile", pool.get("erasure_profile") or "default"]
    if pool.get("crush_rule"):
        command += ["--rule", pool["crush_rule"]]
    if pool.get("pg_num"):
        command += ["--pg_num", str(pool["pg_num"]), "--autoscale_mode", "off"]
    if pool.get("bulk"):
        command.append("--bulk")
    result.steps.append(Step(f"create the pool {name}", tuple(command)))
    fresh = {
        "type": "erasure" if erasure else "replicated",
        "size": None,
        "min_size": None,
        "pg_num": pool.get("pg_num", 0),
        "autoscale": "off" if pool.get("pg_num") else None,
        "crush_rule": pool.get("crush_rule", ""),
        "applications": [],
        "bulk": bool(pool.get("bulk")),
        "quota_bytes": 0,
        "quota_objects": 0,
    }
    _change_pool(result, pool, fresh, wanted)


def _change_pool(result: Result, pool: Declared, have: Json, wanted: Wanted) -> None:
    name = pool["name"]
    kind = pool.get("type", "replicated")
    if have["type"] != kind:
        result.faults.append(
            f"Pool {name}: type is {have['type']}, declared is {kind}, and the type of a pool cannot change. "
            "Declare the actual type, or create another pool and move the data."
        )
        return
    unused = not have["applications"]
    for setting, value in _risky(pool, wanted):
        if have[setting] == value:
            continue
        if unused or name in wanted.confirm:
            flags = ("--yes_i_really_mean_it",) if (setting, value) == ("size", 1) else ()
            result.steps.append(_set(name, setting, str(value), *flags))
        else:
            result.faults.append(
                f"Pool {name}: {setting} is {have[setting]}, declared is {value}; the change affects the safety of its "
                f"data, or moves it. Add {name} to ceph_pool_confirm to allow the change."
            )
    mode = "off" if pool.get("pg_num") else "on"
    if have["autoscale"] != mode:
        result.steps.append(_set(name, "pg_autoscale_mode", mode))
    if pool.get("pg_num") and have["pg_num"] != pool["pg_num"]:
        result.steps.append(_set(name, "pg_num", str(pool["pg_num"])))
    if have["bulk"] != bool(pool.get("bulk")):
        result.steps.append(_set(name, "bulk", str(bool(pool.get("bulk"))).lower()))
    for setting, field_name in (("quota_bytes", "max_bytes"), ("quota_objects", "max_objects")):
        value = pool.get(setting, 0)
        if have[setting] != value:
            summary = (
                f"set {field_name} of the pool {name} to {value}"
                if value
                else f"remove {field_name} of the pool {name}"
            )
            result.steps.append(Step(summary, ("osd", "pool", "set-quota", name, field_name, str(value))))
    application = pool.get("application", "")
    # `fs new` sets the application of the pools of a file system.
    if application and application not in have["applications"] and application != "cephfs":
        if have["applications"]:
            result.faults.append(
                f"Pool {name}: its application is {', '.join(have['applications'])}, declared is {application}. "
                "Declare another pool for it."
            )
        elif application == "rbd":
            result.steps.append(Step(f"initialize the pool {name} for RBD", ("rbd", "pool", "init", name), tool=True))
        else:
            command = ("osd", "pool", "application", "enable", name, application)
            result.steps.append(Step(f"set the application of the pool {name} to {application}", command))


def _risky(pool: Declared, wanted: Wanted) -> list[tuple[str, Any]]:
    """Settings that are not changed without confirmation."""
    found: list[tuple[str, Any]] = []
    if pool.get("type", "replicated") == "replicated":
        size, min_size = wanted.copies(pool)
        found = [("size", size), ("min_size", min_size)]
    elif pool.get("min_size"):
        found = [("min_size", pool["min_size"])]
    if pool.get("crush_rule"):
        found.append(("crush_rule", pool["crush_rule"]))
    return found


def _set(name: str, setting: str, value: str, *flags: str) -> Step:
    return Step(f"set {setting} of the pool {name} to {value}", ("osd", "pool", "set", name, setting, value, *flags))


def namespace_steps(view: Json, wanted: Wanted) -> list[Step]:
    return [
        Step(
            f"create the namespace {name} in the pool {pool['name']}",
            ("rbd", "namespace", "create", "--pool", pool["name"], "--namespace", name),
            tool=True,
        )
        for pool in wanted.pools
        for name in pool.get("namespaces") or ()
        if name not in view["namespaces"].get(pool["name"], ())
    ]


# --- file systems ---------------------------------------------------------------------------------------------------


def mds_spec(filesystem: Declared, wanted: Wanted) -> Json:
    hosts = list(filesystem.get("hosts") or wanted.hosts[:2])
    return {"service_type": "mds", "service_id": filesystem["name"], "placement": {"hosts": hosts}}


def filesystem_steps(view: Json, wanted: Wanted) -> Result:
    result = Result()
    for filesystem in wanted.filesystems:
        name = filesystem["name"]
        have = view["filesystems"].get(name)
        pools = (f"cephfs.{name}.meta", f"cephfs.{name}.data")
        if have is None:
            result.steps.append(Step(f"create the file system {name}", ("fs", "new", name, *pools)))
        elif have["metadata"] != pools[0] or pools[1] not in have["data"]:
            result.faults.append(
                f"File system {name}: its pools are {have['metadata']} and {', '.join(have['data'])}, not "
                f"{pools[0]} and {pools[1]}. Declare another name."
            )
        want = mds_spec(filesystem, wanted)
        if _placement_hosts(view["mds"].get(name)) != want["placement"]["hosts"]:
            summary = f"deploy the metadata servers of {name} on {', '.join(want['placement']['hosts'])}"
            result.steps.append(Step(summary, ("orch", "apply"), json.dumps(want)))
    return result


def _placement_hosts(spec: Json | None) -> list[str]:
    hosts = (spec or {}).get("placement", {}).get("hosts", [])
    return [host if isinstance(host, str) else str(host.get("hostname")) for host in hosts]


def inactive(view: Json, wanted: Wanted) -> list[str]:
    """File systems without an active metadata server."""
    return [
        f"the file system {one['name']} has no active metadata server"
        for one in wanted.filesystems
        if not view["filesystems"].get(one["name"], {}).get("active")
    ]


def group_steps(view: Json, wanted: Wanted) -> list[Step]:
    return [
        Step(
            f"create the subvolume group {name} in {filesystem['name']}",
            ("fs", "subvolumegroup", "create", filesystem["name"], name),
        )
        for filesystem in wanted.filesystems
        for name in filesystem.get("subvolume_groups") or ()
        if name not in view["groups"].get(filesystem["name"], ())
    ]


# --- clients --------------------------------------------------------------------------------------------------------


def caps_of(client: Declared) -> dict[str, str]:
    """The exact caps of a client; for the CSI drivers the minimum in their documentation."""
    kind = client.get("kind", "custom")
    if kind == "rbd":
        profile = f"profile rbd pool={client['pool']}"
        if client.get("namespace"):
            profile += f" namespace={client['namespace']}"
        return {"mon": "profile rbd", "mgr": profile, "osd": profile}
    if kind == "cephfs":
        fs, group = client["filesystem"], client["subvolume_group"]
        return {
            "mon": f"allow r fsname={fs}",
            "mgr": "allow rw",
            "mds": f"allow r fsname={fs} path=/volumes, allow rws fsname={fs} path=/volumes/{group}",
            "osd": f"allow rwx tag cephfs metadata={fs}, allow rw tag cephfs data={fs}",
        }
    return {service: str(caps) for service, caps in (client.get("caps") or {}).items() if caps}


def client_faults(wanted: Wanted) -> list[str]:
    """Faults of the declared clients; argument specs have no required_if for elements."""
    pools = {pool["name"]: pool for pool in wanted.pools}
    filesystems = {one["name"]: one for one in wanted.filesystems}
    found = []
    for client in wanted.clients:
        kind, name = client.get("kind", "custom"), client["name"]
        if kind == "rbd":
            pool = pools.get(client.get("pool", ""))
            if pool is None:
                found.append(
                    f"ceph_clients: {name} uses the pool {client.get('pool', '')!r}, "
                    "which is not in ceph_pools. Declare it."
                )
            elif client.get("namespace") and client["namespace"] not in (pool.get("namespaces") or ()):
                found.append(
                    f"ceph_clients: {name} uses the namespace {client['namespace']}, "
                    f"which the pool {pool['name']} does not declare. Declare it."
                )
        elif kind == "cephfs":
            filesystem = filesystems.get(client.get("filesystem", ""))
            if filesystem is None:
                found.append(
                    f"ceph_clients: {name} uses the file system {client.get('filesystem', '')!r}, "
                    "which is not in ceph_filesystems. Declare it."
                )
            elif client.get("subvolume_group", "") not in (filesystem.get("subvolume_groups") or ()):
                found.append(
                    f"ceph_clients: {name} uses the subvolume group {client.get('subvolume_group', '')!r}, "
                    f"which the file system {filesystem['name']} does not declare. Declare it."
                )
        elif not caps_of(client):
            found.append(f"ceph_clients: {name} has no caps. Set its caps, or a kind.")
    return found


def client_steps(view: Json, wanted: Wanted) -> Result:
    """Create clients and reconcile their caps."""
    result = Result()
    insecure: list[Step] = []
    for client in wanted.clients:
        entity, caps = f"client.{client['name']}", caps_of(client)
        pairs = tuple(word for service in sorted(caps) for word in (service, caps[service]))
        kind = client.get("key_type") or wanted.key_type
        have = view["clients"].get(entity)
        if have is None:
            step = Step(
                f"create {entity} with a key of type {kind}",
                ("auth", "get-or-create", entity, *pairs, "--key_type", kind),
            )
            (insecure if kind == "aes" else result.steps).append(step)
        elif have["caps"] != caps:
            result.steps.append(Step(f"set the caps of {entity}", ("auth", "caps", entity, *pairs)))
    result.steps += insecure_key_steps(insecure)
    if not insecure and view["insecure_keys"]:
        result.steps.append(FORBID_INSECURE_KEYS)
    return result


FORBID_INSECURE_KEYS = Step("forbid new insecure keys", (*INSECURE_KEYS, "false"))


def insecure_key_steps(steps: list[Step]) -> list[Step]:
    """The steps, with the creation of insecure keys allowed before and forbidden after them."""
    if not steps:
        return []
    return [Step("allow new insecure keys", (*INSECURE_KEYS, "true")), *steps, FORBID_INSECURE_KEYS]


# --- undeclared objects ---------------------------------------------------------------------------------------------


def undeclared(view: Json, wanted: Wanted) -> list[str]:
    """Undeclared objects, and differences that this module does not change."""
    pools = {pool["name"] for pool in wanted.all_pools()}
    found = [
        f"pool {name} is not declared; unchanged"
        for name, pool in sorted(view["pools"].items())
        if name not in pools and not set(pool["applications"]) & set(OWN_APPLICATIONS) and not name.startswith(".")
    ]
    names = {one["name"] for one in wanted.filesystems}
    found += [
        f"file system {name} is not declared; unchanged" for name in sorted(view["filesystems"]) if name not in names
    ]
    declared = {f"client.{client['name']}": client for client in wanted.clients}
    for entity, have in sorted(view["clients"].items()):
        client = declared.get(entity)
        if client is None and not entity.startswith(OWN_CLIENTS):
            found.append(f"{entity} is not declared; unchanged")
        elif client is not None and have["key_type"] != (client.get("key_type") or wanted.key_type):
            found.append(
                f"{entity} has a key of type {have['key_type']}, "
                f"declared is {client.get('key_type') or wanted.key_type}; only rotate_ceph_keys.yml changes it"
            )
    return found
