"""PostgreSQL upgraded to a newer minor and to a newer major version, on real packages, and rolled back.

They come from an archive in the layout of PostgreSQL's own, composed of Debian's packages: two minor versions of 15, as
Debian 12 and its security archive have them, and 18 of Debian's development suite, with what it needs there, a newer C
library than Debian 13 has. A database host is made for them. Minor versions of 17 cannot be had: Debian 13 offers its
newest alone. The database of the site, of that version, is upgraded to 18 where the two fit together.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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

OLD, NEW, OLDEST = "17", "18", "15"
SUITE, DONORS = "trixie", {NEW: apt_repository.UNSTABLE, OLDEST: "bookworm"}
STATUS = "cat /var/lib/dpkg/status"
KEYRING = "/usr/share/postgresql-common/pgdg/apt.postgresql.org.gpg"
UPGRADE = "operations/upgrade_postgresql"
ROLLBACK_FROM = "op_upgrade_postgresql_rollback"
WITHOUT_BACKUP = "op_upgrade_postgresql_without_backup"
COLUMN_OPTION = "pg_attver"
"""Written into every column by 17.12 and its like; a version without it cannot load the schema."""
LONGEST_OUTAGE_SECONDS = 240
"""The server is down while pg_upgrade copies, and writes wait until the new one has its roles and its certificate."""


@pytest.fixture(scope="module")
def site(cloud: Client, description: dict[str, Any]) -> Site:
    return Site(cloud, description)


def version(site: Site, host: str = DATABASE) -> str:
    """As 18.6, without the package's own version in brackets."""
    return site.query("SHOW server_version", host=host).split()[0]


def major(site: Site, host: str = DATABASE) -> str:
    return version(site, host).split(".")[0]


@dataclass
class Separate(Site):
    """A database host of its own, in an inventory that has no other one."""

    folder: Path
    name: str
    address: str

    def play(self, playbook: str, *arguments: str, **inputs: Any) -> Run:
        named = ["-e", json.dumps(inputs)] if inputs else []
        limit = ["--limit", f"{self.name},localhost"]
        return play(*limit, *arguments, *named, playbook=f"playbooks/{playbook}.yml", inventory=self.folder)

    def connection(self) -> dict[str, Any]:
        """By the name of the site's database, which stands in the certificate, at the address of this host."""
        return super().connection() | {"hostaddr": self.address}

    def delete(self) -> None:
        server = self.cloud.servers.get_by_name(self.name)
        if server is None:
            return
        volumes = [volume for volume in self.cloud.volumes.get_all() if volume.server and volume.server.id == server.id]
        server.delete().wait_until_finished()
        for volume in volumes:
            self.cloud.volumes.delete(volume)


@contextmanager
def separate(site: Site, folder: Path, name: str, address: str, major: str) -> Iterator[Separate]:
    """The host, provisioned and with the role base applied; deleted at the end."""
    folder = folder / "lab"
    folder.mkdir()
    inventory = declared()
    settings = {"postgresql_version": major, "postgresql_backup_enabled": False}
    inventory["all"]["children"]["postgresql"]["hosts"] = {name: {"provision_private_ip": address, **settings}}
    declare(folder, inventory)
    host = Separate(site.cloud, site.description, folder, name, address)
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
    offers: dict[str, list[Path]] = field(default_factory=dict)
    """Version of the package of the server → it, with all that it needs."""

    def publish(self, *versions: str) -> None:
        """Offer these versions and no others."""
        packages = {path for version in versions for path in self.offers[version]}
        apt_repository.publish(self.folder, f"{SUITE}-pgdg", sorted(packages))
        self.key.sign(self.folder, f"{SUITE}-pgdg")

    def of(self, major: str) -> list[str]:
        """Versions of the packages of a major version, the newest last."""
        return [version for version in self.offers if version.startswith(f"{major}.")]

    def trusted_by(self, site: Site, host: str) -> dict[str, str]:
        """The settings of the role for it, after its key was added to that of PostgreSQL's own archive on the host."""
        site.on(host, f"base64 --decode >> {KEYRING}", input=base64.b64encode(self.key.public).decode())
        return {"postgresql_source": "pgdg", "postgresql_pgdg_url": self.url}


@pytest.fixture(scope="module")
def oldest(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Separate]:
    """The host for version 15, bare as yet."""
    with separate(site, tmp_path_factory.mktemp("inventory"), "lab-postgresql-8", "10.90.1.78", OLDEST) as host:
        yield host


@pytest.fixture(scope="module")
def archive(oldest: Separate, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive that has the oldest version of 15, and 18."""
    folder = tmp_path_factory.mktemp("archive")
    status = oldest.on(oldest.name, STATUS)
    served = folder / "served"
    served.mkdir()
    with (
        apt_repository.signing_key() as key,
        apt_repository.serving(served, str(settings.machine_address)) as url,
    ):
        archive = Archive(served, key, url)
        for wanted, suite in DONORS.items():
            donor = apt_repository.Donor(folder / suite, SUITE, suite, status)
            for found in reversed(donor.versions(f"postgresql-{wanted}")):
                packages = [f"{name}-{wanted}={found}" for name in ("postgresql", "postgresql-client")]
                archive.offers[found] = donor.download(*packages, prefer=wanted == NEW)
        keep("versions", list(archive.offers))
        archive.publish(archive.of(OLDEST)[0], archive.of(NEW)[-1])
        yield archive


def supports_column_option(archive: Archive) -> bool:
    """Whether version 18 can load what minor versions since 17.12 write into every column."""
    (package,) = [path for path in archive.offers[archive.of(NEW)[-1]] if path.name.startswith(f"postgresql-{NEW}_")]
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], check=True, stdout=subprocess.PIPE)
    return COLUMN_OPTION.encode() in unpacked.stdout


def test_new_database_of_version_18_is_installed_from_pgdg(site: Site, archive: Archive, tmp_path: Path) -> None:
    with separate(site, tmp_path, "lab-postgresql-9", "10.90.1.79", NEW) as host:
        inputs = archive.trusted_by(site, host.name)
        host.played("postgresql", **inputs)
        assert major(host, host.name) == NEW
        policy = host.on(host.name, f"apt-cache policy postgresql-{NEW}")
        assert archive.url in policy and f"{SUITE}-pgdg/main" in policy
        assert host.query("SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'", host=host.name) == "pg_trgm"
        assert host.query("SHOW data_checksums", host=host.name) == "on"
        assert host.played("postgresql", **inputs).changed == {}
        assert host.played("postgresql", "--check", **inputs).changed == {}


@dataclass
class Database:
    """A database that is upgraded to version 18."""

    site: Site
    name: str
    major: str
    inputs: dict[str, Any]
    backed_up: bool

    def data(self, major: str) -> str:
        return f"/var/lib/postgresql/{major}/main"


def add_archive(site: Site, archive: Archive) -> dict[str, str]:
    """Add the archive to the site's database host: the role adds it only where a package is missing."""
    inputs = archive.trusted_by(site, DATABASE)
    source = f"Types: deb\nURIs: {archive.url}\nSuites: {SUITE}-pgdg\nComponents: main\nSigned-By: {KEYRING}\n"
    site.on(DATABASE, "cat > /etc/apt/sources.list.d/pgdg.sources && apt-get update", input=source)
    return inputs


def remove_archive(site: Site) -> None:
    site.on(DATABASE, "rm -f /etc/apt/sources.list.d/pgdg.sources && apt-get update")


@pytest.fixture(scope="module", params=[OLDEST, OLD])
def database(request: pytest.FixtureRequest, site: Site, oldest: Separate, archive: Archive) -> Iterator[Database]:
    if request.param == OLDEST:
        inputs = archive.trusted_by(oldest, oldest.name)
        oldest.played("postgresql", **inputs)
        yield Database(oldest, oldest.name, OLDEST, {**inputs, WITHOUT_BACKUP: True}, backed_up=False)
        return
    if not supports_column_option(archive):
        pytest.skip(f"{archive.of(NEW)[-1]} does not support {COLUMN_OPTION}, which {version(site)} writes")
    inputs = add_archive(site, archive)
    yield Database(site, DATABASE, OLD, inputs, backed_up=True)
    remove_archive(site)


def test_major_upgrade_keeps_every_acknowledged_row(database: Database) -> None:
    site, name = database.site, database.name
    inputs = database.inputs | {"op_upgrade_postgresql_version": NEW}
    assert major(site, name) == database.major
    preview = site.played(UPGRADE, "--check", **inputs)
    assert f"install PostgreSQL {NEW}" in preview.text
    assert major(site, name) == database.major
    with load(site, primary=name) as rows:
        grows(rows, 50)
        run = site.played(UPGRADE, **inputs)
        grows(rows, 50)
    noted, found = acknowledged(site), there(site, name)
    silence = longest_silence(noted)
    keep("seconds", run.report["seconds"])
    keep("acknowledged rows", len(noted))
    keep("seconds without writes", round(silence, 1))
    assert set(noted) - found == set()
    assert silence < LONGEST_OUTAGE_SECONDS
    assert major(site, name) == NEW
    assert site.on(name, f"cat {database.data(database.major)}/PG_VERSION").strip() == database.major
    if database.backed_up:
        assert json.loads(site.on(name, f"{TOOL} status"))["backups"][-1]["type"] == "full"
        assert site.on(name, f"{TOOL} verify && {TOOL} findings").strip() == ""


def test_second_major_upgrade_changes_nothing(database: Database) -> None:
    site, inputs = database.site, database.inputs
    assert site.played(UPGRADE, **inputs, op_upgrade_postgresql_version=NEW).changed == {}
    assert site.played("postgresql", **inputs, postgresql_version=NEW).changed == {}
    assert site.played("postgresql", "--check", **inputs, postgresql_version=NEW).changed == {}


def test_rollback_serves_the_data_of_before_the_upgrade(database: Database) -> None:
    site, name = database.site, database.name
    before = there(site, name)
    site.query("CREATE TABLE since (name text)", host=name)
    back = {"op_upgrade_postgresql_version": database.major, ROLLBACK_FROM: NEW}
    run = site.played(UPGRADE, **database.inputs, **back)
    keep("seconds", run.report["seconds"])
    assert major(site, name) == database.major
    after = there(site, name)
    assert after and after < before, "rows since the upgrade are in the data directory of the new version"
    assert site.query("SELECT to_regclass('since') IS NULL", host=name) == "t"
    previous = site.on(name, f"ls -d {database.data(NEW)}.before-*").split()
    assert len(previous) == 1
    if database.backed_up:
        assert site.archived()
        assert site.on(name, f"{TOOL} verify && {TOOL} findings").strip() == ""
    assert site.played("postgresql", **database.inputs).changed == {}


def test_minor_upgrade_installs_the_newest_package(oldest: Separate, archive: Archive) -> None:
    """On the host whose upgrade to version 18 was rolled back."""
    name, offered = oldest.name, archive.of(OLDEST)
    if len(offered) == 1:
        pytest.skip(f"Debian 12 has one version of PostgreSQL 15 today, {offered[0]}")
    inputs = {"postgresql_source": "pgdg", "postgresql_pgdg_url": archive.url}
    assert version(oldest, name) == offered[0].split("-")[0]
    assert oldest.played(UPGRADE, **inputs).changed == {}
    oldest.query("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number", host=name)
    started = oldest.query("SELECT pg_postmaster_start_time()", host=name)

    archive.publish(offered[-1], archive.of(NEW)[-1])
    oldest.on(name, "apt-get update")  # the play updates lists that are older than ten minutes
    preview = oldest.played(UPGRADE, "--check", **inputs)
    assert f"install {offered[-1]} in place of {offered[0]}" in preview.text
    assert oldest.query("SELECT pg_postmaster_start_time()", host=name) == started

    run = oldest.played(UPGRADE, **inputs)
    keep("seconds", run.report["seconds"])
    until(lambda: oldest.run(name, "pg_isready --quiet --username=postgres").code == 0, 60)
    assert version(oldest, name) == offered[-1].split("-")[0]
    assert oldest.query("SELECT count(*), sum(number) FROM kept", host=name) == "1000|500500"
    assert oldest.played(UPGRADE, **inputs).changed == {}
    assert oldest.played("postgresql", **inputs).changed == {}


def test_major_upgrade_without_the_package_is_rejected(site: Site) -> None:
    if site.run(DATABASE, f"test -d /usr/lib/postgresql/{NEW}").code == 0:
        pytest.skip(f"{DATABASE} has the package: its upgrade was tested on this lab before")
    run = site.play(UPGRADE, op_upgrade_postgresql_version=NEW)
    assert run.code != 0 and f"no configured package archive has PostgreSQL {NEW}" in run.text
    assert major(site) == OLD


def test_failed_major_upgrade_leaves_the_old_version_serving(site: Site, archive: Archive) -> None:
    """Where the two versions do not fit together, which pg_upgrade finds only while it copies."""
    if supports_column_option(archive):
        pytest.skip(f"{archive.of(NEW)[-1]} supports {COLUMN_OPTION}: the upgrade does not fail")
    inputs = add_archive(site, archive)
    try:
        with load(site) as rows:
            grows(rows, 50)
            run = site.play(UPGRADE, **inputs, op_upgrade_postgresql_version=NEW)
            grows(rows, 50)
    finally:
        remove_archive(site)
    assert run.code != 0
    assert f"{DATABASE}: PostgreSQL {OLD} runs again, and its data is unchanged" in run.text, run.excerpt
    assert f'unrecognized parameter "{COLUMN_OPTION}"' in run.text
    assert set(acknowledged(site)) - there(site) == set()
    assert major(site) == OLD
    assert site.archived()
    site.on(DATABASE, f"rm -r /var/lib/postgresql/{NEW}")
    site.played("postgresql")  # it grants privileges on the table of the load
    assert site.played("postgresql").changed == {}
