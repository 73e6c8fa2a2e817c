"""The storage cluster: enough hosts, a release and an image that can be trusted, disks, and a number of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .model import Environment, Fault, Place, Setting, listed, show

GROUP = "ceph"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
PINNED = re.compile(r"[^@\s]+(@sha256:[0-9a-f]{64}|:v\d+\.\d+\.\d+-\d{8})")
VOLUME = re.compile(r"ceph(-[a-z0-9]+)?")
"""Volumes with such a name are the cluster's (slipway.platform.ceph_devices)."""
FLOORS = ((20, 2, 4), (21, 2, 0))
"""The first releases without CVE-2025-30156, a way around all authentication."""
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
    """Of two groups that say the same thing about a host, Ansible believes the one later in the alphabet."""
    services = environment.known_groups - {"all", "ungrouped", "localhost"}
    said: set[tuple[str, ...]] = set()
    for host in environment.hosts:
        groups = services & set(host.groups)
        places: dict[str, dict[str, Place]] = {}
        for definition in environment.definitions:
            if definition.scope in groups and definition.name.startswith("provision_"):
                places.setdefault(definition.name, {})[definition.scope] = definition.place
        twice = sorted(name for name, by_group in places.items() if len(by_group) > 1)
        scopes = tuple(sorted({scope for name in twice for scope in places[name]}))
        if twice and scopes not in said:
            said.add(scopes)
            yield Fault(
                places[twice[0]][scopes[0]],
                f"{listed(twice)} is set for each of {listed(scopes)}, and {host.name} is in all; leave it to one, "
                "because only the one later in the alphabet would count.",
            )


def hosts(environment: Environment) -> Iterator[Fault]:
    members = environment.members(GROUP)
    if len(members) == 2:
        yield Fault(
            environment.group_places.get(GROUP, Place(f"{environment.path}/hosts.yml")),
            f"group {GROUP} has 2 hosts; make it {COPIES} or more, or 1: of two monitors none may be lost, and "
            f"{COPIES} copies need {COPIES} hosts.",
        )


def identity(environment: Environment) -> Iterator[Fault]:
    place = environment.tuned_place(GROUP, "ceph_fsid")
    fsid = environment.tuned(GROUP, "ceph_fsid")
    if not isinstance(fsid, str):
        return
    if not UUID.fullmatch(fsid):
        yield Fault(place, f"ceph_fsid is {show(fsid)}; write a UUID in small letters (uuidgen makes one).")
    for other, theirs in sorted(environment.siblings.get("ceph_fsid", {}).items()):
        if theirs == fsid:
            yield Fault(
                place,
                f"ceph_fsid is {fsid}, which the environment {other} has too; give each cluster its own (uuidgen): "
                "by it a disk is known to belong to this cluster or to another.",
            )


def release(environment: Environment) -> Iterator[Fault]:
    version = environment.tuned(GROUP, "ceph_version")
    if isinstance(version, str):
        parts = tuple(int(part) for part in version.split(".")) if re.fullmatch(r"\d+\.\d+\.\d+", version) else ()
        if not any(parts[:1] == floor[:1] and parts >= floor for floor in FLOORS):
            yield Fault(
                environment.tuned_place(GROUP, "ceph_version"),
                f"ceph_version is {show(version)}; choose {listed('.'.join(map(str, floor)) for floor in FLOORS)} or "
                "newer of the same major, because older ones let anybody in (CVE-2025-30156).",
            )
    image = environment.tuned(GROUP, "ceph_image")
    if isinstance(image, str) and not PINNED.fullmatch(image):
        yield Fault(
            environment.tuned_place(GROUP, "ceph_image"),
            f"ceph_image is {show(image)}, which may be another image tomorrow; name it by digest "
            "(…@sha256:…) or by its full build tag (…:v20.2.4-20260818).",
        )
    checksum = environment.tuned(GROUP, "ceph_cephadm_checksum")
    if isinstance(checksum, str) and not CHECKSUM.fullmatch(checksum):
        yield Fault(
            environment.tuned_place(GROUP, "ceph_cephadm_checksum"),
            f"ceph_cephadm_checksum is {show(checksum)}, a placeholder or no checksum; put sha256:… of the cephadm of "
            "your release there.",
        )


def disks(environment: Environment) -> Iterator[Fault]:
    members = environment.members(GROUP)
    brought: dict[int, str] = {}
    for host in members:
        setting = host.settings.get("provision_volumes")
        volumes = setting.value if setting is not None and isinstance(setting.value, list) else []
        sizes = [
            volume.get("size_gb")
            for volume in volumes
            if isinstance(volume, dict) and VOLUME.fullmatch(str(volume.get("name")))
        ]
        brought.setdefault(sum(size for size in sizes if isinstance(size, int)), host.name)
        if not sizes:
            yield Fault(
                _place(setting, Place(f"{environment.path}/hosts.yml")),
                f"host {host.name} is in group {GROUP}, but has no volume for it; add one named ceph to "
                "provision_volumes.",
            )
    if len(members) == COPIES and len(brought) > 1 and 0 not in brought:
        (small, one), *_, (large, other) = sorted(brought.items())
        yield Fault(
            Place(f"{environment.path}/hosts.yml"),
            f"{other} brings {large} GB to Ceph and {one} brings {small}; each of {COPIES} hosts holds a copy of "
            "everything, so the smallest counts: give all the same.",
        )


def pools(environment: Environment) -> Iterator[Fault]:
    """Fewer copies than hosts can hold, said before anything is stored."""
    members = len(environment.members(GROUP))
    declared = environment.tuned(GROUP, "ceph_pools")
    place = environment.tuned_place(GROUP, "ceph_pools")
    names = {pool.get("name") for pool in declared if isinstance(pool, dict)} if isinstance(declared, list) else set()
    confirmed = environment.tuned(GROUP, "ceph_pool_confirm")
    for name in confirmed if isinstance(confirmed, list) else []:
        if name not in names:
            yield Fault(
                environment.tuned_place(GROUP, "ceph_pool_confirm"),
                f"ceph_pool_confirm names {show(name)}, which is no pool of ceph_pools; correct the name or remove it.",
            )
    for pool in declared if isinstance(declared, list) else []:
        if not isinstance(pool, dict):
            continue
        size, minimum = pool.get("size"), pool.get("min_size")
        name = show(pool.get("name"))
        if isinstance(size, int) and size > members:
            yield Fault(place, f"pool {name} wants {size} copies, but group {GROUP} has {members} hosts; add hosts.")
        if isinstance(size, int) and 0 < size < COPIES <= members:
            yield Fault(
                place,
                f"pool {name} has {size} copies; with fewer than {COPIES} one lost host and one bad disk lose data, so "
                f"make it {COPIES}.",
            )
        if isinstance(minimum, int) and 0 < minimum < 2 <= members:
            yield Fault(
                place,
                f"pool {name} has min_size {minimum}; what is written to a single copy is lost with it, so make it 2.",
            )


def memory(environment: Environment) -> Iterator[Fault]:
    target = environment.tuned(GROUP, "ceph_osd_memory_target_mb")
    if isinstance(target, int) and 0 < target < SMALLEST_TARGET_MB:
        yield Fault(
            environment.tuned_place(GROUP, "ceph_osd_memory_target_mb"),
            f"ceph_osd_memory_target_mb is {target}, and Ceph refuses less than {SMALLEST_TARGET_MB}; make it "
            "larger, or 0 to have it computed.",
        )


def _place(setting: Setting | None, default: Place) -> Place:
    return setting.place if setting is not None else default
