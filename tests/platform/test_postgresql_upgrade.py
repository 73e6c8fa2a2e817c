"""PostgreSQL upgraded to a newer minor and to a newer major version, on real packages, and rolled back.

They come from an archive in the layout of PostgreSQL's own, composed of Debian's packages: two minor versions of 15, as
Debian 12 and its security archive have them, and 18 of Debian's development suite, with what it needs there, a newer C
library than Debian 13 has. Minor versions of 17 cannot be had: Debian 13 offers its newest alone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hcloud import Client

from lab.settings import Settings
from tests.platform.conftest import Run, declare, declared, play
from tests.platform.database import (
    DATABASE,
    TOOL,
    Site,
    acknowledged,
    grows,
    keep,
    load,
    longest_silence,
    there,
)
from tests.support import apt_repository
from tests.support.deadlines import until

pytestmark = pytest.mark.soak

OLD, NEW = "17", "18"
SUITE = "trixie"
STATUS = "cat /var/lib/dpkg/status"
KEYRING = "/usr/share/postgresql-common/pgdg/apt.postgresql.org.gpg"
ROLLBACK_FROM = "op_upgrade_postgresql_rollback"
UPGRADE = "operations/upgrade_postgresql"
LONGEST_OUTAGE_SECONDS = 240
"""The server is down while pg_upgrade copies, and writes wait until the new one has its roles and its certificate."""


@pytest.fixture(scope="module")
def site(cloud: Client, description: dict[str, Any]) -> Site:
    return Site(cloud, description)


def version(site: Site, host: str = DATABASE) -> str:
    """As 18.6, without the package's own version in brackets."""
    return site.ask("SHOW server_version", host=host).split()[0]


def message(run: Run) -> str:
    return " ".join(run.output.split())


@dataclass
class Separate(Site):
    """A database host of its own, in an inventory that has no other one."""

    folder: Path
    name: str

    def play(self, playbook: str, *arguments: str, **inputs: Any) -> Run:
        named = ["-e", json.dumps(inputs)] if inputs else []
        limit = ["--limit", f"{self.name},localhost"]
        return play(*limit, *arguments, *named, playbook=f"playbooks/{playbook}.yml", inventory=self.folder)

    def delete(self) -> None:
        server = self.cloud.servers.get_by_name(self.name)
        if server is None:
            return
        volumes = [volume for volume in self.cloud.volumes.get_all() if volume.server and volume.server.id == server.id]
        server.delete().wait_until_finished()
        for volume in volumes:
            self.cloud.volumes.delete(volume)


@contextmanager
def separate(site: Site, folder: Path, name: str, address: str, **settings: str) -> Iterator[Separate]:
    """The host, provisioned and with the role base applied; deleted at the end."""
    folder = folder / "lab"
    folder.mkdir()
    inventory = declared()
    entry = {"provision_private_ip": address, "postgresql_backup_enabled": False, **settings}
    inventory["all"]["children"]["postgresql"]["hosts"] = {name: entry}
    declare(folder, inventory)
    host = Separate(site.cloud, site.description, folder, name)
    try:
        host.played("provision")
        host.played("base")
        yield host
    finally:
        host.delete()


@dataclass
class Archive:
    """An archive in the layout of PostgreSQL's own, which a host trusts once it has the key."""

    folder: Path
    key: apt_repository.Key
    url: str

    def publish(self, packages: list[Path]) -> None:
        """Offer these and no others."""
        apt_repository.publish(self.folder, f"{SUITE}-pgdg", packages)
        self.key.sign(self.folder, f"{SUITE}-pgdg")

    def trusted_by(self, site: Site, host: str) -> dict[str, str]:
        """The settings of the role for it, after its key was added to that of PostgreSQL's own archive on the host."""
        site.on(host, f"base64 --decode >> {KEYRING}", input=base64.b64encode(self.key.public).decode())
        return {"postgresql_source": "pgdg", "postgresql_pgdg_url": self.url}


@contextmanager
def served(folder: Path, settings: Settings) -> Iterator[Archive]:
    folder = folder / "served"
    folder.mkdir()
    with (
        apt_repository.signing_key() as key,
        apt_repository.serving(folder, str(settings.machine_address)) as url,
    ):
        yield Archive(folder, key, url)


def test_minor_upgrade_installs_the_newest_package(site: Site, settings: Settings, tmp_path: Path) -> None:
    donor = apt_repository.Donor(tmp_path / "apt", SUITE, "bookworm", site.on(DATABASE, STATUS))
    newest, *_, oldest = donor.versions("postgresql-15") * 2
    if newest == oldest:
        pytest.skip(f"Debian 12 has one version of PostgreSQL 15 today, {newest}")
    offers = {
        version: donor.download(f"postgresql-15={version}", f"postgresql-client-15={version}")
        for version in (oldest, newest)
    }
    with (
        served(tmp_path, settings) as archive,
        separate(site, tmp_path, "lab-postgresql-8", "10.90.1.78", postgresql_version="15") as host,
    ):
        archive.publish(offers[oldest])
        inputs = archive.trusted_by(host, host.name)
        host.played("postgresql", **inputs)
        assert version(host, host.name) == oldest.split("-")[0]
        assert host.played(UPGRADE, **inputs).changed == {}
        host.ask("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number", host=host.name)
        started = host.ask("SELECT pg_postmaster_start_time()", host=host.name)

        archive.publish(offers[newest])
        host.on(host.name, "apt-get update")  # the play reads lists anew that are older than ten minutes
        preview = host.played(UPGRADE, "--check", **inputs)
        assert f"install {newest} in place of {oldest}" in message(preview)
        assert host.ask("SELECT pg_postmaster_start_time()", host=host.name) == started

        run = host.played(UPGRADE, **inputs)
        keep("seconds", run.report["seconds"])
        until(lambda: host.run(host.name, "pg_isready --quiet --username=postgres").code == 0, 60)
        assert version(host, host.name) == newest.split("-")[0]
        assert host.ask("SELECT count(*), sum(number) FROM kept", host=host.name) == "1000|500500"
        assert host.played(UPGRADE, **inputs).changed == {}
        assert host.played("postgresql", **inputs).changed == {}


@pytest.fixture(scope="module")
def archive(site: Site, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive that has version 18."""
    folder = tmp_path_factory.mktemp("archive")
    donor = apt_repository.Donor(folder / "apt", SUITE, apt_repository.UNSTABLE, site.on(DATABASE, STATUS))
    packages = donor.download(f"postgresql-{NEW}", f"postgresql-client-{NEW}", prefer=True)
    keep("packages", [path.stem for path in packages])
    with served(folder, settings) as archive:
        archive.publish(packages)
        yield archive


def test_new_database_of_version_18_is_installed_from_pgdg(site: Site, archive: Archive, tmp_path: Path) -> None:
    with separate(site, tmp_path, "lab-postgresql-9", "10.90.1.79", postgresql_version=NEW) as host:
        inputs = archive.trusted_by(site, host.name)
        host.played("postgresql", **inputs)
        assert version(host, host.name).split(".")[0] == NEW
        policy = host.on(host.name, f"apt-cache policy postgresql-{NEW}")
        assert archive.url in policy and f"{SUITE}-pgdg/main" in policy
        assert host.ask("SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'", host=host.name) == "pg_trgm"
        assert host.ask("SHOW data_checksums", host=host.name) == "on"
        assert host.played("postgresql", **inputs).changed == {}
        assert host.played("postgresql", "--check", **inputs).changed == {}


@pytest.fixture(scope="module")
def upgraded(site: Site, archive: Archive) -> dict[str, str]:
    """The settings of the site's database, which knows the archive that has version 18."""
    inputs = archive.trusted_by(site, DATABASE)
    # The role adds the archive only where a package is missing, and the plan of an upgrade needs it before.
    source = f"Types: deb\nURIs: {archive.url}\nSuites: {SUITE}-pgdg\nComponents: main\nSigned-By: {KEYRING}\n"
    site.on(DATABASE, "cat > /etc/apt/sources.list.d/pgdg.sources && apt-get update", input=source)
    return inputs


def test_major_upgrade_without_the_package_is_rejected(site: Site) -> None:
    run = site.play(UPGRADE, op_upgrade_postgresql_version=NEW)
    assert run.code != 0 and f"no configured package archive has PostgreSQL {NEW}" in message(run)
    assert version(site).split(".")[0] == OLD


def test_major_upgrade_keeps_every_acknowledged_row(site: Site, upgraded: dict[str, str]) -> None:
    inputs = upgraded | {"op_upgrade_postgresql_version": NEW}
    preview = site.played(UPGRADE, "--check", **inputs)
    assert f"install PostgreSQL {NEW}" in message(preview)
    assert version(site).split(".")[0] == OLD
    with load(site) as rows:
        grows(rows, 50)
        run = site.played(UPGRADE, **inputs)
        grows(rows, 50)
    noted, found = acknowledged(site), there(site)
    silence = longest_silence(noted)
    keep("seconds", run.report["seconds"])
    keep("acknowledged rows", len(noted))
    keep("seconds without writes", round(silence, 1))
    assert set(noted) - found == set()
    assert silence < LONGEST_OUTAGE_SECONDS
    assert version(site).split(".")[0] == NEW
    assert site.on(DATABASE, f"cat /var/lib/postgresql/{OLD}/main/PG_VERSION").strip() == OLD
    backups = json.loads(site.on(DATABASE, f"{TOOL} status"))["backups"]
    assert backups[-1]["type"] == "full"
    assert site.on(DATABASE, f"{TOOL} verify && {TOOL} findings").strip() == ""


def test_second_major_upgrade_changes_nothing(site: Site, upgraded: dict[str, str]) -> None:
    assert site.played(UPGRADE, **upgraded, op_upgrade_postgresql_version=NEW).changed == {}
    assert site.played("postgresql", **upgraded, postgresql_version=NEW).changed == {}
    assert site.played("postgresql", "--check", **upgraded, postgresql_version=NEW).changed == {}


def test_rollback_serves_the_data_of_before_the_upgrade(site: Site, upgraded: dict[str, str]) -> None:
    before = there(site)
    site.ask("CREATE TABLE since (name text)")
    run = site.played(UPGRADE, **upgraded, op_upgrade_postgresql_version=OLD, **{ROLLBACK_FROM: NEW})
    keep("seconds", run.report["seconds"])
    assert version(site).split(".")[0] == OLD
    after = there(site)
    assert after and after < before, "rows since the upgrade are in the data directory of the new version"
    assert site.ask("SELECT to_regclass('since') IS NULL") == "t"
    previous = site.on(DATABASE, f"ls -d /var/lib/postgresql/{NEW}/main.before-*").split()
    assert len(previous) == 1
    assert site.archived()
    assert site.on(DATABASE, f"{TOOL} verify && {TOOL} findings").strip() == ""
    site.on(DATABASE, "rm /etc/apt/sources.list.d/pgdg.sources && apt-get update")
    assert site.played("postgresql").changed == {}
