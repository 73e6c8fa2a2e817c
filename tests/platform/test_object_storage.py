"""The S3 features that the platform needs, on the object storage for backups and on its own object gateways.

With boto3, and with rclone. From the network of a host of the platform, so that names, firewalls and trust are those of
its services.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import SSLError
from hcloud import Client

from lab.machines import namespaces
from lab.settings import Settings
from tests.platform.conftest import REPOSITORY, play
from tests.platform.object_storage import PARTS_BYTES, Endpoint, Keys, empty, refused

STORE, CLIENT_HOST = "lab-store-1", "lab-rke2-server-1"
GATEWAY_PORT = 7480
GATEWAYS = ("10.90.1.51", "10.90.1.52")
GIGABYTE = 1024**3
LOCK_SECONDS = 15


def settings_of_lab() -> dict[str, Any]:
    files = [REPOSITORY / "inventories/lab/group_vars/all" / name for name in ("defaults.yml", "platform.yml")]
    return {name: value for file in files for name, value in yaml.safe_load(file.read_text()).items()}


@pytest.fixture(scope="module")
def secrets(description: dict[str, Any]) -> dict[str, str]:
    return dict(yaml.safe_load(Path(description["secrets_path"]).read_text()))


@pytest.fixture(scope="module")
def owner(secrets: dict[str, str]) -> Keys:
    return Keys(secrets["object_storage_owner_access_key"], secrets["object_storage_owner_secret_key"])


@pytest.fixture(scope="module")
def writer(secrets: dict[str, str]) -> Keys:
    return Keys(secrets["object_storage_access_key"], secrets["object_storage_secret_key"])


@pytest.fixture(scope="module")
def ca_path(secrets: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "platform.pem"
    path.write_text(secrets["platform_ca_certificate"].strip() + "\n")
    return path


def public_address(cloud: Client, name: str) -> str:
    server = cloud.servers.get_by_name(name)
    assert server is not None, f"{name} does not exist"
    return str(server.public_net.ipv4.ip)


def on(cloud: Client, description: dict[str, Any], name: str, *command: str, input: str = "") -> str:
    """Output of a command on a host, as root."""
    done = subprocess.run(
        [
            "ssh", "-i", description["ssh_private_key_path"], "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR", f"slipway@{public_address(cloud, name)}",
            "sudo", *command,
        ],
        input=input, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def namespace(cloud: Client, settings: Settings) -> str:
    server = cloud.servers.get_by_name(CLIENT_HOST)
    assert server is not None
    return settings.host_namespace(server.id)


@pytest.fixture(scope="module")
def store(cloud: Client, ca_path: Path, owner: Keys, namespace: str) -> Endpoint:
    return Endpoint(
        name=f"s3.{settings_of_lab()['platform_domain']}",
        address=public_address(cloud, STORE),
        port=443,
        ca_path=ca_path,
        namespace=namespace,
        owner=owner,
        multipart_bytes=GIGABYTE,
    )


@pytest.fixture(scope="module")
def gateway(cloud: Client, description: dict[str, Any], ca_path: Path, namespace: str) -> Iterator[Endpoint]:
    """The platform's own gateways, with a user for the duration of these tests."""
    admin = ["python3", "/usr/local/sbin/cephadm", "shell", "--", "radosgw-admin"]
    name = f"conformance-{uuid.uuid4().hex[:8]}"
    made = on(
        cloud, description, "lab-ceph-1",
        *admin, "user", "create", f"--uid={name}", "--display-name=conformance",
    )  # fmt: skip
    keys = json.loads(made)["keys"][0]
    yield Endpoint(
        name=f"rgw.{settings_of_lab()['platform_domain']}",
        address=GATEWAYS[0],
        port=GATEWAY_PORT,
        ca_path=ca_path,
        namespace=namespace,
        owner=Keys(keys["access_key"], keys["secret_key"]),
        multipart_bytes=2 * PARTS_BYTES,
    )
    on(cloud, description, "lab-ceph-1", *admin, "user", "rm", f"--uid={name}", "--purge-data")


@pytest.fixture(params=["store", "gateway"])
def endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    made: Endpoint = request.getfixturevalue(request.param)
    with made.accessed(monkeypatch):
        yield made


@pytest.fixture
def client(endpoint: Endpoint) -> Any:
    return endpoint.client()


@pytest.fixture
def bucket(client: Any) -> Iterator[str]:
    name = f"conformance-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    yield name
    empty(client, name)


@pytest.fixture
def accessed_store(store: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with store.accessed(monkeypatch):
        yield store


# names and trust


@pytest.mark.parametrize("name", [CLIENT_HOST, STORE, "lab-lb-1"])
def test_hosts_resolve_the_name_of_the_store(
    cloud: Client, description: dict[str, Any], store: Endpoint, name: str
) -> None:
    found = on(cloud, description, name, "getent", "ahostsv4", store.name)
    assert {line.split()[0] for line in found.splitlines()} == {store.address}


def test_hosts_resolve_one_name_to_both_gateways(cloud: Client, description: dict[str, Any]) -> None:
    found = on(cloud, description, CLIENT_HOST, "getent", "ahostsv4", f"rgw.{settings_of_lab()['platform_domain']}")
    assert {line.split()[0] for line in found.splitlines()} == set(GATEWAYS)


def test_the_certificate_is_not_valid_for_another_authority(endpoint: Endpoint, description: dict[str, Any]) -> None:
    other = Path(description["ca_certificate_path"])
    with pytest.raises(ssl.SSLCertVerificationError):
        endpoint.handshake(other)
    with pytest.raises(SSLError):
        endpoint.client(verify=str(other)).list_buckets()


def test_only_tls_13_is_accepted(endpoint: Endpoint) -> None:
    assert endpoint.handshake(endpoint.ca_path) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        endpoint.handshake(endpoint.ca_path, maximum_version=ssl.TLSVersion.TLSv1_2)


# signatures


def test_signatures_are_checked(endpoint: Endpoint) -> None:
    endpoint.client().list_buckets()
    right = endpoint.owner
    assert refused(endpoint.client(Keys(right.access_key, right.secret_key[::-1])).list_buckets) == (
        "SignatureDoesNotMatch"
    )
    assert refused(endpoint.client(Keys("NOBODY", right.secret_key)).list_buckets) == "InvalidAccessKeyId"


def test_a_presigned_url_gets_and_puts_one_object(endpoint: Endpoint, client: Any, bucket: str) -> None:
    context = ssl.create_default_context(cafile=str(endpoint.ca_path))

    def request_status(method: str, url: str, data: bytes | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "text/plain"})
        if data is None:
            request.remove_header("Content-type")
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""

    thing = {"Bucket": bucket, "Key": "by link"}
    typed = thing | {"ContentType": "text/plain"}
    assert request_status("PUT", client.generate_presigned_url("put_object", typed, ExpiresIn=60), b"hello")[0] == 200
    # CVE-2026-54330: headers that the signature does not cover are rejected.
    assert request_status("PUT", client.generate_presigned_url("put_object", thing, ExpiresIn=60), b"other")[0] == 403
    link = client.generate_presigned_url("get_object", thing, ExpiresIn=60)
    assert request_status("GET", link) == (200, b"hello")
    assert request_status("GET", link.replace("by%20link", "another"))[0] == 403
    assert request_status("GET", link.partition("?")[0])[0] == 403
    short = client.generate_presigned_url("get_object", thing, ExpiresIn=1)
    time.sleep(2.5)
    assert request_status("GET", short)[0] == 403


# objects


def test_a_multipart_upload_is_read_back_unchanged(endpoint: Endpoint, client: Any, bucket: str) -> None:
    """Generated during the upload, with one part in memory at a time."""
    block = os.urandom(1024**2)
    digest = hashlib.sha256()
    upload = client.create_multipart_upload(Bucket=bucket, Key="large")["UploadId"]
    parts = []
    for number in range(1, endpoint.multipart_bytes // PARTS_BYTES + 1):
        part = b"".join(index.to_bytes(8, "big") + block[8:] for index in range(PARTS_BYTES // len(block)))
        part = number.to_bytes(8, "big") + part[8:]
        digest.update(part)
        answer = client.upload_part(Bucket=bucket, Key="large", UploadId=upload, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(Bucket=bucket, Key="large", UploadId=upload, MultipartUpload={"Parts": parts})
    there = client.get_object(Bucket=bucket, Key="large")
    assert there["ContentLength"] == endpoint.multipart_bytes
    back = hashlib.sha256()
    for piece in iter(lambda: there["Body"].read(8 * 1024**2), b""):
        back.update(piece)
    assert back.digest() == digest.digest()


def test_an_aborted_upload_leaves_nothing(client: Any, bucket: str) -> None:
    upload = client.create_multipart_upload(Bucket=bucket, Key="aborted")["UploadId"]
    client.upload_part(Bucket=bucket, Key="aborted", UploadId=upload, PartNumber=1, Body=b"x" * 5_242_880)
    client.abort_multipart_upload(Bucket=bucket, Key="aborted", UploadId=upload)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    assert refused(client.get_object, Bucket=bucket, Key="aborted") == "NoSuchKey"


def test_noncurrent_versions_are_retained(client: Any, bucket: str) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = client.put_object(Bucket=bucket, Key="a", Body=b"first")["VersionId"]
    second = client.put_object(Bucket=bucket, Key="a", Body=b"second")["VersionId"]
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"second"
    assert client.get_object(Bucket=bucket, Key="a", VersionId=first)["Body"].read() == b"first"
    assert client.delete_object(Bucket=bucket, Key="a")["DeleteMarker"] is True
    assert refused(client.get_object, Bucket=bucket, Key="a") == "NoSuchKey"
    versions = client.list_object_versions(Bucket=bucket)["Versions"]
    assert [entry["VersionId"] for entry in versions] == [second, first]
    assert client.get_object(Bucket=bucket, Key="a", VersionId=second)["Body"].read() == b"second"


def test_a_locked_version_cannot_be_deleted_by_its_owner(client: Any) -> None:
    name = f"conformance-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    until = datetime.now(UTC) + timedelta(seconds=LOCK_SECONDS)
    version = client.put_object(
        Bucket=name, Key="a", Body=b"kept", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until
    )["VersionId"]
    thing = {"Bucket": name, "Key": "a", "VersionId": version}
    assert refused(client.delete_object, **thing) == "AccessDenied"
    assert refused(client.delete_object, **thing, BypassGovernanceRetention=True) == "AccessDenied"
    shorter = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(seconds=1)}
    assert refused(client.put_object_retention, **thing, Retention=shorter) in ("AccessDenied", "InvalidRequest")
    assert client.get_object(**thing)["Body"].read() == b"kept"
    # Only the expiry of the retention ends the lock.
    time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()) + 1)
    empty(client, name)


def test_a_lifecycle_is_stored_unchanged(client: Any, bucket: str) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    rule = {
        "ID": "old",
        "Status": "Enabled",
        "Filter": {"Prefix": "a/"},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 3},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2},
    }
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    (kept,) = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert rule.items() <= kept.items()


def test_another_client_uploads_and_downloads(endpoint: Endpoint, bucket: str, tmp_path: Path) -> None:
    """rclone, which has its own S3, TLS and resolver."""
    source, target = tmp_path / "source", tmp_path / "target"
    for name, size in (("small", 10), ("deep/large", 24 * 1024**2)):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    keys = endpoint.owner
    there = {
        "RCLONE_CONFIG_THERE_TYPE": "s3",
        "RCLONE_CONFIG_THERE_PROVIDER": "Ceph",
        "RCLONE_CONFIG_THERE_ENDPOINT": endpoint.url,
        "RCLONE_CONFIG_THERE_ACCESS_KEY_ID": keys.access_key,
        "RCLONE_CONFIG_THERE_SECRET_ACCESS_KEY": keys.secret_key,
        "RCLONE_CA_CERT": str(endpoint.ca_path),
        "RCLONE_RETRIES": "1",
    }

    def rclone(*arguments: str) -> str:
        options = ["--s3-upload-cutoff=16M", "--s3-chunk-size=8M", "--s3-no-check-bucket"]
        done = endpoint.run(["rclone", *options, *arguments], tmp_path, **there)
        assert done.returncode == 0, done.stderr
        return done.stdout

    rclone("copy", str(source), f"there:{bucket}/copied")
    rclone("check", "--download", str(source), f"there:{bucket}/copied")
    rclone("copy", f"there:{bucket}/copied", str(target))
    for path in ("small", "deep/large"):
        assert (target / path).read_bytes() == (source / path).read_bytes()
    there["RCLONE_CONFIG_THERE_SECRET_ACCESS_KEY"] = keys.secret_key[::-1]
    done = endpoint.run(["rclone", "--low-level-retries=1", "lsd", "there:"], tmp_path, **there)
    assert done.returncode != 0 and "SignatureDoesNotMatch" in done.stderr


# the platform's own gateways


def test_a_certificate_is_renewed_without_interruption(gateway: Endpoint) -> None:
    """A client that tries the other gateway after a failure always gets an answer."""
    ends = [replace(gateway, address=address) for address in GATEWAYS]
    failures: list[str] = []
    answers: list[float] = []
    stop = threading.Event()

    def serial(end: Endpoint) -> str:
        context = ssl.create_default_context(cafile=str(end.ca_path))
        with (
            socket.create_connection((end.address, end.port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=end.name) as channel,
        ):
            channel.sendall(f"GET / HTTP/1.1\r\nHost: {end.name}\r\nConnection: close\r\n\r\n".encode())
            assert channel.recv(4096).startswith(b"HTTP/1.1 200 ")
            shown = channel.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])

    def poll() -> None:
        while not stop.is_set():
            errors = []
            for end in ends:
                try:
                    serial(end)
                    answers.append(time.monotonic())
                    break
                except (OSError, AssertionError) as error:
                    errors.append(f"{end.address}: {error!r}")
            else:
                failures.append("; ".join(errors))
            time.sleep(0.2)

    def read_serials() -> list[str]:
        return namespaces.inside(gateway.namespace, lambda: [serial(end) for end in ends])

    before = read_serials()
    thread = threading.Thread(target=lambda: namespaces.inside(gateway.namespace, poll))
    thread.start()
    try:
        run = play("-e", '{"ceph_object_gateway_certificate_renew_days": 366}', playbook="playbooks/ceph.yml")
    finally:
        stop.set()
        thread.join()
    assert run.code == 0, run.excerpt
    after = read_serials()
    assert len(set(before)) == len(set(after)) == 1, "all gateways have the same certificate"
    assert set(before) != set(after)
    assert len(answers) > 20
    assert failures == []
    longest = max(late - early for early, late in itertools.pairwise(answers))
    print(f"{len(answers)} answers during the renewal; longest time without an answer: {longest:.1f} s")


# the bucket of the backups


@pytest.fixture(scope="module")
def backups() -> str:
    return str(settings_of_lab()["platform_object_storage_bucket"]).replace("{{ platform_environment }}", "lab")


def test_the_backups_bucket_is_as_declared(accessed_store: Endpoint, backups: str) -> None:
    client, settings = accessed_store.client(), settings_of_lab()
    assert client.get_bucket_versioning(Bucket=backups)["Status"] == "Enabled"
    lock = client.get_object_lock_configuration(Bucket=backups)["ObjectLockConfiguration"]
    assert lock["Rule"]["DefaultRetention"] == {
        "Mode": settings["platform_object_storage_lock_mode"],
        "Days": settings["platform_object_storage_lock_days"],
    }
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket=backups)["Rules"]
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == settings["platform_object_storage_expire_days"]


def test_no_key_deletes_a_version_of_a_backup(accessed_store: Endpoint, backups: str, writer: Keys) -> None:
    """The writer puts, gets and lists; neither the writer nor the owner can delete a version."""
    writing, owning = accessed_store.client(writer), accessed_store.client()
    key = f"postgresql/conformance/{uuid.uuid4().hex}"  # the prefix that this writer is limited to
    version = writing.put_object(Bucket=backups, Key=key, Body=b"canary")["VersionId"]
    assert writing.get_object(Bucket=backups, Key=key)["Body"].read() == b"canary"
    assert [entry["Key"] for entry in writing.list_objects_v2(Bucket=backups, Prefix=key)["Contents"]] == [key]
    thing = {"Bucket": backups, "Key": key, "VersionId": version}
    for client in (writing, owning):
        assert refused(client.delete_object, **thing) == "AccessDenied"
        assert refused(client.delete_object, **thing, BypassGovernanceRetention=True) == "AccessDenied"
    # Backup tools delete old backups by name, which adds a delete marker and keeps every version.
    assert writing.delete_object(Bucket=backups, Key=key)["DeleteMarker"] is True
    writing.put_object(Bucket=backups, Key=key, Body=b"overwritten")
    assert writing.get_object(**thing)["Body"].read() == b"canary"


def test_the_writer_cannot_change_the_bucket(accessed_store: Endpoint, backups: str, writer: Keys) -> None:
    client = accessed_store.client(writer)
    rule = {"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    open_to_all = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{backups}/*"},
    ]}  # fmt: skip
    calls = [
        (client.put_bucket_versioning, {"VersioningConfiguration": {"Status": "Suspended"}}),
        (client.put_bucket_lifecycle_configuration, {"LifecycleConfiguration": {"Rules": [rule]}}),
        (client.put_bucket_policy, {"Policy": json.dumps(open_to_all)}),
        (client.delete_bucket_policy, {}),
        (client.put_object_lock_configuration, {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}),
        (client.delete_bucket, {}),
    ]
    assert {refused(call, Bucket=backups, **arguments) for call, arguments in calls} == {"AccessDenied"}
    assert refused(client.create_bucket, Bucket=f"conformance-{uuid.uuid4().hex[:12]}") in (
        "AccessDenied", "TooManyBuckets",
    )  # fmt: skip


def test_object_storage_has_no_drift() -> None:
    run = play("--check", "--diff", playbook="playbooks/object_storage.yml")
    assert run.code == 0, run.excerpt
    assert run.changed == {}, run.excerpt
