"""The database as its clients see it, what it survives, and what it refuses."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.deadlines import until
from tests.support.inventory import Inventory

testinfra_hosts = ["ansible://postgresql"]

SERVICE = "postgresql@17-main"
DATA = "/var/lib/postgresql"
DIRECT, POOLED = 5432, 6432

# Reads what to do as JSON, since shells and quotes do not mix; tells rows, or why there are none.
CLIENT = """
import base64, json, sys, psycopg
wanted = json.loads(base64.b64decode(sys.argv[1]))
try:
    with psycopg.connect(**wanted["connection"], autocommit=True) as connection:
        rows = []
        for statement in wanted["statements"]:
            cursor = connection.execute(statement)
            rows.append([[str(value) for value in row] for row in cursor] if cursor.description else [])
    print(json.dumps({"rows": rows, "error": ""}))
except psycopg.Error as error:
    print(json.dumps({"rows": [], "error": str(error)}))
"""

# Writes rows one by one and notes each, on disk, once the server has acknowledged it.
WRITER = """
import base64, json, os, sys, time, psycopg
wanted = json.loads(base64.b64decode(sys.argv[1]))
number = 0
end = time.monotonic() + 300
def writing():
    return time.monotonic() < end and not os.path.exists(wanted["ledger"] + ".stop")
with open(wanted["ledger"], "w") as ledger:
    while writing():
        try:
            with psycopg.connect(**wanted["connection"], autocommit=True) as connection:
                while writing():
                    number += 1
                    connection.execute("INSERT INTO canary VALUES (%s)", (number,))
                    ledger.write(f"{number}\\n")
                    ledger.flush()
                    os.fsync(ledger.fileno())
                    time.sleep(0.005)
        except psycopg.Error:
            time.sleep(0.2)
"""


def encoded(wanted: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(wanted).encode()).decode()


@dataclass(frozen=True)
class Client:
    """A host from which the database is queried, and what an application there knows of it."""

    host: Host
    name: str
    address: str
    passwords: dict[str, str]

    def connection(self, login: str, port: int, **options: Any) -> dict[str, Any]:
        return {
            "host": self.name,
            "port": port,
            "user": login,
            "password": self.passwords.get(login, ""),
            "dbname": "app",
            "sslmode": "verify-full",
            "sslrootcert": "system",
            "connect_timeout": 5,
        } | options

    def query(self, login: str, *statements: str, port: int = DIRECT, **options: Any) -> tuple[list[Any], str]:
        """Rows of each statement, or why there are none."""
        wanted = {"connection": self.connection(login, port, **options), "statements": statements or ["SELECT 1"]}
        found = json.loads(self.host.check_output("python3 -c %s %s", CLIENT, encoded(wanted)))
        return found["rows"], found["error"]


def client_on(inventory: Inventory, host: Host) -> Client:
    return Client(
        host,
        f"postgresql.{inventory.settings['platform_domain']}",
        inventory.address(inventory.group("postgresql")[0]),
        inventory.secrets["postgresql_role_passwords"],
    )


@pytest.fixture(scope="module")
def client(inventory: Inventory) -> Client:
    """On a node of the cluster, as which its pods come."""
    host = inventory.host(inventory.group("rke2_server")[0])
    if inventory.is_site:
        with host.sudo():
            host.check_output("apt-get install --quiet --yes --no-install-recommends python3-psycopg")
    return client_on(inventory, host)


@pytest.fixture(scope="module")
def outsider(inventory: Inventory) -> Host:
    return inventory.host(inventory.group("load_balancer")[0])


def psql(host: Host, statement: str, database: str = "postgres") -> str:
    with host.sudo():
        return str(host.check_output("psql -XAtq -U postgres -d %s -c %s", database, statement))


def journal(host: Host) -> str:
    with host.sudo():
        return str(host.run(f"journalctl -u {SERVICE} -n 30 --no-pager; tail -n 30 /var/log/postgresql/*.log").stdout)


def wait_until_it_serves(host: Host) -> None:
    until(lambda: host.run("pg_isready -q -U postgres").rc == 0, 60)


@pytest.fixture(scope="module")
def table(host: Host, client: Client) -> Iterator[str]:
    """A table as a release of an application makes it."""
    assert client.query("app_migration", "CREATE TABLE IF NOT EXISTS canary (number bigserial PRIMARY KEY)")[1] == ""
    yield "canary"
    client.query("app_migration", "DROP TABLE canary")


@pytest.mark.parametrize("service", [SERVICE, "pgbouncer", "prometheus-postgres-exporter"])
def test_services_run_and_return_after_a_reboot(host: Host, service: str) -> None:
    assert host.service(service).is_running, journal(host)
    assert host.service(service).is_enabled


@pytest.mark.parametrize(
    ("user", "port"), [("app", DIRECT), ("app_migration", DIRECT), ("app", POOLED), ("app_report", POOLED)]
)
def test_clients_that_verify_are_served_by_tls_1_3(client: Client, user: str, port: int) -> None:
    # One who makes tables is its owner from the start, and as that it may not see whose connection this is.
    own = ["SET ROLE NONE"] if port == DIRECT else []
    seen = "SELECT session_user, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    rows, error = client.query(user, *own, seen, port=port)
    assert (error, rows[-1:]) == ("", [[[user, "TLSv1.3"]]])


@pytest.mark.parametrize("port", [DIRECT, POOLED])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sslmode": "disable", "sslrootcert": ""}, ("pg_hba.conf rejects", "SSL required")),
        ({"ssl_max_protocol_version": "TLSv1.2"}, ("protocol version", "tlsv1 alert")),
        ({"host": "another.example", "hostaddr": "{address}"}, ("does not match host name",)),
        ({"sslrootcert": "/etc/ssl/certs/ssl-cert-snakeoil.pem"}, ("certificate", "could not read root")),
        ({"password": "wrong"}, ("password authentication failed", "SASL authentication failed")),
        ({"dbname": "postgres"}, ("pg_hba.conf rejects", "no such", "login rejected")),
        ({"user": "postgres"}, ("pg_hba.conf rejects", "no such user")),
    ],
)
def test_weaker_connections_are_rejected(
    client: Client, port: int, options: dict[str, str], message: tuple[str, ...]
) -> None:
    options = {name: value.format(address=client.address) for name, value in options.items()}
    rows, error = client.query(options.get("user", "app"), port=port, **options)
    assert rows == []
    assert any(words in error for words in message), error


def test_an_address_is_a_name_of_the_certificate_too(client: Client) -> None:
    assert client.query("app", host=client.address)[1] == ""


@pytest.mark.parametrize("port", [DIRECT, POOLED, 9187])
def test_hosts_that_need_not_come_are_dropped(outsider: Host, client: Client, port: int) -> None:
    probe = f"timeout 3 bash -c 'echo > /dev/tcp/{client.address}/{port}'"
    assert client.host.run(probe).rc == 0
    assert outsider.run(probe).rc == 124


def test_a_peer_that_no_rule_names_is_rejected(host: Host, client: Client) -> None:
    """The pooler's own host: what may not come through the pooler may not come from there."""
    found = host.run(
        "python3 -c %s %s",
        CLIENT,
        encoded({"connection": client.connection("app_migration", DIRECT), "statements": []}),
    )
    assert "pg_hba.conf rejects connection" in json.loads(found.stdout)["error"]


@pytest.mark.parametrize(
    ("user", "statement", "allowed"),
    [
        ("app", "INSERT INTO canary VALUES (-1) RETURNING number", True),
        ("app", "UPDATE canary SET number = -2 WHERE number = -1", True),
        ("app", "SELECT nextval('canary_number_seq')", True),
        ("app_report", "SELECT count(*) FROM canary", True),
        ("app_report", "INSERT INTO canary VALUES (-3)", False),
        ("app_report", "SELECT nextval('canary_number_seq')", False),
        ("app_report", "CREATE TEMPORARY TABLE mine (a int)", True),
        ("app", "DELETE FROM canary WHERE number < 0", True),
        ("app", "TRUNCATE canary", False),
        ("app", "ALTER TABLE canary ADD a int", False),
        ("app", "CREATE TABLE mine (a int)", False),
        ("app", "CREATE SCHEMA mine", False),
        ("app", "SET ROLE app_owner", False),
        ("app", "SELECT rolpassword FROM pg_authid", False),
        ("app", "SELECT pgbouncer.verifier('app')", False),
        ("app", "COPY canary TO '/tmp/canary'", False),
        ("app_migration", "CREATE ROLE mine", False),
        ("app_migration", "CREATE DATABASE mine", False),
        ("app_migration", "ALTER TABLE canary ADD a int", True),
        ("app_migration", "ALTER TABLE canary DROP a", True),
        ("app_migration", "SET ROLE postgres", False),
    ],
)
def test_roles_can_do_what_they_may_and_nothing_else(
    client: Client, table: str, user: str, statement: str, allowed: bool
) -> None:
    error = client.query(user, statement)[1]
    assert (error == "") is allowed, error


def test_what_a_release_makes_belongs_to_the_owner(host: Host, table: str) -> None:
    assert psql(host, "SELECT tableowner FROM pg_tables WHERE tablename = 'canary'", "app") == "app_owner"


def test_sessions_end_themselves(client: Client) -> None:
    rows, _error = client.query(
        "app", "SHOW statement_timeout", "SHOW idle_in_transaction_session_timeout", port=POOLED
    )
    assert rows == [[["1min"]], [["1min"]]]
    assert client.query("app_migration", "SHOW statement_timeout")[0] == [[["0"]]]


def test_prepared_statements_live_through_the_pooler(client: Client) -> None:
    """psycopg prepares a statement that it sees often; connections behind the pooler change."""
    rows, error = client.query("app", *["SELECT 1 + 1"] * 12, port=POOLED, prepare_threshold=1)
    assert (error, rows[-1]) == ("", [["2"]])


def test_passwords_are_nowhere_but_with_their_owners(host: Host, client: Client) -> None:
    assert psql(host, "SELECT count(*) FROM pg_authid WHERE rolpassword NOT LIKE 'SCRAM-SHA-256$%'") == "0"
    with host.sudo():
        sources = (
            "cat /proc/[0-9]*/cmdline /var/log/postgresql/* /etc/postgresql/17/main/* /etc/pgbouncer/* 2>/dev/null"
        )
        text = host.run(f"({sources}; journalctl --no-pager -o cat) | tr '\\0' '\\n'").stdout
    text += psql(host, "SELECT query FROM pg_stat_statements")
    for role, password in client.passwords.items():
        assert password not in text, f"the password of {role}"


def test_the_pooler_runs_as_nobody_special(host: Host) -> None:
    with host.sudo():
        assert host.check_output("ps -o user= -C pgbouncer").split() == ["pgbouncer"]
        assert host.run("runuser -u pgbouncer -- psql -XAtq -d postgres -c 'SELECT rolpassword FROM pg_authid'").rc != 0
        assert host.run("runuser -u pgbouncer -- psql -XAtq -U postgres -c 'SELECT 1'").rc != 0


def test_data_is_on_the_volume_with_checksums(host: Host) -> None:
    mounted = host.mount_point(DATA)
    assert mounted.exists
    with host.sudo():
        assert host.check_output(f"findmnt -no SOURCE {DATA}") == host.check_output(
            "readlink -f /dev/disk/by-id/scsi-0HC_Volume_*"
        )
    assert {"noatime", "nosuid", "nodev"} <= set(mounted.options)
    assert psql(host, "SHOW data_directory").startswith(f"{DATA}/")
    assert psql(host, "SHOW data_checksums") == "on"
    assert psql(host, "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'app'") == "b|C.UTF-8"


def test_metrics_are_served_to_the_cluster(client: Client) -> None:
    assert "\npg_up 1\n" in client.host.check_output(f"curl -s --max-time 20 http://{client.address}:9187/metrics")


def test_the_expiry_of_the_certificate_is_a_metric(host: Host) -> None:
    with host.sudo():
        shown = host.check_output("openssl x509 -noout -enddate -in /etc/postgresql-common/slipway/server.crt")
    expiry = int(ssl.cert_time_to_seconds(shown.removeprefix("notAfter=")))
    metrics = host.file("/var/lib/prometheus/node-exporter/slipway_postgresql_certificate.prom").content_string
    assert metrics.endswith(f"\nslipway_postgresql_certificate_expiry_timestamp_seconds {expiry}\n")


def test_settings_follow_the_memory(host: Host, inventory: Inventory) -> None:
    assert psql(host, "SHOW shared_buffers") == f"{inventory.settings['postgresql_memory_mb'] // 4}MB"
    assert psql(host, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("pg_hba.conf", "hostssl app app 10.0.0.0/99 scram-sha-256", "pg_hba.conf line"),
        ("pg_hba.conf", "hostssl app app 10.0.0.0/8 md6", 'invalid authentication method "md6"'),
        ("postgresql.conf", "work_mem = 'much'", 'invalid value for parameter "work_mem": "much"'),
        ("postgresql.conf", "no_such_setting = 1", 'unrecognized configuration parameter "no_such_setting"'),
    ],
)
def test_faulty_files_are_detected_before_a_reload(host: Host, file: str, line: str, message: str) -> None:
    path = f"/etc/postgresql/17/main/{file}"
    with host.sudo():
        host.check_output("cp -p %s /root/kept && echo %s >> %s", path, line, path)
        try:
            found = host.run("/usr/local/lib/slipway/postgresql-check")
        finally:
            host.check_output("cp -p /root/kept %s && rm /root/kept", path)
        assert found.rc != 0 and message in found.stderr
        assert host.run("/usr/local/lib/slipway/postgresql-check").rc == 0


@pytest.mark.scenario("tests/platform/test_postgresql.py proves it of the site, with four writers")
def test_killed_under_load_it_loses_nothing_acknowledged(host: Host, client: Client, table: str) -> None:
    ledger = "/tmp/canary.ledger"
    client.query("app", "DELETE FROM canary")
    wanted = {"connection": client.connection("app", POOLED, prepare_threshold=None), "ledger": ledger}
    writer = client.host.check_output(
        "rm -f %s*; nohup python3 -c %s %s > /tmp/writer.log 2>&1 & echo $!", ledger, WRITER, encoded(wanted)
    )

    def noted() -> int:
        return int(client.host.check_output("cat %s 2>/dev/null | wc -l", ledger))

    def postmaster() -> str:
        return str(host.run("head -1 /run/postgresql/17-main.pid").stdout.strip())

    with host.sudo():
        for _ in range(3):
            before, killed = noted(), postmaster()
            until(noted, 60, lambda rows, before=before: rows > before + 100)
            host.check_output(f"kill -9 {killed}")
            until(postmaster, 60, lambda pid, killed=killed: pid not in ("", killed))
            wait_until_it_serves(host)
    client.host.check_output("touch %s.stop", ledger)
    until(lambda: client.host.run(f"kill -0 {writer}").rc != 0, 30)
    acknowledged = {int(line) for line in client.host.check_output(f"cat {ledger}").split()}
    stored = {int(row[0]) for row in client.query("app", "SELECT number FROM canary")[0][0]}
    assert len(acknowledged) > 100
    assert acknowledged - stored == set(), (
        f"{len(acknowledged - stored)} of {len(acknowledged)} acknowledged rows are lost"
    )


def test_without_its_volume_it_does_not_start(host: Host) -> None:
    device = host.check_output("ls /dev/disk/by-id/scsi-0HC_Volume_*")
    with host.sudo():
        host.check_output(f"systemctl stop {SERVICE} && umount {DATA} && mv {device} /root/device")
        try:
            assert host.run(f"systemctl start {SERVICE}").rc != 0
            # Nor by the tools below systemd, nor when somebody has made the folders again.
            assert host.run("pg_ctlcluster --skip-systemctl-redirect 17 main start").rc != 0
            assert host.run("/usr/local/lib/slipway/postgresql-guard").rc != 0
            assert "its volume" in host.run("/usr/local/lib/slipway/postgresql-guard").stderr
            assert host.run("pgrep -x postgres").rc != 0
            assert host.check_output(f"ls -A {DATA}") == ""
        finally:
            host.check_output(f"mv /root/device {device} && systemctl start {SERVICE}")
    wait_until_it_serves(host)
    assert host.mount_point(DATA).exists


def test_the_guard_sees_a_foreign_disk(host: Host) -> None:
    """Something else is mounted where the data should be."""
    with host.sudo():
        host.check_output(f"mount -t tmpfs none {DATA}")
        try:
            found = host.run("/usr/local/lib/slipway/postgresql-guard")
        finally:
            host.check_output(f"umount {DATA}")
    assert found.rc == 1 and "none is mounted at /var/lib/postgresql instead of /dev/" in found.stderr
