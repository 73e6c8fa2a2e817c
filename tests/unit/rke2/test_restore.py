"""Decisions of a restore of etcd: the snapshot that is accepted, the target, and where an interrupted run resumes."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.filter import rke2 as filters
from ansible_collections.slipway.platform.plugins.module_utils import rke2_plan, rke2_restore
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Entry, S3Error
from ansible_collections.slipway.platform.plugins.modules import rke2_restore_snapshot, rke2_restore_step

SERVERS = ["s1", "s2", "s3"]
VERSION, TOKEN = "v1.36.3+rke2r1", "secret"
NAME = "etcd-snapshot-s1-1700000000"
NOW = "2026-11-30T10:00:00Z"


def snapshot(data: bytes = b"x" * 1024) -> bytes:
    """A file as etcd writes it: pages, then their digest."""
    return data + hashlib.sha256(data).digest()


def zipped(content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, content)
    return target.getvalue()


CONTENT = snapshot()


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "part": "etcd",
        "environment": "prod",
        "object": f"etcd/{NAME}",
        "size_bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "created": "2026-11-30T09:00:00Z",
        "host": "s1",
        "software": {"rke2": VERSION},
        "token_fingerprint": rke2_restore.fingerprints(TOKEN)[0],
    } | changes


def parameters(**changes: Any) -> dict[str, Any]:
    return {
        "snapshot": NAME,
        "file": None,
        "endpoint": "https://s3.example.com",
        "region": "default",
        "bucket": "backup",
        "ca_certificate": "",
        "access_key": "access",
        "secret_key": "key",
        "environment_name": "prod",
        "version": VERSION,
        "token_fingerprints": list(rke2_restore.fingerprints(TOKEN)),
        "servers": SERVERS,
        "without_manifest": False,
    } | changes


def verified(content: bytes = CONTENT, document: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    text = None if document is None else json.dumps(document).encode()
    return rke2_restore_snapshot.verify(parameters(**changes), NAME, content, text)


def test_a_complete_snapshot_of_this_environment_is_accepted() -> None:
    assert verified(document=manifest()) == manifest()


def test_a_compressed_snapshot_is_read_through_the_archive() -> None:
    assert rke2_restore.content_fault(zipped(CONTENT), f"{NAME}.zip") == ""
    fault = rke2_restore.content_fault(zipped(CONTENT[:-1]), f"{NAME}.zip")
    assert "is truncated or damaged" in fault
    assert "is not a complete zip file" in rke2_restore.content_fault(zipped(CONTENT)[:-30], f"{NAME}.zip")


@pytest.mark.parametrize(
    ("content", "document", "message"),
    [
        (b"", manifest(), "is empty (0 bytes)"),
        (b"", None, "is empty (0 bytes)"),
        (CONTENT[:512], manifest(), "has 512 bytes, and its manifest 1056; it is truncated"),
        (snapshot(b"y" * 1024), manifest(), "its SHA-256 is "),
        (CONTENT, None, "has no manifest, so its environment, token and version are unknown"),
        (CONTENT, manifest(schema=2), "its manifest has schema 2, and this version reads 1"),
        (CONTENT, manifest(environment="stage"), "is a snapshot of environment stage, and this one is prod"),
        (CONTENT, manifest(software={"rke2": "v1.36.4+rke2r1"}), "newer than rke2_version v1.36.3+rke2r1"),
        (CONTENT, manifest(software={}), "its manifest has no valid version of RKE2"),
        (CONTENT, manifest(token_fingerprint="0123456789abcdef"), "was taken under another token (fingerprint 0123"),
    ],
)
def test_another_snapshot_is_rejected(content: bytes, document: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(rke2_restore_snapshot.SnapshotError) as caught:
        verified(content, document)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"s3://backup/etcd/{NAME}: ")


def test_all_faults_of_a_snapshot_are_reported_at_once() -> None:
    with pytest.raises(rke2_restore_snapshot.SnapshotError) as caught:
        verified(CONTENT[:512], manifest(environment="stage", token_fingerprint="0"))
    assert len(str(caught.value).splitlines()) == 3


def test_without_a_manifest_a_snapshot_is_restored_only_when_that_is_requested() -> None:
    assert verified(without_manifest=True) == {}
    with pytest.raises(rke2_restore_snapshot.SnapshotError, match="is truncated or damaged"):
        verified(CONTENT[:-1], without_manifest=True)


def test_a_file_of_a_server_needs_no_manifest() -> None:
    path = f"/snapshots/{NAME}"
    assert verified(file=path) == {}
    with pytest.raises(rke2_restore_snapshot.SnapshotError, match="has no manifest"):
        verified(file=path, servers=["other"])
    assert rke2_restore.of_servers("before-change-s1-1700000000.zip", SERVERS)
    assert not rke2_restore.of_servers("before-change-dev-s1x-1700000000", SERVERS)


def test_a_file_is_read_with_the_manifest_beside_it(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(CONTENT)
    assert rke2_restore_snapshot.from_file(path) == (NAME, CONTENT, None)
    Path(f"{path}.json").write_text("{}")
    assert rke2_restore_snapshot.from_file(path) == (NAME, CONTENT, b"{}")
    with pytest.raises(rke2_restore_snapshot.SnapshotError, match="No such file"):
        rke2_restore_snapshot.from_file(tmp_path / "absent")


def test_a_token_has_the_fingerprint_of_its_password_in_either_form() -> None:
    password = hashlib.sha256(b"secret").hexdigest()[:16]
    assert rke2_restore.fingerprints("secret\n") == (password,)
    assert rke2_restore.fingerprints("K10ab::server:secret")[0] == password
    assert filters.token_fingerprints("secret") == [password]


class FakeStore:
    """A bucket in memory; an error instead of an answer where one is set."""

    endpoint = "https://s3.example.com"

    def __init__(self, objects: dict[str, bytes], error: S3Error | None = None) -> None:
        self.objects, self.error = objects, error

    def download(self, path: str) -> list[bytes]:
        if self.error:
            raise self.error
        key = path.removeprefix("/backup/")
        if key not in self.objects:
            raise S3Error(f"GET {path}: 404 NoSuchKey", 404, "NoSuchKey")
        return [self.objects[key]]

    def list_objects(self, bucket: str, prefix: str) -> list[Entry]:
        if self.error:
            raise self.error
        keys = [key for key in sorted(self.objects) if key.startswith(prefix)]
        return [Entry(key, len(self.objects[key]), "", f"2026-11-{10 + i}") for i, key in enumerate(keys)]


def with_store(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(rke2_restore_snapshot, "Store", lambda *given, **options: FakeStore(*arguments))


def test_latest_is_the_newest_object_with_a_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {
        "etcd/a": b"1",
        "etcd/b": b"2",
        "etcd/c": b"3",
        "manifests/etcd/a.json": b"{}",
        "manifests/etcd/b.json": b"[]",
    }
    with_store(monkeypatch, objects)
    assert rke2_restore_snapshot.from_bucket(parameters(snapshot="latest")) == ("b", b"2", b"[]")
    assert rke2_restore_snapshot.from_bucket(parameters(snapshot="c")) == ("c", b"3", None)


@pytest.mark.parametrize(
    ("name", "objects", "message"),
    [
        ("latest", {}, "has 0 objects and no manifest for any of them"),
        ("latest", {"etcd/a": b"1"}, "has 1 objects and no manifest for any of them"),
        ("a", {"etcd/b": b"1"}, "s3://backup/etcd/a: does not exist"),
    ],
)
def test_a_missing_object_is_rejected(
    monkeypatch: pytest.MonkeyPatch, name: str, objects: dict[str, bytes], message: str
) -> None:
    with_store(monkeypatch, objects)
    with pytest.raises(rke2_restore_snapshot.SnapshotError) as caught:
        rke2_restore_snapshot.from_bucket(parameters(snapshot=name))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            S3Error("https://s3: no answer (Connection refused)"),
            "unreachable (https://s3: no answer (Connection refused))",
        ),
        (S3Error("no answer ([SSL: CERTIFICATE_VERIFY_FAILED])"), "its certificate is not signed by the configured"),
        (S3Error("403", 403, "InvalidAccessKeyId"), "rejects the access key (InvalidAccessKeyId)"),
        (S3Error("403", 403, "SignatureDoesNotMatch"), "rejects the access key (SignatureDoesNotMatch)"),
        (S3Error("400", 400, "ExpiredToken"), "rejects the access key (ExpiredToken)"),
        (S3Error("403", 403, "RequestTimeTooSkewed"), "rejects the clock of this server"),
        (S3Error("404", 404, "NoSuchBucket"), "the bucket does not exist"),
        (S3Error("503 SlowDown", 503, "SlowDown"), "503 SlowDown. Correct the cause"),
    ],
)
def test_a_store_that_cannot_be_read_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, error: S3Error, message: str
) -> None:
    with_store(monkeypatch, {}, error)
    with pytest.raises(rke2_restore_snapshot.SnapshotError) as caught:
        rke2_restore_snapshot.from_bucket(parameters(snapshot="latest"))
    assert str(caught.value).startswith("s3://backup at https://s3.example.com: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"access_key": ""}, "no bucket or no access key"),
        ({"ca_certificate": "no PEM"}, "platform_object_storage_ca_certificate: is not a certificate"),
    ],
)
def test_an_incomplete_configuration_of_the_bucket_is_rejected(changes: dict[str, str], message: str) -> None:
    with pytest.raises(rke2_restore_snapshot.SnapshotError) as caught:
        rke2_restore_snapshot.from_bucket(parameters(**changes))
    assert message in str(caught.value)


# --- target and progress ---------------------------------------------------------------------------------------------


def request(**changes: Any) -> dict[str, Any]:
    return {"environment": "prod", "snapshot": "latest", "file": "", "reset_only": False, "host": ""} | changes


def host(**changes: Any) -> dict[str, Any]:
    return {"record": None, "has_data": True, "quorum": True, "raft_index": 7, "file_exists": False} | changes


def record(step: str, **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "request": request(),
        "snapshot": {"path": "/x"},
        "target": "s1",
        "started_at": "2026-11-30T08:00:00Z",
        "step": step,
        "previous": "",
    } | changes


def plan(wanted: dict[str, Any], **hosts: dict[str, Any]) -> dict[str, Any]:
    return rke2_restore.plan(wanted, {name: host() for name in SERVERS} | hosts, SERVERS, NOW)


LOST = {"quorum": False, "has_data": False, "raft_index": None}
FILE = request(snapshot="", file="/x")
RESET = request(snapshot="", reset_only=True)


@pytest.mark.parametrize(
    ("wanted", "hosts", "target"),
    [
        (request(), {}, "s1"),
        (request(host="s3"), {}, "s3"),
        (FILE, {"s2": host(file_exists=True)}, "s2"),
        (RESET, {"s1": host(**LOST), "s2": host(quorum=False), "s3": host(**LOST)}, "s2"),
        (RESET, {"s1": host(quorum=False), "s2": host(quorum=False, raft_index=9), "s3": host(**LOST)}, "s2"),
    ],
)
def test_the_target_of_a_new_restore(wanted: dict[str, Any], hosts: dict[str, Any], target: str) -> None:
    planned = plan(wanted, **hosts)
    assert (planned["faults"], planned["target"], planned["started_at"]) == ([], target, NOW)
    assert not planned["resumed"]


@pytest.mark.parametrize(
    ("wanted", "hosts", "message"),
    [
        (request(host="s9"), {}, "op_restore_etcd_host: s9 is not a server. Name one of s1, s2, s3."),
        (FILE, {}, "op_restore_etcd_file: /x is not a file on any server"),
        (FILE | {"host": "s1"}, {"s2": host(file_exists=True)}, "/x is not a file on s1. It is on s2."),
        (RESET, {"s3": host(**LOST)}, "etcd has a quorum on s1, s2, so no reset is needed"),
        (RESET, {name: host(**LOST) for name in SERVERS}, "no server holds data of etcd. Restore a snapshot."),
        (
            RESET | {"host": "s1"},
            {"s1": host(**LOST), "s2": host(quorum=False), "s3": host(**LOST)},
            "op_restore_etcd_host: s1 holds no data of etcd. Name one of s2.",
        ),
        (
            RESET,
            {"s1": host(quorum=False), "s2": host(quorum=False, raft_index=None), "s3": host(**LOST)},
            "s1, s2 hold data, and etcd does not answer on s2",
        ),
    ],
)
def test_a_restore_without_a_clear_target_is_rejected(
    wanted: dict[str, Any], hosts: dict[str, Any], message: str
) -> None:
    (fault,) = plan(wanted, **hosts)["faults"]
    assert message in fault


def test_every_server_has_to_be_read() -> None:
    planned = rke2_restore.plan(request(), {"s1": host()}, SERVERS, NOW)
    assert planned["faults"] == ["s2, s3: not read in this run. Run without --limit; a restore needs every server."]


def test_the_same_request_resumes_an_unfinished_restore_with_its_snapshot_and_target() -> None:
    planned = plan(request(), s1=host(record=record("reset")), s2=host(record=record("moved")))
    assert planned == {
        "faults": [],
        "target": "s1",
        "started_at": "2026-11-30T08:00:00Z",
        "snapshot": {"path": "/x"},
        "resumed": True,
        "steps": {"s1": "reset", "s2": "moved", "s3": "none"},
    }
    assert filters.restore_record(planned, request(), planned["snapshot"], "s3")["step"] == "recorded"
    assert filters.restore_record(planned, request(), planned["snapshot"], "s1")["step"] == "reset"


def test_a_run_that_was_killed_while_it_recorded_the_end_resumes_there() -> None:
    planned = plan(request(), s1=host(record=record("finished")), s2=host(record=record("moved")))
    assert (planned["resumed"], planned["steps"]["s1"]) == (True, "finished")


def test_a_finished_restore_is_not_resumed() -> None:
    planned = plan(request(), **{name: host(record=record("finished")) for name in SERVERS})
    assert (planned["resumed"], planned["started_at"]) == (False, NOW)
    assert set(planned["steps"].values()) == {"none"}


def test_another_request_is_rejected_while_a_restore_is_unfinished() -> None:
    (fault,) = plan(request(snapshot="other"), s2=host(record=record("stopped")))["faults"]
    assert fault.startswith(
        "s2: snapshot latest of 2026-11-30T08:00:00Z is unfinished, and this run requests snapshot other."
    )
    (fault,) = plan(RESET, s2=host(record=record("stopped", request=FILE)))["faults"]
    assert "s2: /x of 2026-11-30T08:00:00Z is unfinished, and this run requests a reset without a snapshot" in fault


def test_unfinished_restores_of_different_times_are_rejected() -> None:
    (fault,) = plan(request(), s1=host(record=record("moved")), s2=host(record=record("moved", started_at=NOW)))[
        "faults"
    ]
    assert "started at different times" in fault


@pytest.mark.parametrize(
    ("step", "current", "is_pending"),
    [
        ("stopped", "recorded", True),
        ("moved", "stopped", True),
        ("moved", "moved", False),
        ("reset", "moved", True),
        ("stopped", "reset", False),
        ("finished", "moved", True),
        ("finished", "finished", False),
    ],
)
def test_a_completed_step_is_not_repeated(step: str, current: str, is_pending: bool) -> None:
    assert rke2_restore.pending(step, current) is is_pending


# --- other runs while a restore is unfinished ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "joins"),
    [
        ({"s1": "reset", "s2": "moved", "s3": "moved"}, True),
        ({"s1": "finished", "s2": "moved", "s3": "finished"}, True),
        ({"s1": "reset", "s2": "moved"}, True),
        ({"s1": "moved", "s2": "moved", "s3": "moved"}, False),
        ({"s1": "reset", "s2": "stopped", "s3": "moved"}, False),
        ({"s2": "moved"}, False),
    ],
)
def test_other_runs_join_servers_only_to_a_restored_one(steps: dict[str, str], joins: bool) -> None:
    faults = rke2_plan.restore_faults({name: {"restore": record(step)} for name, step in steps.items()})
    assert (faults == []) is joins
    assert joins or "playbooks/operations/restore_etcd.yml again with the same options" in faults[0]


def test_a_server_without_a_restore_has_no_fault() -> None:
    assert rke2_plan.restore_faults({"s1": {"restore": None}, "a1": {}}) == []


# --- objects of the restored cluster ---------------------------------------------------------------------------------


def test_only_former_servers_are_removed() -> None:
    def node(name: str, **labels: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "labels": labels}}

    server = {"node-role.kubernetes.io/etcd": "true"}
    assert rke2_restore.stale_nodes([node("old", **server), node("s1", **server), node("agent")], SERVERS) == ["old"]


def test_secrets_with_passwords_of_nodes() -> None:
    names = ["s2.node-password.rke2", "s1.node-password.rke2", "rke2-serving"]
    assert rke2_restore.password_secrets([{"metadata": {"name": name}} for name in names]) == sorted(names)[1:]


# --- the data directory ----------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rke2_restore_step, "DATABASE", tmp_path)
    (tmp_path / "etcd/member").mkdir(parents=True)
    (tmp_path / "etcd/name").write_text("old")
    return tmp_path


@pytest.mark.parametrize("copy", [False, True])
def test_the_previous_data_directory_is_kept_and_never_replaced(database: Path, copy: bool) -> None:
    previous = database / "etcd-before-restore-20261130T080000Z"
    assert rke2_restore_step.move(record("stopped"), copy=copy) == str(previous)
    assert (database / "etcd").exists() is copy
    (database / "etcd").mkdir(exist_ok=True)
    (database / "etcd/name").write_text("half restored")
    assert rke2_restore_step.move(record("stopped"), copy=copy) == str(previous)
    assert (previous / "name").read_text() == "old"


def test_a_new_server_has_no_previous_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rke2_restore_step, "DATABASE", tmp_path)
    assert rke2_restore_step.move(record("stopped"), copy=False) == ""


def test_a_copy_that_was_interrupted_is_repeated(database: Path) -> None:
    part = database / ".etcd-before-restore-20261130T080000Z"
    part.mkdir()
    (part / "partial").write_text("")
    previous = Path(rke2_restore_step.move(record("stopped"), copy=True))
    assert sorted(path.name for path in previous.iterdir()) == ["member", "name"]
    assert not part.exists()


def test_etcd_ends_in_order_before_its_processes_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other programs named etcd, such as a drill's, none is ended."""
    config = f"--config-file={rke2_restore_step.DATABASE / 'etcd/config'}"
    commands = {
        "11": ["etcd", config],
        "12": ["etcd", "--data-dir", "/tmp/drill"],
        "13": ["tail", config],
        "x": ["etcd"],
    }
    for name, words in commands.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cmdline").write_text("\0".join([*words, ""]))
    assert rke2_restore_step.etcd_processes(tmp_path) == [11]
    events: list[str] = []
    running = [[11], [11], []]  # to signal, running, ended
    monkeypatch.setattr(rke2_restore_step, "etcd_processes", lambda: running.pop(0))
    monkeypatch.setattr(rke2_restore_step.os, "kill", lambda number, name: events.append(f"{name.name} {number}"))
    monkeypatch.setattr("ansible_collections.slipway.platform.plugins.module_utils.waiting.time.sleep", lambda _: None)
    monkeypatch.setattr(rke2_restore_step, "read_service", lambda unit: {"found": unit == rke2_restore_step.UNIT})
    monkeypatch.setattr(rke2_restore_step, "KILLALL", str(tmp_path))
    monkeypatch.setattr(rke2_restore_step, "run", lambda *command, timeout=0: events.append(" ".join(command)))
    rke2_restore_step.stop()
    assert events == ["systemctl disable --now rke2-server.service", "SIGTERM 11", str(tmp_path)]
