"""Reading of systemd, files, kubeconfigs, nodes, members and snapshots."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import rke2_read, rke2_snapshots
from ansible_collections.slipway.platform.plugins.module_utils.rke2_plan import CORDON_ANNOTATION

INVOCATION = "0123456789abcdef0123456789abcdef"
SHOW = """LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
InvocationID=0123456789abcdef0123456789abcdef
ExecMainStartTimestamp=Sat 2026-11-21 05:26:12.279818 UTC
NRestarts=2
"""


def test_a_running_service() -> None:
    assert rke2_read.parse_service(SHOW) == {
        "found": True,
        "state": "active",
        "sub_state": "running",
        "enabled": True,
        "invocation": INVOCATION,
        "started_at": 1795238772.279818,
        "restarts": 2,
    }


def test_a_unit_that_does_not_exist() -> None:
    service = rke2_read.parse_service("LoadState=not-found\nActiveState=inactive\nSubState=dead\nNRestarts=0\n")
    assert (service["found"], service["state"], service["started_at"]) == (False, "inactive", 0.0)


def desired(path: Path, content: str, mode: str = "0600", restart: bool = True) -> dict[str, Any]:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"path": str(path), "sha256": digest, "mode": mode, "restart": restart}


def test_without_a_record_files_that_differ_or_are_newer_than_the_process_are_stale(tmp_path: Path) -> None:
    newer, other, mode, manifest, absent = (
        tmp_path / name for name in ("newer", "other", "mode", "manifest", "absent")
    )
    for path in (newer, other, mode, manifest):
        path.write_text("x")
        path.chmod(0o600)
        os.utime(path, (100, 100))
    mode.chmod(0o644)
    os.utime(newer, (300, 300))
    files = [
        desired(newer, "x"),
        desired(other, "y"),
        desired(mode, "x"),
        desired(manifest, "y", restart=False),
        desired(absent, "x"),
    ]
    different, stale = rke2_read.read_files(files, 200.0, {})
    assert different == [str(path) for path in (other, mode, manifest, absent)]
    assert stale == [str(newer), str(other), str(absent)]
    _, stale = rke2_read.read_files(files, 0.0, {})
    assert stale == [str(other), str(absent)], "nothing is newer than a process that does not run"


@pytest.mark.parametrize(
    ("recorded", "on_disk", "restart_needed"),
    [
        ("x", "x", False),
        # Changed and changed back: the file is newer than the process, which still runs with the same content.
        ("x", "y", False),
        # Changed to the desired content by hand, or by a run that was interrupted before the restart.
        ("y", "x", True),
        ("y", "y", True),
        # Written with an old time, as a restored backup is.
        ("y", None, True),
    ],
)
def test_a_restart_is_needed_by_the_content_the_process_was_started_with(
    tmp_path: Path, recorded: str, on_disk: str | None, restart_needed: bool
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(on_disk or "x")
    path.chmod(0o600)
    os.utime(path, (300, 300) if on_disk else (1, 1))
    started = {str(path): hashlib.sha256(recorded.encode()).hexdigest()}
    _, stale = rke2_read.read_files([desired(path, "x")], 200.0, started)
    assert stale == ([str(path)] if restart_needed else [])


def test_a_record_is_valid_for_the_start_that_wrote_it() -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    record = f"{INVOCATION}\n{digest}  /etc/rancher/rke2/config.yaml\n{digest[:20]}"
    assert rke2_read.parse_started(record, INVOCATION) == {"/etc/rancher/rke2/config.yaml": digest}
    assert rke2_read.parse_started(record, "f" * 32) == {}
    # A unit without an invocation ID, and one that does not pass the ID to its commands.
    assert rke2_read.parse_started("\n" + record, "") == {}
    assert rke2_read.parse_started("\n" + record, INVOCATION) == {}
    assert rke2_read.parse_started("", INVOCATION) == {}


def test_a_token_is_the_same_in_both_its_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rke2_read, "DATA", tmp_path)
    assert rke2_read.read_token() == ""
    (tmp_path / "server").mkdir()
    (tmp_path / "server/token").write_text("K1012ab::server:secret\n")
    assert rke2_read.read_token() == rke2_read.token_digest("secret") == hashlib.sha256(b"secret").hexdigest()


def test_a_partly_unpacked_release_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, binary = tmp_path / "marker", tmp_path / "rke2"
    monkeypatch.setattr(rke2_read, "INSTALLED", marker)
    monkeypatch.setattr(rke2_read, "BINARY", binary)
    assert rke2_read.read_installed() is None
    binary.write_text("")
    assert rke2_read.read_installed() is None
    marker.write_text("v1.36.3+rke2r1\n")
    assert rke2_read.read_installed() == "v1.36.3+rke2r1"
    os.utime(marker, (1, 1))
    assert rke2_read.read_installed() is None


def test_kubeconfigs_with_data_and_with_paths(tmp_path: Path) -> None:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    (tmp_path / "key").write_text("KEY")
    text = f"""apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {encoded("CA")}
    server: https://127.0.0.1:6443
  name: default
users:
- name: default
  user:
    client-certificate-data: {encoded("CERT")}
    client-key: {tmp_path / "key"}
"""
    assert rke2_read.parse_kubeconfig(text) == {
        "server": "https://127.0.0.1:6443",
        "certificate-authority": "CA",
        "client-certificate": "CERT",
        "client-key": "KEY",
        "tls-server-name": "",
    }
    named = text.replace("  name: default\nusers", "    tls-server-name: api.test\n  name: default\nusers")
    assert rke2_read.parse_kubeconfig(named)["tls-server-name"] == "api.test"
    with pytest.raises(rke2_read.ReadError, match="no server"):
        rke2_read.parse_kubeconfig("apiVersion: v1")


def test_fields_of_a_node() -> None:
    view = rke2_read.node_view(
        {
            "metadata": {"name": "s1", "annotations": {CORDON_ANNOTATION: "true"}},
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "EtcdIsVoter", "status": "False"}],
                "nodeInfo": {"kubeletVersion": "v1.36.3+rke2r1"},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "s1"}],
            },
        }
    )
    assert view == {
        "ready": True,
        "version": "v1.36.3+rke2r1",
        "unschedulable": True,
        "cordoned_by_role": True,
        "etcd_voter": False,
        "addresses": ["10.0.0.1"],
    }
    assert rke2_read.node_view({"metadata": {"name": "s1"}})["ready"] is False


def test_members_of_etcd() -> None:
    response = rke2_read.parse_members(
        '{"header":{"cluster_id":"17"},"members":[{"ID":"1","name":"s1-0123abcd","clientURLs":["https://10.0.0.1:2379"]},'
        '{"ID":"2","isLearner":true}]}'
    )
    assert response["cluster_id"] == "17"
    assert [(m["name"], m["learner"]) for m in response["members"]] == [("s1-0123abcd", False), ("", True)]


def test_alarms_of_etcd() -> None:
    members = [{"id": "1", "name": "s1-0123abcd"}, {"id": "2", "name": ""}]
    text = '{"alarms":[{"memberID":"1","alarm":"NOSPACE"},{"memberID":"2","alarm":"CORRUPT"},{"alarm":"NOSPACE"}]}'
    assert rke2_read.parse_alarms(text, members) == [
        {"member": "s1-0123abcd", "alarm": "NOSPACE"},
        {"member": "2", "alarm": "CORRUPT"},
        {"member": "", "alarm": "NOSPACE"},
    ]
    assert rke2_read.parse_alarms("{}", members) == []


def test_etcd_is_read_linearizably_and_a_response_without_a_quorum_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "server/tls/etcd"
    folder.mkdir(parents=True)
    for name in ("server-ca.crt", "client.crt", "client.key"):
        (folder / name).write_text("")
    requests: list[tuple[str, Any]] = []
    responses = {"/v3/cluster/member/list": (200, '{"header":{"cluster_id":"17"},"members":[{"ID":"1","name":"s1"}]}')}

    def respond(url: str, context: Any, path: str, *, body: Any, timeout: float) -> tuple[int, str]:
        requests.append((path, body))
        return responses.get(path, (200, '{"alarms":[{"memberID":"1","alarm":"NOSPACE"}]}'))

    monkeypatch.setattr(rke2_read, "DATA", tmp_path)
    monkeypatch.setattr(rke2_read, "tls_context", lambda *pems: SimpleNamespace(set_alpn_protocols=lambda names: None))
    monkeypatch.setattr(rke2_read, "request", respond)
    found = rke2_read.read_etcd()
    assert requests == [
        ("/v3/cluster/member/list", {"linearizable": True}),
        ("/v3/maintenance/alarm", {"action": "GET"}),
    ]
    assert (found["error"], found["alarms"]) == (None, [{"member": "s1", "alarm": "NOSPACE"}])
    responses["/v3/cluster/member/list"] = (503, "no leader")
    assert rke2_read.read_etcd()["error"] == "port 2382 returned 503; port 2379 returned 503"


@pytest.mark.parametrize(
    ("text", "size"), [(5, 5), ("5242912", 5242912), ("5Mi", 5 * 2**20), ("1.5Ki", 1536), ("2k", 2000)]
)
def test_sizes(text: int | str, size: int) -> None:
    assert rke2_snapshots.parse_quantity(text) == size


LIST = """{"kind":"ETCDSnapshotFileList","items":[
 {"spec":{"snapshotName":"before-change-s1-1700000000","nodeName":"s1","location":"file:///a"},
  "status":{"size":"7Mi","readyToUse":true}},
 {"spec":{"snapshotName":"etcd-snapshot-s1-1","nodeName":"s1","location":"file:///b"},"status":{"size":"7Mi"}}]}"""


def test_a_listed_snapshot_is_usable() -> None:
    after = rke2_snapshots.parse_list(LIST)
    found = rke2_snapshots.find_new([], after, "before-change", "s1")
    assert (found["name"], found["size"]) == ("before-change-s1-1700000000", 7 * 2**20)


@pytest.mark.parametrize("text", ["", "null", "[]", '{"items":null}'])
def test_an_empty_list(text: str) -> None:
    assert rke2_snapshots.parse_list(text) == []


def test_a_missing_or_empty_snapshot_is_not_usable() -> None:
    after = rke2_snapshots.parse_list(LIST)
    with pytest.raises(ValueError, match="has no new entry"):
        rke2_snapshots.find_new(after, after, "before-change", "s1")
    with pytest.raises(ValueError, match="0 bytes"):
        rke2_snapshots.find_new([], [after[0] | {"size": 0}], "before-change", "s1")


def uploaded(**changes: Any) -> list[dict[str, Any]]:
    local, _ = rke2_snapshots.parse_list(LIST)
    return [local, local | {"node": "s3", "location": "s3://backup/etcd/before-change-s1-1700000000"} | changes]


@pytest.mark.parametrize(
    ("after", "fault"),
    [
        (uploaded(), ""),
        (uploaded()[:1], "is not in bucket backup"),
        (uploaded(ready=False), "is not in bucket backup"),
        (uploaded(location="s3://other/etcd/before-change-s1-1700000000"), "is not in bucket backup"),
        (uploaded(size=0), "has 0 bytes in bucket backup and 7340032 on the server"),
        (uploaded(size=5), "has 5 bytes in bucket backup and 7340032 on the server"),
    ],
)
def test_a_snapshot_has_to_be_in_the_bucket_with_its_size(after: list[dict[str, Any]], fault: str) -> None:
    found = rke2_snapshots.upload_fault(after[0], after, "backup")
    assert fault in found and bool(found) is bool(fault)


def test_the_reason_of_a_failed_upload_is_the_last_error_about_s3_in_the_log() -> None:
    log = (
        'level=info msg="Saving snapshot"\nlevel=error msg="S3: first"\n'
        'level=error msg="Error received during snapshot upload to S3: Access Denied"\nlevel=error msg="other"\n'
    )
    assert rke2_snapshots.upload_error(log) == (
        'level=error msg="Error received during snapshot upload to S3: Access Denied"'
    )
    assert rke2_snapshots.upload_error('level=info msg="S3 upload complete"') == ""


def test_immutable_settings_of_a_configuration() -> None:
    config = "cluster-cidr: 10.42.0.0/16\ncluster-domain: 'cluster.local'\ncni:\n- canal\ntoken: secret\n"
    assert rke2_read.parse_immutable_settings(config) == {
        "cluster-cidr": "10.42.0.0/16",
        "cluster-domain": "cluster.local",
        "cni": "canal",
    }
