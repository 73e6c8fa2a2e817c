"""Restores of etcd: rejected before anything stops, from the bucket and from a file, through kills, without a quorum.

Canaries are ConfigMaps: one that is in the snapshot, and one that was written after it.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hcloud import Client
from kubernetes import client as kubernetes
from kubernetes.client.exceptions import ApiException

from lab.settings import Settings
from tests.cluster.test_1_upgrade import RELEASE
from tests.platform.conftest import INVENTORY, OUTPUTS, REPOSITORY, Run, kill, play
from tests.platform.database import Site
from tests.platform.object_storage import Endpoint, Keys
from tests.platform.test_1_interrupted import SEED
from tests.platform.test_rke2 import AGENTS, FAILURES, NAMESPACE, SERVERS, conditions, connect
from tests.support.deadlines import until

PLAYBOOK = "playbooks/operations/restore_etcd.yml"
BUCKET, STORE, CLIENT = "lab-backup", "lab-store-1", "lab-lb-1"
SNAPSHOTS = "/var/lib/rancher/rke2/server/db/snapshots"
RESET_TASK = "TASK [rke2 : restore_reset | Reset etcd to one member]"
KILLS = 10
LAST_KILL_SECONDS = 40.0
"""Most of the steps of an undisturbed run end before that."""


@pytest.fixture(scope="module")
def site(cloud: Client, description: dict[str, Any]) -> Site:
    return Site(cloud, description)


@pytest.fixture(scope="module")
def kubeconfig(description: dict[str, Any]) -> Path:
    return Path(description["secrets_path"]).parent / "ansible/kubeconfig"


@pytest.fixture(scope="module", autouse=True)
def healthy(kubeconfig: Path, site: Site) -> None:
    """A test before these may have cut the power of a server."""

    def is_healthy() -> bool:
        seen = conditions(connect(kubeconfig))
        return all(seen[name]["Ready"] == "True" for name in SERVERS + AGENTS) and all(
            site.run(name, "true", timeout=20).code == 0 for name in SERVERS
        )

    until(is_healthy, 120, errors=(*FAILURES, KeyError, subprocess.TimeoutExpired))


@pytest.fixture(scope="module")
def secrets(description: dict[str, Any]) -> dict[str, str]:
    return dict(yaml.safe_load(Path(description["secrets_path"]).read_text()))


@pytest.fixture(scope="module")
def bucket(
    cloud: Client, settings: Settings, secrets: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Endpoint:
    """The store in the view of the writer of etcd's snapshots, from a host that no test here destroys."""
    ca_path = tmp_path_factory.mktemp("ca") / "platform.pem"
    ca_path.write_text(secrets["platform_ca_certificate"])
    server, store = cloud.servers.get_by_name(CLIENT), cloud.servers.get_by_name(STORE)
    assert server is not None and store is not None
    values = yaml.safe_load((REPOSITORY / INVENTORY / "group_vars/all/platform.yml").read_text())
    return Endpoint(
        name=f"s3.{values['platform_domain']}",
        address=str(store.public_net.ipv4.ip),
        port=443,
        ca_path=ca_path,
        namespace=settings.host_namespace(server.id),
        owner=Keys(secrets["object_storage_etcd_access_key"], secrets["object_storage_etcd_secret_key"]),
        multipart_bytes=0,
    )


def put(bucket: Endpoint, name: str, content: bytes | None, manifest: dict[str, Any] | None) -> None:
    """Store a snapshot and its manifest, each unless it is None."""
    with pytest.MonkeyPatch.context() as patch, bucket.accessed(patch):
        client = bucket.client()
        if content is not None:
            client.put_object(Bucket=BUCKET, Key=f"etcd/{name}", Body=content)
        if manifest is not None:
            body = json.dumps(manifest).encode()
            client.put_object(Bucket=BUCKET, Key=f"manifests/etcd/{name}.json", Body=body)


def remove(bucket: Endpoint, names: Iterable[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, bucket.accessed(patch):
        client = bucket.client()
        for name in names:
            client.delete_object(Bucket=BUCKET, Key=f"etcd/{name}")
            client.delete_object(Bucket=BUCKET, Key=f"manifests/etcd/{name}.json")


def get(bucket: Endpoint, name: str) -> bytes:
    with pytest.MonkeyPatch.context() as patch, bucket.accessed(patch):
        return bytes(bucket.client().get_object(Bucket=BUCKET, Key=f"etcd/{name}")["Body"].read())


def describe(name: str, content: bytes, token: str, **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "part": "etcd",
        "environment": "lab",
        "object": f"etcd/{name}",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "created": "2026-11-30T00:00:00Z",
        "host": SERVERS[0],
        "address": "10.90.1.21",
        "software": {"rke2": RELEASE},
        "token_fingerprint": hashlib.sha256(token.encode()).hexdigest()[:16],
        "requires": ["rke2_token"],
        "producer": "tests/cluster/test_restore.py",
    } | changes


def write(kubeconfig: Path, name: str, value: str) -> None:
    """Write a canary, and return when it is readable."""
    body = kubernetes.V1ConfigMap(metadata=kubernetes.V1ObjectMeta(name=name), data={"value": value})

    def written() -> Any:
        core = connect(kubeconfig)
        try:
            return core.create_namespaced_config_map(NAMESPACE, body, _request_timeout=5)
        except ApiException as error:
            if error.status != 409:
                raise
            return core.replace_namespaced_config_map(name, NAMESPACE, body, _request_timeout=5)

    until(written, 30, errors=FAILURES)


def canaries(kubeconfig: Path) -> dict[str, str]:
    items = connect(kubeconfig).list_namespaced_config_map(NAMESPACE, _request_timeout=5).items
    return {item.metadata.name: item.data["value"] for item in items if item.metadata.name.startswith("canary")}


def restore(*arguments: str, **inputs: Any) -> Run:
    values = {"op_restore_etcd_confirm": "lab", **inputs}
    return play(*arguments, "-e", json.dumps(values), playbook=PLAYBOOK)


def is_restored(kubeconfig: Path, site: Site, run: Run, expected: dict[str, str]) -> None:
    """Three voters without an alarm, all nodes Ready, the canaries of the snapshot, and nothing left to do."""
    assert run.code == 0, run.excerpt
    assert until(lambda: canaries(kubeconfig), 30, errors=FAILURES) == expected
    seen = conditions(connect(kubeconfig))
    assert {name: entry["Ready"] for name, entry in seen.items()} == dict.fromkeys(SERVERS + AGENTS, "True")
    assert {name: seen[name]["EtcdIsVoter"] for name in SERVERS} == dict.fromkeys(SERVERS, "True")
    for name in SERVERS:
        assert json.loads(site.on(name, "cat /var/lib/rancher/slipway-restore/record.json"))["step"] == "finished"
        assert site.on(name, "ls /var/lib/rancher/slipway-restore").split() == ["record.json"]
    again = play(playbook="playbooks/rke2.yml")
    assert (again.code, again.changed) == (0, {}), again.excerpt


@pytest.fixture
def saved(kubeconfig: Path, site: Site) -> str:
    """File name of a snapshot that contains the canary; a later canary is written after it."""
    write(kubeconfig, "canary", "saved")
    with_gone = connect(kubeconfig)
    for name in set(canaries(kubeconfig)) - {"canary"}:
        with_gone.delete_namespaced_config_map(name, NAMESPACE)
    site.on(SERVERS[0], "/usr/local/bin/rke2 etcd-snapshot save --name canary")
    write(kubeconfig, "canary-later", "lost")
    write(kubeconfig, "canary", "overwritten")
    return site.on(SERVERS[0], f"ls -t {SNAPSHOTS} | grep ^canary- | head -1").strip()


def started_at(site: Site) -> dict[str, str]:
    """Start of the service on each server: another one means that it was stopped."""
    command = "systemctl show --value --property=ExecMainStartTimestampMonotonic rke2-server"
    return {name: site.on(name, command).strip() for name in SERVERS}


def pod_network(kubeconfig: Path, node: str) -> str:
    return str(connect(kubeconfig).read_node(node, _request_timeout=5).spec.pod_cidr)


def pods_are_ready(kubeconfig: Path, node: str) -> bool:
    """Whether all pods of the node with an address of its own network are there and Ready."""
    network = ip_network(pod_network(kubeconfig, node))
    pods = connect(kubeconfig).list_pod_for_all_namespaces(
        field_selector=f"spec.nodeName={node},status.phase!=Succeeded", _request_timeout=5
    )
    own = [pod for pod in pods.items if not pod.spec.host_network]
    return bool(own) and all(
        pod.status.pod_ip
        and ip_address(pod.status.pod_ip) in network
        and all(status.ready for status in pod.status.container_statuses)
        for pod in own
    )


def give_another_pod_network(kubeconfig: Path, site: Site, node: str) -> str:
    """Remove the node, which joins as a new one; the network that its pods had."""
    former, api = pod_network(kubeconfig, node), connect(kubeconfig)
    site.on(node, "/usr/local/bin/rke2-killall.sh")
    api.delete_node(node)
    # A node with the former network: Kubernetes would assign it again, as the first one that is free.
    owner = kubernetes.V1Node(
        metadata=kubernetes.V1ObjectMeta(name="owner-of-the-former-network"),
        spec=kubernetes.V1NodeSpec(pod_cidr=former, pod_cidrs=[former]),
    )
    api.create_node(owner)
    try:
        site.on(node, "systemctl start rke2-agent")
        until(
            lambda: pod_network(kubeconfig, node) not in (former, "None") and pods_are_ready(kubeconfig, node),
            180,
            errors=FAILURES,
        )
    finally:
        connect(kubeconfig).delete_node(owner.metadata.name)
    return former


def test_a_restore_from_the_bucket_returns_to_the_canary(
    kubeconfig: Path, site: Site, bucket: Endpoint, secrets: dict[str, str], saved: str
) -> None:
    """The agent has joined anew since RKE2 uploaded the snapshot. In check mode nothing is changed."""
    put(bucket, saved, None, describe(saved, get(bucket, saved), secrets["rke2_token"]))
    former = give_another_pod_network(kubeconfig, site, AGENTS[0])
    before = started_at(site)
    dry = restore("--check", op_restore_etcd_snapshot=saved)
    assert dry.code == 0, dry.excerpt
    assert f"etcd is reset to s3://{BUCKET}/etcd/{saved} on {SERVERS[0]}; RKE2 stops on all servers" in dry.text
    assert started_at(site) == before
    assert canaries(kubeconfig) == {"canary": "overwritten", "canary-later": "lost"}
    run = restore(op_restore_etcd_snapshot="latest")
    is_restored(kubeconfig, site, run, {"canary": "saved"})
    assert pod_network(kubeconfig, AGENTS[0]) == former
    until(lambda: pods_are_ready(kubeconfig, AGENTS[0]), 120, errors=FAILURES)
    for name in SERVERS:
        assert "etcd-before-restore-" in site.on(name, "ls /var/lib/rancher/rke2/server/db")


def damaged(content: bytes, token: str) -> dict[str, tuple[bytes | None, dict[str, Any] | None, str]]:
    """Name → object and manifest in the bucket, and the sentence of the refusal."""
    good = describe("x", content, token)
    newer = re.sub(r"[.](\d+)[+]", lambda match: f".{int(match[1]) + 1}+", RELEASE)
    return {
        "test-absent": (None, None, "does not exist"),
        "test-empty": (b"", good, "is empty (0 bytes)"),
        "test-truncated": (content[: len(content) // 2], good, f"and its manifest {len(content)}; it is truncated"),
        "test-replaced": (bytes(len(content)), good, "its SHA-256 is"),
        "test-undescribed": (content, None, "has no manifest, so its environment, token and version are unknown"),
        "test-newer": (content, good | {"software": {"rke2": newer}}, f"was taken by RKE2 {newer}, newer than"),
        "test-token": (content, good | {"token_fingerprint": "0" * 16}, "was taken under another token"),
        "test-environment": (content, good | {"environment": "stage"}, "is a snapshot of environment stage"),
    }


def test_a_snapshot_that_does_not_fit_is_rejected_before_anything_stops(
    site: Site, bucket: Endpoint, secrets: dict[str, str], saved: str
) -> None:
    before = started_at(site)
    cases = damaged(get(bucket, saved), secrets["rke2_token"])
    try:
        for name, (content, manifest, message) in cases.items():
            put(bucket, name, content, manifest)
            run = restore(op_restore_etcd_snapshot=name)
            assert run.code != 0 and f"s3://{BUCKET}/etcd/{name}: " in run.text, run.excerpt
            assert message in run.text, run.excerpt
            assert run.changed == {}
    finally:
        remove(bucket, cases)
    assert started_at(site) == before


REJECTED: list[tuple[dict[str, Any], str]] = [
    ({"object_storage_etcd_secret_key": "wrong"}, "rejects the access key (SignatureDoesNotMatch)"),
    ({"op_restore_etcd_confirm": "prod"}, "op_restore_etcd_confirm: 'prod' is not the environment"),
    ({"op_restore_etcd_snapshot": ""}, "op_restore_etcd_snapshot: no source is set"),
    ({"op_restore_etcd_snapshot": "", "op_restore_etcd_file": "/absent"}, "/absent is not a file on any server"),
    ({"op_restore_etcd_snapshot": "", "op_restore_etcd_reset_only": True}, f"etcd has a quorum on {SERVERS[0]}"),
    ({"object_storage_etcd_access_key": "EXPIRED"}, "rejects the access key (InvalidAccessKeyId)"),
    ({"platform_object_storage_endpoint": "https://s3.lab.slipway.test:444"}, "unreachable (https://s3.lab"),
]


@pytest.mark.parametrize(
    ("inputs", "message"), [REJECTED[0], *(pytest.param(*case, marks=pytest.mark.soak) for case in REJECTED[1:])]
)
def test_a_wrong_request_is_rejected_before_anything_stops(site: Site, inputs: dict[str, Any], message: str) -> None:
    before = started_at(site)
    run = restore(**({"op_restore_etcd_snapshot": "latest"} | inputs))
    assert run.code != 0 and message in run.text, run.excerpt
    assert run.changed == {} and started_at(site) == before


def test_a_store_with_a_certificate_of_another_authority_is_rejected(description: dict[str, Any]) -> None:
    other = Path(description["ca_certificate_path"]).read_text()
    run = restore(op_restore_etcd_snapshot="latest", platform_object_storage_ca_certificate=other)
    assert run.code != 0 and "its certificate is not signed by the configured authority" in run.text
    assert run.changed == {}


@pytest.mark.soak
def test_a_snapshot_that_cannot_be_uploaded_stops_a_restart(site: Site) -> None:
    """RKE2 exits with 0 when an upload fails. The next run with the right key restarts the servers."""
    before = started_at(site)
    run = play("-e", "object_storage_etcd_secret_key=wrong", playbook="playbooks/rke2.yml")
    assert run.code != 0 and "Nothing was restarted" in run.text, run.excerpt
    assert "SignatureDoesNotMatch" in run.text, run.excerpt
    assert started_at(site) == before
    corrected = play(playbook="playbooks/rke2.yml")
    assert corrected.code == 0, corrected.excerpt


def start_and_kill(log: Path, moment: Callable[[float], bool], inputs: dict[str, Any]) -> bool:
    """Run the restore and kill -9 all of its processes at the moment. False when it ended before."""
    values = json.dumps({"op_restore_etcd_confirm": "lab", **inputs})
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["ansible-playbook", PLAYBOOK, "-i", INVENTORY, "-e", values],
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        while process.poll() is None:
            if moment(time.monotonic() - started):
                return True
            time.sleep(0.2)
    finally:
        kill(process)
    return False


@pytest.mark.soak
def test_a_restore_that_is_killed_is_finished_by_the_same_command(kubeconfig: Path, site: Site, saved: str) -> None:
    """First killed during the reset, when another request is rejected; then at random points."""
    dice = random.Random(SEED)
    inputs = {"op_restore_etcd_file": f"{SNAPSHOTS}/{saved}"}
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    log = OUTPUTS / "restore-killed.log"
    assert start_and_kill(log, lambda seconds: RESET_TASK in log.read_text(), inputs), log.read_text()[-6000:]
    other = restore(op_restore_etcd_snapshot="latest")
    assert other.code != 0 and "is unfinished, and this run requests snapshot latest" in other.text
    for _ in range(KILLS - 1):
        after = dice.uniform(3.0, LAST_KILL_SECONDS)
        start_and_kill(log, lambda seconds, after=after: seconds > after, inputs)
    is_restored(kubeconfig, site, restore(**inputs), {"canary": "saved"})


def delete(cloud: Client, names: list[str]) -> None:
    """Destroy servers with their disks."""
    for name in names:
        server = cloud.servers.get_by_name(name)
        assert server is not None
        cloud.servers.delete(server)
    until(lambda: all(cloud.servers.get_by_name(name) is None for name in names), 60)


def test_the_quorum_is_lost_with_two_servers_and_the_survivor_keeps_the_data(
    cloud: Client, kubeconfig: Path, site: Site
) -> None:
    write(kubeconfig, "canary", "on the survivor")
    expected = canaries(kubeconfig)
    delete(cloud, [SERVERS[0], SERVERS[2]])
    run = restore(op_restore_etcd_reset_only=True, op_restore_etcd_new_hosts=True)
    is_restored(kubeconfig, site, run, expected)
    assert f"etcd is reset without a snapshot on {SERVERS[1]}" in run.text


@pytest.mark.soak
@pytest.mark.parametrize("name", [SERVERS[0], SERVERS[2]])
def test_a_lost_server_is_replaced_without_a_restore(cloud: Client, kubeconfig: Path, site: Site, name: str) -> None:
    write(kubeconfig, "canary", f"without {name}")
    expected = canaries(kubeconfig)
    delete(cloud, [name])
    connect(kubeconfig).delete_node(name, _request_timeout=30)
    run = play()
    assert run.code == 0, run.excerpt
    assert canaries(kubeconfig) == expected
    seen = conditions(connect(kubeconfig))
    assert {seen[server]["EtcdIsVoter"] for server in SERVERS} == {"True"}


@pytest.mark.soak
def test_a_server_whose_disk_is_lost_joins_again(kubeconfig: Path, site: Site) -> None:
    """Without the deletion of its node the run is rejected, because etcd still has the member."""
    name = SERVERS[2]
    site.on(name, "rke2-killall.sh && rm -rf /var/lib/rancher/rke2/server/db/etcd /etc/rancher/node")
    run = play(playbook="playbooks/rke2.yml")
    assert run.code != 0 and f"{name}: holds no RKE2 data, but the cluster still lists it" in run.text
    connect(kubeconfig).delete_node(name, _request_timeout=30)
    run = play(playbook="playbooks/rke2.yml")
    assert run.code == 0, run.excerpt
    assert conditions(connect(kubeconfig))[name]["EtcdIsVoter"] == "True"


@pytest.mark.soak
def test_all_servers_are_lost_and_new_ones_are_restored_from_the_bucket(
    cloud: Client, kubeconfig: Path, site: Site, bucket: Endpoint, secrets: dict[str, str], saved: str
) -> None:
    put(bucket, saved, None, describe(saved, get(bucket, saved), secrets["rke2_token"]))
    delete(cloud, SERVERS)
    run = restore(op_restore_etcd_snapshot=saved, op_restore_etcd_new_hosts=True)
    is_restored(kubeconfig, site, run, {"canary": "saved"})
