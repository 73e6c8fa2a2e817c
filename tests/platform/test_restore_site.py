"""The whole environment lost and restored from the bucket, the escrow and the repository; before that, restore drills.

Canaries are a ConfigMap, a row, an RBD image and the objects of a bucket in Ceph.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml
from hcloud import Client

from lab.settings import Settings
from tests.cluster.test_restore import canaries, write
from tests.platform.conftest import ARTIFACTS, INVENTORY, OUTPUTS, REPOSITORY, Run, declare, declared, kill, play
from tests.platform.database import Site
from tests.platform.object_storage import Endpoint, Keys
from tests.platform.test_1_interrupted import SEED
from tests.platform.test_object_storage import GATEWAY_PORT, GATEWAYS
from tests.platform.test_rke2 import FAILURES, NAMESPACE, SERVERS, connect
from tests.platform.test_z_destroy import ENVIRONMENT, destroy, objects
from tests.support.deadlines import until

PLAYBOOK = "playbooks/operations/restore_site.yml"
ADMIN = "lab-ceph-1"
IMAGE, BUCKET = "kubernetes/canary", "canary"
APPLICATION = Keys("CANARY0123456789ABCD", "canary-of-the-site-0123456789abcdefghijkl")
CEPH_OPTIONS: dict[str, Any] = {
    "ceph_s3_users": [
        {
            "name": "canary",
            "display_name": "Canary",
            "max_buckets": 0,
            "access_key": APPLICATION.access_key,
            "secret_key": APPLICATION.secret_key,
        }
    ],
    "s3_snapshot_ceph_buckets": [
        {"name": BUCKET, "access_key": APPLICATION.access_key, "secret_key": APPLICATION.secret_key}
    ],
    "s3_snapshot_ceph_images": [IMAGE],
}
OLD_RESTORE = {
    "began": "2026-01-01T00:00:00Z",
    "points": [],
    "restored": dict.fromkeys(("ceph", "etcd", "postgresql"), "2026-01-01T00:10:00Z"),
}
"""The state of an earlier restore that was not finished; what it restored was destroyed since."""
OBJECTS = {"a": b"", "b/text": b"canary\n" * 5000, "b/large": bytes(range(256)) * 80_000}
"""The last one is larger than a part of a multipart upload."""
KILLS = int(os.environ.get("SLIPWAY_TEST_RESTORE_KILLS", "1"))
LAST_KILL_SECONDS = 240.0 if KILLS > 1 else 90.0
"""A single kill comes early, since the run after it repeats what the killed one did."""


@pytest.fixture(scope="module")
def site(cloud: Client, description: dict[str, Any]) -> Site:
    return Site(cloud, description)


@pytest.fixture(scope="module")
def state_dir(description: dict[str, Any]) -> Path:
    return Path(description["secrets_path"]).parent / "ansible"


@pytest.fixture(scope="module")
def identity(state_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The private key of the escrow, where no run writes."""
    return Path(shutil.copy(state_dir / "escrow-identity.txt", tmp_path_factory.mktemp("escrow")))


def gateway(cloud: Client, settings: Settings, secrets: dict[str, str], folder: Path) -> Endpoint:
    """The object gateway of the cluster, from the network of a server."""
    server = cloud.servers.get_by_name(SERVERS[0])
    assert server is not None
    ca_path = folder / "platform.pem"
    ca_path.write_text(secrets["platform_ca_certificate"])
    values = yaml.safe_load((REPOSITORY / INVENTORY / "group_vars/all/platform.yml").read_text())
    return Endpoint(
        name=f"rgw.{values['platform_domain']}",
        address=GATEWAYS[0],
        port=GATEWAY_PORT,
        ca_path=ca_path,
        namespace=settings.host_namespace(server.id),
        owner=APPLICATION,
        multipart_bytes=0,
    )


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's inventory whose Ceph cluster has a user of S3, a bucket and an image to save."""
    hosts = declared()
    hosts["all"]["children"]["ceph"]["vars"] |= CEPH_OPTIONS
    folder = tmp_path_factory.mktemp("inventory") / ENVIRONMENT
    folder.mkdir()
    declare(folder, hosts)
    return folder


def played(inventory: Path, playbook: str, **inputs: Any) -> Run:
    run = play("-e", json.dumps(inputs), playbook=playbook, inventory=inventory)
    assert run.code == 0, run.excerpt
    return run


def image_digest(site: Site) -> str:
    return site.on(ADMIN, f"cephadm shell -- rbd export --no-progress {IMAGE} - 2>/dev/null | sha256sum").split()[0]


def restore_reports() -> set[Path]:
    return set((ARTIFACTS / "restore_site").glob("*.json"))


def test_each_part_is_restored_beside_production(site: Site, identity: Path) -> None:
    saved = play(playbook="playbooks/operations/save_snapshots.yml")
    assert saved.code == 0, saved.excerpt
    run = play("-e", f"op_drill_site_identity_path={identity}", playbook="playbooks/operations/drill_site.yml")
    assert run.code == 0, run.excerpt
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((ARTIFACTS / "drill_site").glob("*.json")):  # by time
        report = json.loads(path.read_text())
        found[report["host"]] = report
    for name in SERVERS:
        drills = found[name]["drills"]
        assert (drills["etcd"]["ok"], drills["config"]["ok"]) == (True, True)
        assert drills["etcd"]["keys"] > 50 and drills["etcd"]["canary_age_seconds"] < 600
        assert f"etcd/on-demand-{name}-" in saved.output
    assert found[ADMIN]["drills"]["ceph"]["monitors"] == ["lab-ceph-1", "lab-ceph-2", "lab-ceph-3"]
    for name in (*SERVERS, ADMIN):
        assert site.on(name, "find /var/lib/slipway-snapshot -name 'drill-*'") == ""


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"op_restore_site_confirm": "lab"}, "nothing was restored"),
        ({"op_restore_site_confirm": "prod"}, "op_restore_site_confirm is prod"),
    ],
    ids=["while it exists", "another environment"],
)
def test_a_restore_is_rejected(cloud: Client, identity: Path, inputs: dict[str, Any], message: str) -> None:
    before = objects(cloud, ENVIRONMENT)
    values = {"op_restore_site_identity_path": str(identity), **inputs}
    run = play("-e", json.dumps(values), playbook=PLAYBOOK)
    assert run.code == 2 and message in run.text, run.excerpt
    assert run.changed == {} and objects(cloud, ENVIRONMENT) == before


def start_and_kill(inventory: Path, values: dict[str, Any], after_seconds: float) -> None:
    """Run the restore and kill -9 all of its processes."""
    started = time.monotonic()
    with (OUTPUTS / "restore-site-killed.log").open("wb") as output:
        process = subprocess.Popen(
            ["ansible-playbook", PLAYBOOK, "-i", str(inventory), "-e", json.dumps(values)],
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        until(lambda: process.poll() is not None or time.monotonic() - started > after_seconds, after_seconds + 30)
    finally:
        kill(process)


def test_a_lost_site_is_restored_from_the_bucket_and_the_escrow(
    cloud: Client,
    settings: Settings,
    description: dict[str, Any],
    site: Site,
    state_dir: Path,
    identity: Path,
    inventory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets_path = Path(description["secrets_path"])
    secrets = yaml.safe_load(secrets_path.read_text())
    # Canaries.
    kubeconfig = state_dir / "kubeconfig"
    write(kubeconfig, "canary", "of the lost site")
    site.query("CREATE TABLE IF NOT EXISTS canary (value text)")
    site.query("TRUNCATE canary")
    site.query("INSERT INTO canary VALUES ('of the lost site')")
    site.run(ADMIN, f"cephadm shell -- rbd rm --no-progress {IMAGE}")  # of a test that was interrupted
    site.on(ADMIN, f"head -c 8388608 /dev/urandom | cephadm shell -- rbd import --no-progress - {IMAGE}")
    image = image_digest(site)
    played(inventory, "playbooks/ceph.yml")
    store = gateway(cloud, settings, secrets, tmp_path)
    with store.accessed(monkeypatch):
        client = store.client()
        client.create_bucket(Bucket=BUCKET)
        for key, body in OBJECTS.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=body)
    # Snapshots, and the escrow.
    saved = played(inventory, "playbooks/operations/save_snapshots.yml")
    assert f"ceph/bucket-{BUCKET}-" in saved.output and "ceph/image-kubernetes-canary-" in saved.output
    assert site.archived()
    escrow = tmp_path / "escrow.age"
    played(inventory, "playbooks/operations/export_escrow.yml", op_export_escrow_path=str(escrow))
    reports = restore_reports()
    # All is lost: machines, volumes, and what the controller knew.
    run = destroy("-e", f"op_destroy_environment={ENVIRONMENT}")
    assert run.code == 0 and objects(cloud, ENVIRONMENT) == set(), run.excerpt
    key = pyrage.x25519.Identity.from_str(identity.read_text().splitlines()[-1])
    shutil.rmtree(state_dir)
    state_dir.mkdir(mode=0o700)
    (state_dir / "restore_site.json").write_text(json.dumps(OLD_RESTORE))
    secrets_path.write_bytes(pyrage.decrypt(escrow.read_bytes(), [key]))
    # Restored, through kills.
    values = {"op_restore_site_confirm": ENVIRONMENT, "op_restore_site_identity_path": str(identity)}
    dice = random.Random(SEED)
    for _ in range(KILLS):
        start_and_kill(inventory, values, dice.uniform(30.0, LAST_KILL_SECONDS))
    run = played(inventory, PLAYBOOK, **values)
    assert "Resuming the restore that began" in run.text
    # The canaries.
    assert until(lambda: canaries(kubeconfig), 30, errors=FAILURES)["canary"] == "of the lost site"
    assert site.query("SELECT value FROM canary") == "of the lost site"
    assert image_digest(site) == image
    store = gateway(cloud, settings, secrets, tmp_path)
    with store.accessed(monkeypatch):
        client = store.client()
        bodies = {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in OBJECTS}
    assert {key: hashlib.sha256(body).digest() for key, body in bodies.items()} == {
        key: hashlib.sha256(body).digest() for key, body in OBJECTS.items()
    }
    # The report, and a site without a change to make.
    (path,) = restore_reports() - reports
    report = json.loads(path.read_text())
    assert {part["part"] for part in report["parts"]} == {"ceph", "etcd", "postgresql"}
    assert all(0 <= part["rpo_seconds"] < 3600 for part in report["parts"]), report["parts"]
    assert not (state_dir / "restore_site.json").exists()
    print(json.dumps(report, indent=1))
    assert played(inventory, "playbooks/s3_snapshot.yml").changed == {}
    assert play(playbook="playbooks/s3_snapshot.yml").code == 0  # without what this test declares
    again = play()
    assert (again.code, again.changed) == (0, {}), again.excerpt
    assert connect(kubeconfig).read_namespaced_config_map("canary", NAMESPACE).data["value"] == "of the lost site"
