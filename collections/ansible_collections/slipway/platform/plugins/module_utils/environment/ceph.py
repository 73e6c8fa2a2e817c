"""Ceph: number of hosts, release, image, checksum, devices, pools and an fsid that no other environment has."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .model import Environment, Fault, Origin, Setting, listed, show

GROUP = "ceph"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
PINNED = re.compile(r"[^@\s]+(@sha256:[0-9a-f]{64}|:v\d+\.\d+\.\d+-\d{8})")
VOLUME = re.compile(r"ceph(-[a-z0-9]+)?")
"""Volumes with such a name are the cluster's (slipway.platform.ceph_devices)."""
FLOORS = ((20, 2, 4), (21, 2, 0))
"""The first releases without CVE-2025-30156 (authentication bypass)."""
COPIES = 3
SMALLEST_TARGET_MB = 896


def faults(environment: Environment) -> Iterator[Fault]:
    yield from shared_hosts(environment)
    if environment.members(GROUP):
        yield from hosts(environment)
        yield from identity(environment)
        yield from release(environment)
        yield from disks(environment)
        yield from pools(environment)
        yield from memory(environment)


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
                f"{listed(duplicates)} is set for each of {listed(scopes)}, and {host.name} is in all; set it in one, "
                "because only the value of the group later in the alphabet applies.",
            )


def hosts(environment: Environment) -> Iterator[Fault]:
    members = environment.members(GROUP)
    if len(members) == 2:
        yield Fault(
            environment.group_origins.get(GROUP, Origin(f"{environment.path}/hosts.yml")),
            f"group {GROUP} has 2 hosts; make it {COPIES} or more, or 1: two monitors lose quorum with either, and "
            f"{COPIES} copies need {COPIES} hosts.",
        )


def identity(environment: Environment) -> Iterator[Fault]:
    origin = environment.group_value_origin(GROUP, "ceph_fsid")
    fsid = environment.group_value(GROUP, "ceph_fsid")
    if not isinstance(fsid, str):
        return
    if not UUID.fullmatch(fsid):
        yield Fault(origin, f"ceph_fsid is {show(fsid)}; write a UUID in small letters (uuidgen makes one).")
    for other, theirs in sorted(environment.siblings.get("ceph_fsid", {}).items()):
        if theirs == fsid:
            yield Fault(
                origin,
                f"ceph_fsid is {fsid}, which the environment {other} has too; give each cluster its own (uuidgen): "
                "a device is assigned to its cluster by it.",
            )


def release(environment: Environment) -> Iterator[Fault]:
    version = environment.group_value(GROUP, "ceph_version")
    if isinstance(version, str):
        parts = tuple(int(part) for part in version.split(".")) if re.fullmatch(r"\d+\.\d+\.\d+", version) else ()
        if not any(parts[:1] == floor[:1] and parts >= floor for floor in FLOORS):
            yield Fault(
                environment.group_value_origin(GROUP, "ceph_version"),
                f"ceph_version is {show(version)}; choose {listed('.'.join(map(str, floor)) for floor in FLOORS)} or "
                "newer of the same major, because older ones allow authentication bypass (CVE-2025-30156).",
            )
    image = environment.group_value(GROUP, "ceph_image")
    if isinstance(image, str) and not PINNED.fullmatch(image):
        yield Fault(
            environment.group_value_origin(GROUP, "ceph_image"),
            f"ceph_image is {show(image)}, which may be another image tomorrow; name it by digest "
            "(…@sha256:…) or by its full build tag (…:v20.2.4-20260818).",
        )
    checksum = environment.group_value(GROUP, "ceph_cephadm_checksum")
    if isinstance(checksum, str) and not CHECKSUM.fullmatch(checksum):
        yield Fault(
            environment.group_value_origin(GROUP, "ceph_cephadm_checksum"),
            f"ceph_cephadm_checksum is {show(checksum)}, a placeholder or no checksum; set sha256:… of the cephadm of "
            "your release.",
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
                f"host {host.name} is in group {GROUP}, but has no volume for it; add one named ceph to "
                "provision_volumes.",
            )
    if len(members) == COPIES and len(capacity_by_gb) > 1 and 0 not in capacity_by_gb:
        (small_gb, small_host), *_, (large_gb, large_host) = sorted(capacity_by_gb.items())
        yield Fault(
            Origin(f"{environment.path}/hosts.yml"),
            f"{large_host} brings {large_gb} GB to Ceph and {small_host} brings {small_gb}; each of {COPIES} hosts "
            "holds a copy of all data, so the smallest sets the capacity: give all the same size.",
        )


def pools(environment: Environment) -> Iterator[Fault]:
    """Replica counts that the number of hosts cannot hold or that risk data, before anything is stored."""
    members = len(environment.members(GROUP))
    declared = environment.group_value(GROUP, "ceph_pools")
    origin = environment.group_value_origin(GROUP, "ceph_pools")
    names = {pool.get("name") for pool in declared if isinstance(pool, dict)} if isinstance(declared, list) else set()
    confirmed = environment.group_value(GROUP, "ceph_pool_confirm")
    for name in confirmed if isinstance(confirmed, list) else []:
        if name not in names:
            yield Fault(
                environment.group_value_origin(GROUP, "ceph_pool_confirm"),
                f"ceph_pool_confirm names {show(name)}, which is no pool of ceph_pools; correct the name or remove it.",
            )
    for pool in declared if isinstance(declared, list) else []:
        if not isinstance(pool, dict):
            continue
        size, minimum = pool.get("size"), pool.get("min_size")
        name = show(pool.get("name"))
        if isinstance(size, int) and size > members:
            yield Fault(origin, f"pool {name} wants {size} copies, but group {GROUP} has {members} hosts; add hosts.")
        if isinstance(size, int) and 0 < size < COPIES <= members:
            yield Fault(
                origin,
                f"pool {name} has {size} copies; with fewer than {COPIES}, one lost host and one failed device lose "
                f"data, so make it {COPIES}.",
            )
        if isinstance(minimum, int) and 0 < minimum < 2 <= members:
            yield Fault(
                origin,
                f"pool {name} has min_size {minimum}; writes to a single copy are lost with it, so make it 2.",
            )


def memory(environment: Environment) -> Iterator[Fault]:
    target = environment.group_value(GROUP, "ceph_osd_memory_target_mb")
    if isinstance(target, int) and 0 < target < SMALLEST_TARGET_MB:
        yield Fault(
            environment.group_value_origin(GROUP, "ceph_osd_memory_target_mb"),
            f"ceph_osd_memory_target_mb is {target}, and Ceph rejects less than {SMALLEST_TARGET_MB}; make it "
            "larger, or 0 to have it computed.",
        )


def _origin(setting: Setting | None, default: Origin) -> Origin:
    return setting.origin if setting is not None else default
