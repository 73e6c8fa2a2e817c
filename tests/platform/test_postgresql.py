"""The database under load while it is killed: what was acknowledged is there, always."""

from __future__ import annotations

from typing import Any

import pytest
from hcloud import Client

from tests.platform.database import (
    DATABASE,
    OUTSIDER,
    SERVICE,
    Site,
    acknowledged,
    grows,
    keep,
    load,
    longest_silence,
    there,
)

LONGEST_OUTAGE_SECONDS = 30


@pytest.fixture(scope="module")
def site(cloud: Client, description: dict[str, Any]) -> Site:
    return Site(cloud, description)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_no_acknowledged_row_is_lost_when_the_server_is_killed(site: Site, kills: int) -> None:
    with load(site) as rows:
        for _ in range(kills):
            site.on(DATABASE, f"systemctl kill --signal KILL {SERVICE}")
            grows(rows, 20)
    noted, found = acknowledged(site), there(site)
    lost = sorted(set(noted) - found)
    longest = longest_silence(noted)
    keep("kills", kills)
    keep("acknowledged rows", len(noted))
    keep("lost rows", len(lost))
    keep("longest time without a write, seconds", round(longest, 1))
    assert lost == []
    assert longest < LONGEST_OUTAGE_SECONDS
    assert site.on(DATABASE, f"systemctl show --property NRestarts --value {SERVICE}").strip() != "0"


def test_an_undeclared_client_is_rejected(site: Site) -> None:
    """Not by the network, and not with a password alone."""
    name = site.connection()["host"]
    for port in (5432, 6432):
        refused = site.run(OUTSIDER, f"timeout 5 bash -c 'exec 3<>/dev/tcp/{name}/{port}'")
        assert refused.code != 0, f"{OUTSIDER} reaches {name}:{port}"
    address = site.on(DATABASE, f"getent hosts {name}").split()[0]
    output = site.run(
        DATABASE,
        f"PGPASSWORD=wrong psql 'host={name} hostaddr={address} user=postgres dbname=app sslmode=verify-full "
        "sslrootcert=/etc/ssl/certs/ca-certificates.crt connect_timeout=5' -c 'SELECT 1'",
    ).output
    assert "pg_hba.conf rejects connection" in output, output


@pytest.mark.soak
def test_a_setting_with_which_the_server_does_not_start_is_rolled_back(site: Site) -> None:
    """Hosts of the lab have no huge pages."""
    settings = {"postgresql_extra_settings": {"huge_pages": "on"}}
    pending = site.played("postgresql", **settings)
    assert "needs a restart for huge_pages" in pending.text
    failed = site.play("postgresql", **settings, op_postgresql_allow_restart=True)
    assert failed.code != 0
    assert "The previous files are active again" in failed.output
    assert site.query("SHOW huge_pages") == "try", "the server runs with the previous value"
    # After a power loss the file on disk has the value, and the server does not start.
    site.on(
        DATABASE,
        "echo 'huge_pages = on' | tee --append /etc/postgresql/*/main/postgresql.conf"
        f" && systemctl restart --no-block {SERVICE} && sleep 3",
    )
    site.played("postgresql")
    assert site.query("SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    assert site.played("postgresql").changed == {}
