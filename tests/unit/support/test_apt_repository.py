"""The repository that tests compose is one that apt reads: layout, checksums and signature."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.machines.images import Mirror
from tests.support.apt_repository import publish, release, serving, signing_key, sources, stanza

SUITE = "trixie-pgdg"
CONTROL = "Package: probe\nVersion: 1.2-3\nArchitecture: amd64\nMaintainer: a <a@b>\nDescription: a probe\n"


def test_sources_name_the_host_suites_and_the_donor() -> None:
    text = sources("trixie", "sid", Mirror("http://a/debian", "http://a/debian-security", "/k.gpg"))
    assert "URIs: http://a/debian\nSuites: trixie trixie-updates sid\n" in text
    assert "URIs: http://a/debian-security\nSuites: trixie-security\n" in text
    assert text.count("Signed-By: /k.gpg") == 2
    older = sources("trixie", "bookworm", Mirror())
    assert "URIs: http://deb.debian.org/debian\nSuites: trixie trixie-updates bookworm\n" in older
    assert "Suites: trixie-security bookworm-security\n" in older


def test_entry_names_file_size_and_checksum() -> None:
    entry = stanza(CONTROL, "pool/main/probe.deb", b"abc")
    assert entry.startswith(CONTROL)
    assert entry.splitlines()[-3:] == [
        "Filename: pool/main/probe.deb",
        "Size: 3",
        f"SHA256: {hashlib.sha256(b'abc').hexdigest()}",
    ]


def test_release_lists_every_index_with_its_checksum() -> None:
    text = release(SUITE, {"main/binary-amd64/Packages": b"abc"}, datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC))
    assert f"Codename: {SUITE}\nDate: Mon, 30 Nov 2026 12:00:00 UTC\n" in text
    assert text.endswith(f"SHA256:\n {hashlib.sha256(b'abc').hexdigest()} 3 main/binary-amd64/Packages\n")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(CONTROL)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, tmp_path / "probe.deb"], check=True)
    return tmp_path / "probe.deb"


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_apt_accepts_the_repository_by_its_key_alone(tmp_path: Path, archive: Path) -> None:
    folder = tmp_path / "served"
    publish(folder, SUITE, [archive])
    key = tmp_path / "key.gpg"
    with signing_key() as signer:
        signer.sign(folder, SUITE)
        key.write_bytes(signer.public)
    checked = subprocess.run(
        ["gpgv", "--keyring", key, folder / "dists" / SUITE / "InRelease"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    with serving(folder, "127.0.0.1") as url:
        with urllib.request.urlopen(f"{url}/pool/main/probe.deb") as answer:
            assert answer.read() == archive.read_bytes()
        text = f"Types: deb\nURIs: {url}\nSuites: {SUITE}\nComponents: main\nSigned-By: {key}\n"
        (tmp_path / "probe.sources").write_text(text)
        (tmp_path / "status").touch()
        (tmp_path / "state/lists/partial").mkdir(parents=True)
        options = {
            "Dir::Etc::sourcelist": tmp_path / "probe.sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": tmp_path / "state",
            "Dir::State::status": tmp_path / "status",
            "Dir::Cache": tmp_path / "cache",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",
        }
        apt = [f"--option={name}={value}" for name, value in options.items()]
        updated = subprocess.run(["apt-get", *apt, "update"], capture_output=True, text=True)
        assert updated.returncode == 0, updated.stderr
        policy = subprocess.run(["apt-cache", *apt, "policy", "probe"], capture_output=True, text=True)
    assert "Candidate: 1.2-3" in policy.stdout, policy.stdout + policy.stderr
