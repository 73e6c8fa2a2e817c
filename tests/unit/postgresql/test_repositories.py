"""pgBackRest's configuration as Ansible writes it, with one bucket and with two."""

from __future__ import annotations

import configparser
import json
import subprocess
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
FIRST = {"endpoint": "https://s3.example.net", "region": "fsn1", "name": "backup", "ca_certificate": ""}
SECOND = {"endpoint": "https://other.example.org:9000", "region": "eu", "name": "copy", "ca_certificate": "PEM",
          "path": "/db", "uri_style": "host", "retention_days": 90}  # fmt: skip


def rendered(folder: Path, **more: Any) -> configparser.SectionProxy:
    role = REPOSITORY / "roles/postgresql_backup"
    values = {
        "postgresql_backup_version": "17",
        "postgresql_backup_bucket": FIRST,
        "postgresql_backup_access_key": "WRITER",
        "postgresql_backup_secret_key": "secret of the writer",
        "postgresql_backup_passphrase": "passphrase",
        **more,
    }
    play = [
        {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars_files": [str(role / "defaults/main.yml"), str(role / "vars/main.yml")],
            "tasks": [
                {
                    "name": "Render",
                    "ansible.builtin.template": {
                        "src": str(role / "templates/etc/pgbackrest/pgbackrest.conf.j2"),
                        "dest": str(folder / "pgbackrest.conf"),
                        "mode": "0600",
                    },
                }
            ],
        }
    ]
    (folder / "play.yml").write_text(json.dumps(play))
    subprocess.run(
        ["ansible-playbook", folder / "play.yml", "-i", "localhost,", "-e", json.dumps(values)],
        cwd=REPOSITORY, check=True, capture_output=True, timeout=120,
        env={"PATH": f"{REPOSITORY}/.venv/bin:/usr/bin:/bin", "HOME": str(folder), "SLIPWAY_ARTIFACTS": str(folder)},
    )  # fmt: skip
    read = configparser.ConfigParser(interpolation=None)
    read.read(folder / "pgbackrest.conf")
    assert dict(read["main"])["pg1-path"] == "/var/lib/postgresql/17/main"
    assert dict(read["global:archive-get"]) == {"archive-async": "n"}
    return read["global"]


def test_one_bucket(tmp_path: Path) -> None:
    found = rendered(tmp_path)
    assert found["repo1-s3-endpoint"] == "s3.example.net" and found["repo1-storage-port"] == "443"
    assert found["repo1-cipher-type"] == "aes-256-cbc" and found["repo1-cipher-pass"] == "passphrase"
    assert found["repo1-retention-full-type"] == "time" and found["repo1-retention-full"] == "30"
    assert found["repo1-storage-ca-file"] == "/etc/ssl/certs/ca-certificates.crt"
    assert found["archive-async"] == "y" and "archive-push-queue-max" not in found
    assert not [name for name in found if name.startswith("repo2-")]


def test_a_second_bucket_gets_the_same(tmp_path: Path) -> None:
    found = rendered(
        tmp_path,
        postgresql_backup_second_bucket=SECOND,
        postgresql_backup_second_access_key="OTHER",
        postgresql_backup_second_secret_key="secret of the other",
    )
    for option in ("cipher-type", "cipher-pass", "bundle", "block"):
        assert found[f"repo2-{option}"] == found[f"repo1-{option}"]
    assert found["repo2-s3-endpoint"] == "other.example.org" and found["repo2-storage-port"] == "9000"
    assert found["repo2-s3-key"] == "OTHER" and found["repo1-s3-key"] == "WRITER"
    assert found["repo2-path"] == "/db" and found["repo2-s3-uri-style"] == "host"
    assert found["repo2-retention-full"] == "90"
    assert found["repo2-storage-ca-file"] == "/etc/pgbackrest/bucket-2.crt"
