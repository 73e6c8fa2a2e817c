"""Ceph: number of hosts, release, image, checksum, devices, pools and an fsid that no other environment has."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .model import Environment, Fault, Origin, Setting, listed, show

GROUP = "ceph"
STORE = "object_storage"
VOLUME = re.compile(r"ceph(-[a-z0-9]+)?")
"""Volumes with such a name are the cluster's (slipway.platform.ceph_devices)."""
FLOORS = ((20, 2, 4), (21, 2, 0))
"""The first releases without CVE-2025-30156 (authentication bypass)."""
COPIES = 3


def faults(environment: Environment) -> Iterator[Fault]:
    yield from shared_hosts(environment)
    yield from identity(environment)
    if environment.members(GROUP):
        yield from hosts(environment)
        yield from release(environment)
        yield from disks(environment)
        yield from pools(environment)


def shared_hosts(environment: Environment) -> Iterator[Fault]:
    """A host in two groups that set the same variable gets the value of the group later in the alphabet."""
    services = environment.known_groups - {"all", "ungrouped", "localhost"}
    reported: set[tuple[str, ...]] = set()
    for host in environment.hosts:
        groups = services & set(host.groups)
        origins: dict[str, dict[str, Origin]] = {}
        for definition in environment.definitions:
            if definition.scope in groups and definition.name.startswith("provision_"):
                origins.setdefault(definition.name, {})[definition.scope] = definition.origin
        duplicates = sorted(name for name, by_group in origins.items() if len(by_group) > 1)
        scopes = tuple(sorted({scope for name in duplicates for scope in origins[name]}))
        if duplicates and scopes not in reported:
            reported.add(scopes)
            yield Fault(
                origins[duplicates[0]][scopes[0]],
                f"{listed(duplicates)}: set for each of {listed(scopes)}, and {host.name} is in all",
                "Set it in one, because only the value of the group later in the alphabet applies.",
            )


def hosts(environment: Environment) -> Iterator[Fault]:
    members = environment.members(GROUP)
    if len(members) == 2:
        yield Fault(
            environment.group_origins.get(GROUP, Origin(f"{environment.path}/hosts.yml")),
            f"group {GROUP}: has 2 hosts",
            f"Make it {COPIES} or more, or 1: two monitors lose quorum with either, and {COPIES} copies need "
            f"{COPIES} hosts.",
        )


def identity(environment: Environment) -> Iterator[Fault]:
    """Each cluster has an fsid of its own: the platform's, an object storage's and those of other environments."""
    name = "ceph_fsid"
    by_group = {
        group: fsid
        for group in (GROUP, STORE)
        if environment.members(group) and isinstance(fsid := environment.group_value(group, name), str)
    }
    for group, fsid in by_group.items():
        others = [other for other, theirs in environment.siblings.get(name, {}).items() if fsid in theirs]
        others += [f"group {GROUP}"] if group == STORE and by_group.get(GROUP) == fsid else []
        for other in sorted(others):
            yield Fault(
                environment.group_value_origin(group, name),
                f"{name}: {fsid} of group {group} is that of {other} too",
                "Give each cluster its own (uuidgen): a device is assigned to its cluster by it.",
            )


def release(environment: Environment) -> Iterator[Fault]:
    version = environment.group_value(GROUP, "ceph_version")
    if isinstance(version, str):
        parts = tuple(int(part) for part in version.split(".")) if re.fullmatch(r"\d+\.\d+\.\d+", version) else ()
        if not any(parts[:1] == floor[:1] and parts >= floor for floor in FLOORS):
            yield Fault(
                environment.group_value_origin(GROUP, "ceph_version"),
                f"ceph_version: {show(version)} is too old or no release",
                f"Choose {listed('.'.join(map(str, floor)) for floor in FLOORS)} or newer of the same major, "
                "because older ones allow authentication bypass (CVE-2025-30156).",
            )


def disks(environment: Environment) -> Iterator[Fault]:
    members = environment.members(GROUP)
    capacity_by_gb: dict[int, str] = {}
    for host in members:
        setting = host.settings.get("provision_volumes")
        volumes = setting.value if setting is not None and isinstance(setting.value, list) else []
        sizes = [
            volume.get("size_gb")
            for volume in volumes
            if isinstance(volume, dict) and VOLUME.fullmatch(str(volume.get("name")))
        ]
        capacity_by_gb.setdefault(sum(size for size in sizes if isinstance(size, int)), host.name)
        if not sizes:
            yield Fault(
                _origin(setting, Origin(f"{environment.path}/hosts.yml")),
                f"host {host.name}: is in group {GROUP}, but has no volume for it",
                "Add one named ceph to provision_volumes.",
            )
    if len(members) == COPIES and len(capacity_by_gb) > 1 and 0 not in capacity_by_gb:
        (small_gb, small_host), *_, (large_gb, large_host) = sorted(capacity_by_gb.items())
        yield Fault(
            Origin(f"{environment.path}/hosts.yml"),
            f"{large_host} brings {large_gb} GB to Ceph and {small_host} brings {small_gb}",
            f"Each of {COPIES} hosts holds a copy of all data, so the smallest sets the capacity: give all the "
            "same size.",
        )


def pools(environment: Environment) -> Iterator[Fault]:
    """Replica counts that the number of hosts cannot hold or that risk data, before anything is stored."""
    members = len(environment.members(GROUP))
    declared = environment.group_value(GROUP, "ceph_pools")
    origin = environment.group_value_origin(GROUP, "ceph_pools")
    names = [pool.get("name") for pool in declared if isinstance(pool, dict)] if isinstance(declared, list) else []
    confirmed = environment.group_value(GROUP, "ceph_pool_confirm")
    for name in confirmed if isinstance(confirmed, list) else []:
        if name not in names:
            yield Fault(
                environment.group_value_origin(GROUP, "ceph_pool_confirm"),
                f"ceph_pool_confirm: {show(name)} is no pool of ceph_pools",
                "Correct the name or remove it.",
            )
    for pool in declared if isinstance(declared, list) else []:
        if not isinstance(pool, dict):
            continue
        size, minimum = pool.get("size"), pool.get("min_size")
        name = show(pool.get("name"))
        if isinstance(size, int) and size > members:
            yield Fault(
                origin, f"ceph_pools: {name} wants {size} copies, but group {GROUP} has {members} hosts", "Add hosts."
            )
        if isinstance(size, int) and 0 < size < COPIES <= members:
            yield Fault(
                origin,
                f"ceph_pools: {name} has {size} copies",
                f"With fewer than {COPIES}, one lost host and one failed device lose data, so make it {COPIES}.",
            )
        if isinstance(minimum, int) and 0 < minimum < 2 <= members:
            yield Fault(
                origin,
                f"ceph_pools: {name} has min_size {minimum}",
                "Writes to a single copy are lost with it, so make it 2.",
            )


def _origin(setting: Setting | None, default: Origin) -> Origin:
    return setting.origin if setting is not None else default
