"""Snapshots of one host in a bucket of the store: uploaded, described, and every kind of silent failure reported."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml
from testinfra.host import Host

from tests.support.inventory import Inventory
from tests.support.labs import REPOSITORY

TOOL = "/usr/local/lib/slipway/slipway-snapshot"
CONFIGURATION = "/etc/slipway/snapshot.json"
SNAPSHOTS = "/var/lib/rancher/rke2/server/db/snapshots"
ARCHIVE = f"sed -n 's/^exec \\/usr\\/bin\\/python3 \\([^ ]*\\) .*/\\1/p' {TOOL}"
CLIENT = """\
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import Bucket
configuration = json.load(open("/etc/slipway/snapshot.json"))
bucket = Bucket.from_options(configuration["bucket"], configuration["parts"][sys.argv[2]])
"""
AS_OWNER = "bucket = Bucket.from_options(configuration['bucket'], json.load(open('/root/owner.json')))\n"
FSID = "5d0e65a5-6a49-4a4e-a1f5-4b0d2f8fb8a3"
"""Of the store: molecule/inventory/group_vars/object_storage/ceph.yml."""

pytestmark = pytest.mark.scenario("the scenario has files in place of RKE2")


@pytest.fixture(scope="module")
def host(inventory: Inventory) -> Iterator[Host]:
    host = inventory.host(inventory.group("rke2_server")[0])
    with host.sudo():
        yield host


@pytest.fixture(scope="module")
def name(inventory: Inventory) -> str:
    return inventory.group("rke2_server")[0]


@pytest.fixture(scope="module")
def configuration(host: Host) -> dict[str, Any]:
    return dict(json.loads(host.file(CONFIGURATION).content_string))


@pytest.fixture(scope="module")
def with_key(host: Host) -> Callable[..., str]:
    """Run Python on the host with `bucket`, the bucket as the writer of a part."""
    archive = host.check_output(ARCHIVE)

    def run(part: str, source: str) -> str:
        done = host.run(f"python3 -c {shlex.quote(CLIENT + source)} {archive} {part}")
        return str(done.stdout + done.stderr)

    return run


def identity(inventory: Inventory) -> str:
    """The escrow's private key, which create_secrets wrote."""
    path = Path(inventory.settings["secrets_path"]).parent / "ansible/escrow-identity.txt"
    return path.read_text().splitlines()[-1]


def manifest(with_key: Callable[..., str], part: str, key: str) -> dict[str, Any]:
    return dict(json.loads(with_key(part, f"print(b''.join(bucket.download('manifests/{key}.json')).decode())")))


def fault(host: Host, command: str, prefix: str = "") -> str:
    """The one sentence with which a command of the tool fails."""
    done = host.run(f"{prefix}{TOOL} {command}")
    assert done.rc == 1, done.stdout + done.stderr
    return str(done.stderr)


@contextmanager
def changed(host: Host, change: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
    """Another configuration of the tool, for the time of the block."""
    before = host.file(CONFIGURATION).content_string
    document = json.loads(before)
    change(document)
    write(host, CONFIGURATION, json.dumps(document).encode())
    try:
        yield
    finally:
        write(host, CONFIGURATION, before.encode())
        recover(host)


def recover(host: Host) -> None:
    """A good result again after a failed one."""
    host.check_output(f"{TOOL} verify-bucket config && {TOOL} run config")


def write(host: Host, path: str, content: bytes) -> None:
    host.check_output(f"printf %s {base64.b64encode(content).decode()} | base64 -d > {path}")


def test_the_files_of_the_host_are_in_the_bucket_and_the_escrow_decrypts_them(
    host: Host, name: str, with_key: Callable[..., str], inventory: Inventory
) -> None:
    status = json.loads(host.check_output(f"{TOOL} status"))
    assert status["findings"] == []
    key = status["results"]["config"]["newest"]["object"]
    described = manifest(with_key, "config", key)
    assert described["schema"] == 1
    assert (described["part"], described["environment"], described["host"]) == ("config", "test", name)
    assert (described["object"], described["requires"]) == (key, ["escrow identity"])
    assert described["address"] == inventory.address(name)
    encoded = with_key("config", f"import base64; print(base64.b64encode(b''.join(bucket.download('{key}'))).decode())")
    content = base64.b64decode(encoded)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (described["size_bytes"], described["sha256"])
    key_pair = pyrage.x25519.Identity.from_str(identity(inventory))
    write(host, "/root/config.tar.zst", pyrage.decrypt(content, [key_pair]))
    files = host.check_output("zstd --decompress --stdout /root/config.tar.zst | tar --list; rm /root/config.tar.zst")
    assert {"etc/rancher/rke2/config.yaml", "var/lib/rancher/rke2/server/token"} <= set(files.split())


def test_the_run_took_the_first_snapshot_of_etcd(host: Host, name: str, with_key: Callable[..., str]) -> None:
    newest = json.loads(host.check_output(f"{TOOL} status"))["results"]["etcd"]["newest"]["object"]
    assert newest.startswith(f"etcd/etcd-snapshot-{name}-")
    assert manifest(with_key, "etcd", newest)["software"] == {"rke2": "v1.36.3+rke2r1"}


def test_a_snapshot_of_etcd_gets_a_manifest_with_the_fingerprint_of_the_token(
    host: Host, name: str, with_key: Callable[..., str], inventory: Inventory
) -> None:
    file = f"etcd-snapshot-{name}-{int(time.time()) - 7200}"
    write(host, f"{SNAPSHOTS}/{file}", b"content of a snapshot")
    with_key("etcd", f"bucket.upload('etcd/{file}', [open('{SNAPSHOTS}/{file}', 'rb').read()])")
    host.check_output(f"{TOOL} run etcd")
    described = manifest(with_key, "etcd", f"etcd/{file}")
    token = inventory.secrets["rke2_token"]
    assert described["token_fingerprint"] == hashlib.sha256(token.encode()).hexdigest()[:16]
    assert described["sha256"] == hashlib.sha256(b"content of a snapshot").hexdigest()
    assert described["requires"] == ["rke2_token"]
    assert host.file(f"{SNAPSHOTS}/{file}").exists


@pytest.mark.parametrize(
    ("uploaded", "sentence"),
    [
        (b"", "the object has 0 bytes"),
        (b"content", "the object has 7 bytes, and the local snapshot 21"),
        (b"CONTENT of a snapshot", "the object differs from the local snapshot of the same size"),
        (None, "exists on this host and was not uploaded"),
    ],
    ids=["zero bytes", "truncated", "other content", "not uploaded"],
)
def test_a_bad_upload_is_reported(
    host: Host, name: str, with_key: Callable[..., str], uploaded: bytes | None, sentence: str
) -> None:
    file = f"etcd-snapshot-{name}-{int(time.time()) - 3600}"
    write(host, f"{SNAPSHOTS}/{file}", b"content of a snapshot")
    host.check_output(f"touch --date='1 hour ago' {SNAPSHOTS}/{file}")
    if uploaded is not None:
        with_key("etcd", f"bucket.upload('etcd/{file}', [{uploaded!r}])")
    try:
        found = fault(host, "run etcd")
        assert f"etcd/{file}" in found and sentence in found
        assert sentence in host.check_output(f"{TOOL} findings")
        assert 'slipway_snapshot_last_result{job="etcd"} 0' in host.check_output(
            "cat /var/lib/prometheus/node-exporter/slipway_snapshot.prom"
        )
    finally:
        host.check_output(f"rm {SNAPSHOTS}/{file}")
        with_key("etcd", f"bucket.delete('etcd/{file}')")
    host.check_output(f"{TOOL} run etcd")
    assert host.check_output(f"{TOOL} findings") == ""


def test_a_replaced_object_disagrees_with_its_manifest(host: Host, name: str, with_key: Callable[..., str]) -> None:
    file = f"on-demand-{name}-{int(time.time()) - 1800}.zip"
    with_key("etcd", f"bucket.upload('etcd/{file}', [b'first'])")
    host.check_output(f"{TOOL} run etcd")  # without a local file: downloaded
    with_key("etcd", f"bucket.upload('etcd/{file}', [b'other'])")
    assert f"etcd/{file}: its object was replaced after it was verified" in fault(host, "run etcd")
    with_key("etcd", f"bucket.delete('etcd/{file}')")
    assert f"etcd/{file}: its object was deleted" in fault(host, "run etcd")
    with_key("etcd", f"bucket.delete('manifests/etcd/{file}.json')")
    host.check_output(f"{TOOL} run etcd")


def test_a_wrong_access_key_is_reported(host: Host) -> None:
    with changed(host, lambda document: document["parts"]["config"].update(access_key="UNKNOWN")):
        assert "the store does not know the access key of this writer" in fault(host, "run config")
        assert "the bucket is not verified" in host.check_output(f"{TOOL} findings")


def test_a_wrong_secret_key_is_reported(host: Host) -> None:
    with changed(host, lambda document: document["parts"]["config"].update(secret_key="wrong")):
        assert "the secret key of this writer is wrong" in fault(host, "verify-bucket config")


def test_a_wrong_authority_is_reported(host: Host) -> None:
    with changed(host, lambda document: document["bucket"].update(ca_certificate="")):
        host.check_output("mv /etc/ssl/certs /etc/ssl/certs.away && mkdir /etc/ssl/certs")
        try:
            assert "the certificate of the store cannot be verified" in fault(host, "verify-bucket config")
        finally:
            host.check_output("rmdir /etc/ssl/certs && mv /etc/ssl/certs.away /etc/ssl/certs")


def test_a_missing_bucket_and_an_unreachable_store_are_reported(host: Host) -> None:
    with changed(host, lambda document: document["bucket"].update(name="absent")):
        assert "the bucket absent does not exist" in fault(host, "verify-bucket config")
    with changed(host, lambda document: document["bucket"].update(endpoint="https://127.0.0.1:1")):
        assert "the store cannot be reached" in fault(host, "verify-bucket config")


def test_a_clock_that_is_20_minutes_ahead_is_reported(host: Host) -> None:
    try:
        found = fault(host, "run config", "faketime -f +20m ")
    finally:
        recover(host)
    offset = re.search(r"the clock of this host differs from the store's by (\d+) s", found)
    assert offset is not None and int(offset[1]) in range(1190, 1210), found


def test_a_writer_is_limited_to_its_prefixes_and_deletes_no_version(with_key: Callable[..., str]) -> None:
    denied = "lacks a permission"
    assert denied in with_key("config", "bucket.upload('etcd/intruder', [b'x'])")
    assert denied in with_key("config", "bucket.upload('manifests/etcd/intruder.json', [b'x'])")
    assert denied in with_key("config", "bucket.list_objects('etcd/')")
    assert denied in with_key("etcd", "print(b''.join(bucket.download('manifests/config/x.json')))")
    version = with_key(
        "config",
        "print(bucket.store.request('PUT', bucket.path('config/version'), body=b'x').headers['x-amz-version-id'])",
    ).strip()
    assert "AccessDenied" in with_key(
        "config", f"bucket.store.request('DELETE', bucket.path('config/version'), {{'versionId': '{version}'}})"
    )
    with_key("config", "bucket.delete('config/version')")


def test_a_killed_run_is_a_finding_until_the_next_good_one(host: Host) -> None:
    host.check_output(f"SERVICE_RESULT=signal EXIT_CODE=killed EXIT_STATUS=KILL {TOOL} record-end config")
    assert "ended without a result (signal killed KILL)" in host.check_output(f"{TOOL} findings")
    host.check_output("systemctl start slipway-snapshot@config")
    assert host.check_output(f"{TOOL} findings") == ""


def test_the_data_of_ceph_is_in_the_bucket_and_can_be_imported(inventory: Inventory) -> None:
    store = inventory.host(inventory.group("object_storage")[0])
    rbd = f"cephadm shell --fsid {FSID} -- rbd"
    with store.sudo():
        archive = store.check_output(ARCHIVE)
        put = "bucket.store.request('PUT', '/canary/folder/object', body=b'content of the canary')"
        owner = {kind: inventory.secrets[f"object_storage_owner_{kind}"] for kind in ("access_key", "secret_key")}
        write(store, "/root/owner.json", json.dumps(owner).encode())
        store.check_output(f"python3 -c {shlex.quote(CLIENT + AS_OWNER + put)} {archive} ceph")
        store.check_output(f"rm /root/owner.json && {TOOL} run ceph")
        write(store, "/root/identity", identity(inventory).encode())
        for name in ("monitor", "bucket-canary", "image-trial-canary"):
            source = f"""
manifests, _ = bucket.manifests('ceph/{name}-')
key = max(manifests)
assert bucket.digest(key) == manifests[key].sha256
open('/root/{name}.age', 'wb').write(b''.join(bucket.download(key)))
"""
            store.check_output(f"python3 -c {shlex.quote(CLIENT + source)} {archive} ceph")
            store.check_output(
                f"age --decrypt --identity /root/identity /root/{name}.age | zstd --decompress --force -o /root/{name}"
            )
        assert "mon/store.db/CURRENT" in store.check_output("tar --list --gzip --file /root/monitor")
        extract = "tar --extract --to-stdout --file /root/bucket-canary folder/object"
        assert store.check_output(extract) == "content of the canary"
        store.check_output(f"{rbd} import --no-progress --export-format 2 - trial/restored < /root/image-trial-canary")
        assert json.loads(store.check_output(f"{rbd} info --format json trial/restored"))["size"] == 8 << 20
        assert json.loads(store.check_output(f"{rbd} snap ls --format json trial/canary")) == []
        store.check_output(f"{rbd} snap purge --no-progress trial/restored && {rbd} rm --no-progress trial/restored")
        store.check_output("rm /root/*.age /root/identity /root/monitor /root/bucket-canary /root/image-trial-canary")


def test_the_timers_run(host: Host) -> None:
    timers = host.check_output("systemctl list-timers --no-legend 'slipway-snapshot-*'")
    assert "slipway-snapshot-etcd.timer" in timers and "slipway-snapshot-config.timer" in timers


def run(playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """An operation on the inventory of the scenarios."""
    return subprocess.run(
        ["ansible-playbook", playbook, "-i", "molecule/inventory", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_listing_shows_what_exists_and_fails_for_what_is_missing(name: str) -> None:
    done = run("playbooks/operations/list_snapshots.yml")
    shown = " ".join(done.stdout.split())
    assert done.returncode == 2, done.stdout + done.stderr
    report = json.loads((REPOSITORY / "artifacts/test/snapshots.json").read_text())
    rows = {(row["part"], row["host"] or row["newest"]): row for row in report["snapshots"]}
    assert (rows["config", name]["manifest"], rows["config", name]["missing"]) == ("ok", "")
    assert rows["config", name]["newest"] in shown
    assert report["not_backed_up"] == ["rancher", "volumes"]
    assert report["findings"] == [
        f"{part} test-rke2-server-{number}: there is no snapshot" for part in ("etcd", "config") for number in (2, 3)
    ] + ["postgresql: there is no snapshot"]
    assert "config test-rke2-server-2: there is no snapshot" in shown


def test_the_escrow_is_one_file_that_only_its_private_key_opens(inventory: Inventory, tmp_path: Path) -> None:
    path = tmp_path / "escrow.age"
    done = run("playbooks/operations/export_escrow.yml", "-e", f"op_export_escrow_path={path}")
    assert done.returncode == 0, done.stdout + done.stderr
    secrets = yaml.safe_load(pyrage.decrypt(path.read_bytes(), [pyrage.x25519.Identity.from_str(identity(inventory))]))
    assert secrets["rke2_token"] == inventory.secrets["rke2_token"]
    assert inventory.secrets["rke2_token"] not in path.read_text() + done.stdout
    before = path.read_bytes()
    again = run("playbooks/operations/export_escrow.yml", "-e", f"op_export_escrow_path={path}")
    assert again.returncode == 2 and "which exists" in " ".join(again.stdout.split())
    assert path.read_bytes() == before
