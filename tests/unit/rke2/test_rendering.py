"""config.yaml and the files of the role, rendered by Ansible with and without a bucket for snapshots."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.playbooks import REPOSITORY, run_playbook

ROLE = REPOSITORY / "roles/rke2"
CONFIG, AUTHORITY = "/etc/rancher/rke2/config.yaml", "/etc/rancher/rke2/etcd-s3-ca.pem"
INPUTS = {
    "rke2_token": "server-token",
    "rke2_agent_token": "agent-token",
    "rke2_node_ip": "10.0.0.1",
    "rke2_servers": ["s1"],
    "rke2_registration_address": "10.0.0.10",
    "rke2_node_name": "s1",
}
BUCKET = {"endpoint": "https://s3.example.com:8443", "region": "fsn1", "name": "backup", "ca_certificate": "PEM\n"}
KEYS = {"rke2_etcd_s3_access_key": "access", "rke2_etcd_s3_secret_key": "key of the writer"}
CASES: dict[str, dict[str, Any]] = {
    "none": {"rke2_type": "server"},
    "bucket": {"rke2_type": "server", "rke2_etcd_s3_bucket": BUCKET, **KEYS},
    "public": {
        "rke2_type": "server",
        "rke2_etcd_s3_bucket": BUCKET | {"ca_certificate": "", "folder": "other", "bucket_lookup": "dns"},
        **KEYS,
    },
    "agent": {"rke2_type": "agent", "rke2_etcd_s3_bucket": BUCKET, **KEYS},
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, Any]]]:
    """Case → path → the file with mode and content."""
    folder = tmp_path_factory.mktemp("rke2")
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), *map(str, sorted((ROLE / "vars/main").glob("*.yml")))],
        "tasks": [
            {
                "ansible.builtin.copy": {"content": "{{ __rke2_files | to_json }}", "dest": f"{folder}/{name}.json"},
                "vars": INPUTS | case,
            }
            for name, case in CASES.items()
        ],
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    code, output = run_playbook(folder, "localhost,", folder / "play.yml")
    assert code == 0, output
    files = {name: json.loads((folder / f"{name}.json").read_text()) for name in CASES}
    return {name: {file["path"]: file for file in entries} for name, entries in files.items()}


def config(files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return dict(yaml.safe_load(files[CONFIG]["content"]))


def test_without_a_bucket_snapshots_stay_on_the_servers(rendered: dict[str, Any]) -> None:
    settings = config(rendered["none"])
    assert {key: settings[key] for key in settings if key.startswith("etcd-")} == {
        "etcd-arg": ["heartbeat-interval=100", "election-timeout=1000"],
        "etcd-snapshot-compress": True,
        "etcd-snapshot-name": "etcd-snapshot",
        "etcd-snapshot-retention": 12,
        "etcd-snapshot-schedule-cron": "0 */6 * * *",
    }
    assert rendered["none"][AUTHORITY]["content"] == ""


def test_snapshots_are_uploaded_with_the_key_of_the_writer(rendered: dict[str, Any]) -> None:
    settings = config(rendered["bucket"])
    assert {key: settings[key] for key in settings if key.startswith("etcd-s3")} == {
        "etcd-s3": True,
        "etcd-s3-access-key": "access",
        "etcd-s3-bucket": "backup",
        "etcd-s3-bucket-lookup-type": "path",
        "etcd-s3-endpoint": "s3.example.com:8443",
        "etcd-s3-endpoint-ca": AUTHORITY,
        "etcd-s3-folder": "etcd",
        "etcd-s3-region": "fsn1",
        "etcd-s3-retention": 120,
        "etcd-s3-secret-key": "key of the writer",
    }
    assert rendered["bucket"][AUTHORITY]["content"] == "PEM\n"


def test_a_public_authority_needs_no_file(rendered: dict[str, Any]) -> None:
    settings = config(rendered["public"])
    assert "etcd-s3-endpoint-ca" not in settings
    assert (settings["etcd-s3-folder"], settings["etcd-s3-bucket-lookup-type"]) == ("other", "dns")


def test_the_key_is_for_root_only_and_in_one_file_of_a_server(rendered: dict[str, Any]) -> None:
    assert rendered["bucket"][CONFIG]["mode"] == rendered["bucket"][AUTHORITY]["mode"] == "0600"
    for case in CASES:
        holders = [path for path, file in rendered[case].items() if KEYS["rke2_etcd_s3_secret_key"] in file["content"]]
        assert holders == ([CONFIG] if case in ("bucket", "public") else [])


def test_a_change_of_the_bucket_restarts_a_server(rendered: dict[str, Any]) -> None:
    assert rendered["bucket"][CONFIG]["restart"] and rendered["bucket"][AUTHORITY]["restart"]
