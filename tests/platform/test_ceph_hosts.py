"""The storage cluster while hosts are added, drained and replaced and keys are rotated: no acknowledged write is lost.

The loads of test_ceph.py run meanwhile. The tests depend on each other in this order and end with the hosts of the lab.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hcloud import Client

from tests.platform import test_ceph
from tests.platform.conftest import Run, declare, declared, play
from tests.platform.test_ceph import HOSTS, Host, healthy, loads, until, volume_of

pytestmark = pytest.mark.soak

hosts, store, figures = test_ceph.hosts, test_ceph.store, test_ceph.figures
NEW = "lab-ceph-4"
NEW_ADDRESS = "10.90.1.54"
CLIENT = "client.csi-rbd-lab"
POOL = "kubernetes/lab"
DEVICE_MAPPER = any(line.split()[-1] == "device-mapper" for line in Path("/proc/misc").read_text().splitlines())

Store = dict[str, dict[str, Any]]


def operate(name: str, *arguments: str, inventory: Path | None = None, **inputs: Any) -> Run:
    """Run an operation, on the hosts of the lab or on those of another inventory."""
    sources = ["-i", str(inventory)] if inventory else []
    named = ["-e", json.dumps(inputs)] if inputs else []
    return play(*sources, *arguments, *named, playbook=f"playbooks/{name}.yml")


def succeeded(run: Run) -> Run:
    assert run.code == 0, run.excerpt
    return run


def osds(host: Host, name: str) -> list[int]:
    """The numbers of the OSDs on a host; none where CRUSH does not know it."""
    tree = {node["name"]: node for node in host.query("osd", "tree")["nodes"]}
    return sorted(tree[name]["children"]) if name in tree else []


def members(host: Host) -> list[str]:
    return sorted(entry["hostname"] for entry in host.query("orch", "host", "ls"))


def clean(host: Host, number: int) -> bool:
    """So many OSDs are up, and every placement group has all of its copies."""
    status = host.query("status")
    states = {entry["state_name"] for entry in status["pgmap"]["pgs_by_state"]}
    checks = {code: check["summary"]["message"] for code, check in status["health"]["checks"].items()}
    assert status["health"]["status"] == "HEALTH_OK", checks
    return status["osdmap"]["num_up_osds"] == number and all(state.startswith("active+clean") for state in states)


def keys(host: Host) -> dict[str, str]:
    return {entry["entity"]: entry["key"] for entry in host.query("auth", "ls")["auth_dump"]}


def shell(cloud: Client, like: Host, name: str) -> Host:
    """A shell on a host whose address may be another one than at the start of the tests."""
    server = cloud.servers.get_by_name(name)
    assert server is not None
    user = like.options[-1].partition("@")[0]
    return Host(name, [*like.options[:-1], f"{user}@{server.public_net.ipv4.ip}"])


def delete_machine(cloud: Client, name: str, *, volumes: bool) -> None:
    server = cloud.servers.get_by_name(name)
    assert server is not None
    attached = [volume for volume in cloud.volumes.get_all() if volume.server and volume.server.id == server.id]
    server.delete().wait_until_finished()
    for volume in attached if volumes else []:
        cloud.volumes.delete(volume)


@pytest.fixture(scope="module")
def four(cloud: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The inventory of the lab with a fourth host of Ceph; its machine is deleted at the end."""
    folder = tmp_path_factory.mktemp("inventory") / "lab"
    folder.mkdir()
    inventory = declared()
    inventory["all"]["children"]["ceph"]["hosts"][NEW] = {"provision_private_ip": NEW_ADDRESS}
    declare(folder, inventory)
    yield folder
    if cloud.servers.get_by_name(NEW) is not None:
        delete_machine(cloud, NEW, volumes=True)
        succeeded(operate("base", "--limit", "ceph"))


@pytest.mark.parametrize(
    ("operation", "inputs", "message"),
    [
        ("add_ceph_host", {}, "op_add_ceph_host_name: not given"),
        ("add_ceph_host", {"op_add_ceph_host_name": NEW}, f"op_add_ceph_host_name: {NEW} is not in the group ceph"),
        ("drain_ceph_host", {}, "op_drain_ceph_host_name: not given"),
        ("drain_ceph_host", {"op_drain_ceph_host_name": HOSTS[2]}, "cannot be drained"),
        ("replace_ceph_host", {}, "op_replace_ceph_host_name: not given"),
        ("replace_ceph_host", {"op_replace_ceph_host_name": HOSTS[2]}, "it is not lost"),
        ("rotate_ceph_keys", {"op_rotate_ceph_keys_clients": CLIENT}, "it as a list"),
        ("rotate_ceph_keys", {"op_rotate_ceph_keys_clients": ["client.absent"]}, "client.absent: does not exist"),
    ],
)
def test_wrong_input_is_rejected_and_nothing_is_changed(operation: str, inputs: dict[str, Any], message: str) -> None:
    run = operate(f"operations/{operation}", **inputs)
    assert run.code != 0
    assert message in run.text, run.excerpt
    assert run.changed == {}


def test_added_host_takes_its_share_of_the_data(
    cloud: Client,
    hosts: dict[str, Host],
    store: Store,
    description: dict[str, Any],
    figures: Callable[[str, object], None],
    four: Path,
) -> None:
    writer = hosts[HOSTS[0]]
    inputs: dict[str, Any] = {"op_add_ceph_host_name": NEW}
    succeeded(
        play("-i", str(four), "--check", "-e", json.dumps(inputs), playbook="playbooks/operations/add_ceph_host.yml")
    )
    assert cloud.servers.get_by_name(NEW) is None and members(writer) == HOSTS
    with loads(writer, store, description, "add") as running:
        run = succeeded(operate("operations/add_ceph_host", inventory=four, **inputs))
        figures("seconds", run.report["seconds"])
        until(lambda: clean(writer, 4), 300)
    assert {kind: load.failed for kind, load in running.items()} == {"rados": [], "s3": []}
    assert members(writer) == [*HOSTS, NEW]
    (osd,) = osds(writer, NEW)
    (usage,) = [node for node in writer.query("osd", "df")["nodes"] if node["id"] == osd]
    assert usage["pgs"] > 0
    assert sorted(writer.query("status")["quorum_names"]) == HOSTS, (
        "the first three hosts of the group carry the monitors"
    )
    for mode in ([], ["--check"]):
        assert succeeded(operate("operations/add_ceph_host", *mode, inventory=four, **inputs)).changed == {}


def test_drained_host_leaves_the_cluster(
    cloud: Client,
    hosts: dict[str, Host],
    store: Store,
    description: dict[str, Any],
    figures: Callable[[str, object], None],
    four: Path,
) -> None:
    writer = hosts[HOSTS[0]]
    inputs: dict[str, Any] = {"op_drain_ceph_host_name": NEW}
    before = osds(writer, NEW)
    assert len(before) == 1, "added by the test before"
    succeeded(operate("operations/drain_ceph_host", "--check", inventory=four, **inputs))
    assert osds(writer, NEW) == before and members(writer) == [*HOSTS, NEW]
    with loads(writer, store, description, "drain") as running:
        run = succeeded(operate("operations/drain_ceph_host", inventory=four, **inputs))
        figures("seconds", run.report["seconds"])
        until(lambda: clean(writer, 3), 300)
    assert {kind: load.failed for kind, load in running.items()} == {"rados": [], "s3": []}
    assert members(writer) == HOSTS
    assert osds(writer, NEW) == [] and NEW not in {node["name"] for node in writer.query("osd", "tree")["nodes"]}
    assert {daemon["hostname"] for daemon in writer.query("orch", "ps")} == set(HOSTS)
    assert cloud.servers.get_by_name(NEW) is not None, "the machine is left alone"
    for mode in ([], ["--check"]):
        assert succeeded(operate("operations/drain_ceph_host", *mode, inventory=four, **inputs)).changed == {}
    # What the runbook asks for next: out of hosts.yml, its machine and volume deleted.
    delete_machine(cloud, NEW, volumes=True)
    succeeded(operate("base", "--limit", "ceph"))
    assert succeeded(operate("ceph")).changed == {}


def test_replaced_host_returns_with_its_data(
    cloud: Client,
    hosts: dict[str, Host],
    store: Store,
    description: dict[str, Any],
    figures: Callable[[str, object], None],
) -> None:
    """The machine is deleted and its volume stays: the new machine brings the same OSD back."""
    writer, lost = hosts[HOSTS[0]], HOSTS[2]
    inputs: dict[str, Any] = {"op_replace_ceph_host_name": lost}
    volume, before = volume_of(cloud, lost), osds(writer, lost)
    with loads(writer, store, description, "replace") as running:
        old = cloud.servers.get_by_name(lost)
        assert old is not None
        delete_machine(cloud, lost, volumes=False)
        until(lambda: writer.query("status")["osdmap"]["num_up_osds"] == 2, 180)
        until(lambda: lost not in writer.query("status")["quorum_names"], 60)
        preview = succeeded(operate("operations/replace_ceph_host", "--check", **inputs))
        assert "is lost and can be replaced" in preview.text
        assert cloud.servers.get_by_name(lost) is None
        run = succeeded(operate("operations/replace_ceph_host", **inputs))
        figures("seconds", run.report["seconds"])
        until(lambda: healthy(writer), 300)
    assert {kind: load.failed for kind, load in running.items()} == {"rados": [], "s3": []}
    new = cloud.servers.get_by_name(lost)
    assert new is not None and new.id != old.id
    assert volume_of(cloud, lost) == volume and osds(writer, lost) == before
    assert sorted(writer.query("status")["quorum_names"]) == HOSTS
    for mode in ([], ["--check"]):
        again = operate("operations/replace_ceph_host", *mode, **inputs)
        assert again.code != 0 and "it is not lost" in again.text
        assert again.changed == {}
    assert succeeded(operate("ceph")).changed == {}


def accepts(host: Host, entity: str, key: str) -> bool:
    """Whether a client with this key can list its images."""
    command = f"cat >/tmp/key && timeout 60 rbd --name {entity} --keyring /tmp/key ls {POOL} && echo accepted"
    monitor = "podman exec --interactive $(podman ps --quiet --filter name=-mon- | head -n 1) sh -c"
    return "accepted" in host.run(f"{monitor} '{command}'", input=f"[{entity}]\n\tkey = {key}\n", check=False)


def test_rotated_keys_are_distributed_and_old_ones_are_rejected(
    cloud: Client,
    hosts: dict[str, Host],
    store: Store,
    description: dict[str, Any],
    figures: Callable[[str, object], None],
) -> None:
    writer = hosts[HOSTS[0]]
    before = keys(writer)
    # The lab's keys are younger than a day, which counts as new unless another age is given: 36 seconds here.
    inputs: dict[str, Any] = {"op_rotate_ceph_keys_clients": [CLIENT], "op_rotate_ceph_keys_age_hours": 0.01}
    succeeded(operate("operations/rotate_ceph_keys", "--check", **inputs))
    assert keys(writer) == before
    assert accepts(writer, CLIENT, before[CLIENT])
    with loads(writer, store, description, "rotate") as running:
        run = succeeded(operate("operations/rotate_ceph_keys", **inputs))
        figures("seconds", run.report["seconds"])
        until(lambda: healthy(writer), 300)
    assert {kind: load.failed for kind, load in running.items()} == {"rados": [], "s3": []}
    after = keys(writer)
    assert sorted(after) == sorted(before), "the second administrator is removed at the end"
    rotated = {entity for entity in before if after[entity] != before[entity]}
    daemons = {entity for entity in before if entity.split(".")[0] in ("mgr", "mds") or ".rgw." in entity}
    assert {"client.admin", CLIENT} | daemons <= rotated
    left = {entity for entity in before if entity.startswith("osd.")}
    assert left and not left & rotated and re.search(r"Keys of [^:]*mon[^:]*: not rotated", run.text)
    assert accepts(writer, CLIENT, after[CLIENT]) and not accepts(writer, CLIENT, before[CLIENT])
    everywhere = [shell(cloud, writer, name) for name in HOSTS]
    until(lambda: all(host.query("health")["status"] == "HEALTH_OK" for host in everywhere), 120)
    inputs["op_rotate_ceph_keys_age_hours"] = 12
    for mode in ([], ["--check"]):
        assert succeeded(operate("operations/rotate_ceph_keys", *mode, **inputs)).changed == {}
    assert keys(writer) == after


@pytest.mark.skipif(not DEVICE_MAPPER, reason="this kernel has no device-mapper: ceph_osd_method lvm cannot be run")
def test_added_host_has_its_osd_on_a_logical_volume(cloud: Client, hosts: dict[str, Host], tmp_path: Path) -> None:
    """Production's ceph_osd_method, which the lab replaces by raw because few such machines have device-mapper."""
    writer = hosts[HOSTS[0]]
    folder = tmp_path / "lab"
    folder.mkdir()
    inventory = declared()
    entry = {"provision_private_ip": NEW_ADDRESS, "ceph_osd_method": "lvm"}
    inventory["all"]["children"]["ceph"]["hosts"][NEW] = entry
    declare(folder, inventory)
    try:
        succeeded(operate("operations/add_ceph_host", inventory=folder, op_add_ceph_host_name=NEW))
        until(lambda: clean(writer, 4), 300)
        assert "osd-block-" in shell(cloud, writer, NEW).run("lvs --noheadings --options lv_name")
        succeeded(operate("operations/drain_ceph_host", inventory=folder, op_drain_ceph_host_name=NEW))
    finally:
        if cloud.servers.get_by_name(NEW) is not None:
            delete_machine(cloud, NEW, volumes=True)
        succeeded(operate("base", "--limit", "ceph"))
