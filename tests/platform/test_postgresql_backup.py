"""The database when its host, its bucket or its secrets are lost or damaged: what comes back, and who says so."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hcloud import Client

from lab.settings import Settings
from tests.platform.conftest import ARTIFACTS
from tests.platform.database import (
    CLIENT,
    DATABASE,
    TOOL,
    Site,
    acknowledged,
    grows,
    keep,
    load,
    there,
)
from tests.platform.object_storage import Endpoint, Keys, refused
from tests.support.deadlines import until

STORE = "lab-store-1"
BUCKET = "lab-backup"
LONGEST_LOSS_SECONDS = 120
"""A segment leaves each minute; this is for a machine that is busy otherwise."""


@pytest.fixture(scope="module")
def site(cloud: Client, description: dict[str, Any]) -> Site:
    return Site(cloud, description)


@pytest.fixture(scope="module")
def secrets(description: dict[str, Any]) -> dict[str, str]:
    return dict(yaml.safe_load(Path(description["secrets_path"]).read_text()))


@dataclass
class Bucket:
    """The bucket as a host of the platform meets it, with the keys that the database has."""

    endpoint: Endpoint
    monkeypatch: pytest.MonkeyPatch

    def request(self, call: Callable[[Any], Any]) -> Any:
        """What a client there says; only meanwhile is this thread in the network of that host."""
        with self.endpoint.accessed(self.monkeypatch):
            return call(self.endpoint.client())


@pytest.fixture
def bucket(
    site: Site, secrets: dict[str, str], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bucket:
    client, server = site.cloud.servers.get_by_name(CLIENT), site.cloud.servers.get_by_name(STORE)
    assert client is not None and server is not None
    ca_path = tmp_path / "platform.pem"
    ca_path.write_text(secrets["platform_ca_certificate"].strip() + "\n")
    endpoint = Endpoint(
        name=site.connection()["host"].replace("postgresql.", "s3."),
        address=str(server.public_net.ipv4.ip),
        port=443,
        ca_path=ca_path,
        namespace=settings.host_namespace(client.id),
        owner=Keys(secrets["object_storage_access_key"], secrets["object_storage_secret_key"]),
        multipart_bytes=0,
    )
    return Bucket(endpoint, monkeypatch)


def newest(site: Site) -> dict[str, Any]:
    return dict(json.loads(site.on(DATABASE, f"{TOOL} status"))["backups"][-1])


def timeline(site: Site) -> int:
    return int(site.query("SELECT timeline_id FROM pg_control_checkpoint()"))


def test_a_lost_host_comes_back_from_the_bucket(site: Site, cloud: Client) -> None:
    """The machine and its volume are destroyed while rows are written; one command creates both again."""
    before = timeline(site)
    with load(site, writers=2) as rows:
        until(lambda: site.archived(), 60)
        grows(rows, 20)
        server = cloud.servers.get_by_name(DATABASE)
        assert server is not None
        volumes = [volume for volume in cloud.volumes.get_all() if volume.server and volume.server.id == server.id]
        server.delete().wait_until_finished()
        lost_at = time.time()
        for volume in volumes:
            with contextlib.suppress(Exception):
                cloud.volumes.detach(volume).wait_until_finished()
            assert cloud.volumes.delete(volume)
    run = site.played(
        "operations/restore_postgresql",
        op_restore_postgresql_host=DATABASE,
        op_restore_postgresql_target="latest",
        op_restore_postgresql_new_host=True,
    )
    noted, found = acknowledged(site), there(site)
    last = max(moment for number, moment in noted.items() if number in found)
    keep("RTO, seconds from the command to a server with a fresh backup", run.report["seconds"])
    keep("RPO, seconds of acknowledged rows that are lost", round(lost_at - last, 1))
    assert lost_at - last < LONGEST_LOSS_SECONDS
    assert [number for number, moment in noted.items() if moment < last - 1 and number not in found] == []
    assert timeline(site) > before
    assert newest(site)["type"] == "full" and newest(site)["stop"] > lost_at
    assert site.archived()


@pytest.mark.soak
def test_a_damaged_backup_is_found_and_what_it_was_before_is_restored(site: Site, bucket: Bucket) -> None:
    """A byte of the newest backup changes. The lock keeps what was there, and a moment is restored through it."""
    thing = {"Bucket": BUCKET, "Key": f"postgresql/backup/main/{newest(site)['label']}/bundle/1"}

    def read(client: Any) -> tuple[bytes, str]:
        there = client.get_object(**thing)
        return there["Body"].read(), there["VersionId"]

    def put(body: bytes) -> None:
        bucket.request(lambda client: client.put_object(**thing, Body=body))

    content, version = bucket.request(read)
    assert bucket.request(lambda client: refused(client.delete_object, **thing, VersionId=version)) == "AccessDenied"
    site.query("DROP TABLE IF EXISTS moments; CREATE TABLE moments (name text); INSERT INTO moments VALUES ('before')")
    undamaged = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    time.sleep(2)
    middle = len(content) // 2
    damaged = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    put(damaged)
    try:
        answer = site.run(DATABASE, f"{TOOL} verify")
        assert (
            answer.code == 1 and "repository 1: objects are damaged" in answer.output and "invalid" in answer.output
        ), answer.output
        drill = site.play("operations/drill_postgresql")
        assert drill.code != 0 and "the restore drill failed" in drill.output, drill.excerpt
        assert "an object in the bucket is damaged" in drill.output, drill.excerpt
        answer = site.run(DATABASE, f"{TOOL} findings")
        assert "the last drill failed" in answer.output and "the last verify failed" in answer.output
        assert site.on(DATABASE, "ls /var/lib/postgresql/17").split() == ["main"], "a drill leaves traces"

        moment, before = site.now(), timeline(site)
        time.sleep(1)
        site.query("INSERT INTO moments VALUES ('after')")
        run = site.played(
            "operations/restore_postgresql",
            op_restore_postgresql_host=DATABASE,
            op_restore_postgresql_target=moment,
            op_restore_postgresql_options=[f"--repository-time={undamaged}"],
        )
    finally:
        put(content)
    keep("RTO to a named second in place, seconds", run.report["seconds"])
    assert site.query("SELECT string_agg(name, ' ') FROM moments") == "before"
    assert timeline(site) > before
    assert site.archived()
    assert newest(site)["type"] == "full"
    previous = site.on(DATABASE, "ls -d /var/lib/postgresql/17/main.before-*").split()
    assert len(previous) == 1, "what was there is kept"
    site.on(DATABASE, f"rm -rf {previous[0]}")


def test_a_drill_verifies_the_latest(site: Site) -> None:
    site.on(DATABASE, f"{TOOL} heartbeat")
    assert site.archived()
    reports = set((ARTIFACTS / "drill_postgresql").glob("*/drill.json"))
    site.played("operations/drill_postgresql")
    (report,) = set((ARTIFACTS / "drill_postgresql").glob("*/drill.json")) - reports
    found = json.loads(report.read_text())
    assert found["ok"] and found["amcheck"] == found["checksums"] == "ok" and found["pages"] > 1000
    assert 0 <= found["rpo_seconds"] < LONGEST_LOSS_SECONDS
    keep("RPO of a drill, seconds", found["rpo_seconds"])
    keep("RTO of a drill, seconds", found["rto_seconds"])
    metrics = site.on(DATABASE, "cat /var/lib/prometheus/node-exporter/slipway_postgresql.prom")
    assert f"slipway_postgresql_drill_rto_seconds {found['rto_seconds']}" in metrics
    assert site.on(DATABASE, "ls /var/lib/postgresql/17").split() == ["main"]
    assert site.on(DATABASE, f"{TOOL} verify && {TOOL} findings").strip() == ""


def test_a_target_out_of_reach_is_refused_and_nothing_is_touched(site: Site) -> None:
    started = site.query("SELECT pg_postmaster_start_time()")
    early = (datetime.now(UTC) - timedelta(days=9)).isoformat(sep=" ", timespec="seconds")
    for target, why in ((early, "the oldest backup ended at"), ("2026-11-21 10:00:00", "has no zone")):
        answer = site.run(DATABASE, f"{TOOL} target '{target}'")
        assert answer.code == 1 and why in answer.output
    run = site.play(
        "operations/restore_postgresql",
        op_restore_postgresql_host=DATABASE,
        op_restore_postgresql_target="name:nobody-made-it",
    )
    assert run.code != 0 and "name:nobody-made-it cannot be reached" in run.text
    assert site.query("SELECT pg_postmaster_start_time()") == started
    assert site.on(DATABASE, "ls /var/lib/postgresql/17").split() == ["main"]


def previous_databases(site: Site) -> list[str]:
    return site.query("SELECT datname FROM pg_database WHERE datname LIKE 'app_before_%'").splitlines()


@pytest.mark.soak
def test_one_database_comes_back_while_the_others_go_on(site: Site) -> None:
    started = site.query("SELECT pg_postmaster_start_time()")
    site.query("DROP TABLE IF EXISTS moments; CREATE TABLE moments (name text); INSERT INTO moments VALUES ('before')")
    known = set(previous_databases(site))
    restore_point = datetime.now(UTC)
    site.query("SELECT pg_create_restore_point('whole')")
    site.query("DROP TABLE moments")
    site.on(DATABASE, f"{TOOL} heartbeat")  # of the running server, and not of what is restored
    reports = set((ARTIFACTS / "restore_postgresql").glob("*.json"))
    site.played(
        "operations/restore_postgresql",
        op_restore_postgresql_host=DATABASE,
        op_restore_postgresql_target="name:whole",
        op_restore_postgresql_database="app",
    )
    assert site.query("SELECT name FROM moments") == "before"
    assert site.query("SELECT pg_postmaster_start_time()") == started
    (report,) = set((ARTIFACTS / "restore_postgresql").glob("*.json")) - reports
    assert datetime.fromisoformat(json.loads(report.read_text())["newest_row"]) < restore_point
    previous = sorted(set(previous_databases(site)) - known)
    assert len(previous) == 1, "what was there is kept"
    site.query(f'DROP DATABASE "{previous[0]}"', "postgres")


@pytest.mark.soak
def test_a_wrong_passphrase_is_reported_and_archiving_catches_up(site: Site) -> None:
    site.query("DROP TABLE IF EXISTS moments; CREATE TABLE moments (name text)")
    run = site.play("postgresql", postgresql_backup_passphrase="0123456789" * 7)
    assert run.code != 0 and "the passphrase differs" in run.text, run.excerpt
    site.query("INSERT INTO moments VALUES ('meanwhile')")
    site.query("SELECT pg_switch_wal()")
    until(lambda: site.query("SELECT failed_count > 0 FROM pg_stat_archiver") == "t", 90)
    site.played("postgresql")
    assert site.archived()
    assert site.query("SELECT name FROM moments") == "meanwhile"


@pytest.mark.soak
def test_an_unreachable_bucket_is_reported_and_archiving_catches_up(site: Site) -> None:
    server = site.cloud.servers.get_by_name(STORE)
    assert server is not None
    address = str(server.public_net.ipv4.ip)
    site.query("SELECT pg_stat_reset_shared('archiver')")
    site.on(DATABASE, f"ip route add unreachable {address}")
    try:
        answer = site.run(DATABASE, f"{TOOL} status")
        assert "cannot be reached from here" in answer.output or "does not answer" in answer.output, answer.output
        site.query("INSERT INTO moments VALUES ('while it was away')")
        site.query("SELECT pg_switch_wal()")
        until(lambda: site.query("SELECT failed_count > 0 FROM pg_stat_archiver") == "t", 120)
    finally:
        site.on(DATABASE, f"ip route del unreachable {address}")
    assert site.archived()
    assert site.query("SELECT last_archived_time > last_failed_time FROM pg_stat_archiver") == "t"


@pytest.mark.soak
def test_a_full_volume_is_reported_and_nothing_is_lost(site: Site) -> None:
    """The server stops rather than lose something, says why, and returns by itself when there is room again."""
    with load(site, writers=2) as rows:
        site.on(
            DATABASE,
            "fallocate --length $(($(df --output=avail --block-size=1 /var/lib/postgresql | tail -n 1) - 4000000)) "
            "/var/lib/postgresql/ballast",
        )
        try:
            site.run(DATABASE, "for i in $(seq 60); do psql -U postgres -c 'SELECT pg_switch_wal()' || break; done")
            until(
                lambda: "MB free" in site.on(DATABASE, "journalctl --unit postgresql@17-main --since -2min --no-pager"),
                60,
            )
        finally:
            site.on(DATABASE, "rm -f /var/lib/postgresql/ballast")
        grows(rows, 20)
    assert set(acknowledged(site)) - there(site) == set()
    assert site.archived()


@pytest.mark.soak
def test_an_expired_certificate_is_reported_and_renewed(site: Site, secrets: dict[str, str]) -> None:
    until(lambda: site.run(DATABASE, "pg_isready --quiet --username=postgres").code == 0, 60)
    path = "/etc/postgresql-common/slipway/server.crt"
    present = x509.load_pem_x509_certificate(site.on(DATABASE, f"cat {path}").encode())
    key = serialization.load_pem_private_key(secrets["platform_ca_private_key"].encode(), None)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(present.subject)
        .issuer_name(present.issuer)
        .public_key(present.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now - timedelta(days=1))
    )
    for extension in present.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    expired = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    site.on(DATABASE, f"cat > {path}", input=expired.public_bytes(serialization.Encoding.PEM).decode())
    site.on(DATABASE, "systemctl reload postgresql@17-main pgbouncer")
    name = site.connection()["host"]
    handshake = (
        f"openssl s_client -starttls postgres -tls1_3 -verify_return_error -brief -verify_hostname {name} "
        f"-connect {name}:5432 </dev/null"
    )
    until(lambda: "certificate has expired" in site.run(CLIENT, handshake).output, 60)
    site.played("postgresql")
    for port in (5432, 6432):
        assert site.run(CLIENT, handshake.replace(":5432", f":{port}")).code == 0
    assert site.archived()
