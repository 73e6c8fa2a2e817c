"""The release mirror: precedence of sources, checksums, and the official layout over HTTPS with the lab's CA."""

from __future__ import annotations

import hashlib
import ssl
import sys
import threading
import types
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import uvicorn

from lab import mirror, pki
from lab.mirror import CHECKSUMS, TARBALL, VERSIONS, MirrorError, Progress, Source
from lab.settings import Settings
from tests.support.deadlines import until

from .conftest import free_port

NOWHERE = "http://127.0.0.1:9/releases"
"""The discard port: the connection is refused."""
IMAGES = "rke2-images-core.linux-amd64.tar"


def silent(text: str) -> None:
    return


def make_release(folder: Path, content: bytes = b"tarball") -> Path:
    folder.mkdir(parents=True)
    (folder / TARBALL).write_bytes(content)
    (folder / CHECKSUMS).write_text(f"{hashlib.sha256(content).hexdigest()}  {TARBALL}\n{'0' * 64}  rke2.linux-arm64\n")
    return folder


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test double of the builder; the real one has its own tests."""
    module = types.ModuleType("lab.rke2sim.package")

    def build(version: str, folder: Path, cache: Path) -> None:
        content = f"simulated {version}".encode()
        (folder / TARBALL).write_bytes(content)
        (folder / CHECKSUMS).write_text(f"{hashlib.sha256(content).hexdigest()}  {TARBALL}\n")

    def build_images(version: str, folder: Path, cache: Path, kubernetes: Path, progress: Progress) -> None:
        content = (kubernetes / "kubernetes").read_bytes()
        (folder / IMAGES).write_bytes(content)
        line = f"{hashlib.sha256(content).hexdigest()}  {IMAGES}\n"
        (folder / CHECKSUMS).write_text((folder / CHECKSUMS).read_text() + line)

    def programs(cache: Path, versions: Sequence[str], progress: Progress) -> dict[str, Path]:
        for version in versions:
            (cache / version).mkdir(parents=True, exist_ok=True)
            (cache / version / "kubernetes").write_text(f"Kubernetes {version}")
        return {version: cache / version for version in versions}

    monkeypatch.setattr("lab.kubernetes.build.programs", programs)
    module.build = build  # type: ignore[attr-defined]
    module.build_images = build_images  # type: ignore[attr-defined]
    module.PackageError = RuntimeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lab.rke2sim.package", module)
    monkeypatch.setattr("lab.rke2sim.package", module, raising=False)


def test_given_artifacts_have_precedence(settings: Settings, tmp_path: Path) -> None:
    make_release(tmp_path / "given" / VERSIONS[0])
    release = mirror.prepare(settings, tmp_path / "given", silent, official_url=NOWHERE)
    assert release.source is Source.LOCAL
    assert (mirror.release_dir(settings) / VERSIONS[0] / TARBALL).read_bytes() == b"tarball"
    assert mirror.read_release(settings) == release


def test_artifacts_without_the_required_version_are_an_error(settings: Settings, tmp_path: Path) -> None:
    make_release(tmp_path / "given" / "v1.30.0+rke2r1")
    with pytest.raises(MirrorError, match=r"has no folder v1\.36\.3\+rke2r1"):
        mirror.prepare(settings, tmp_path / "given", silent)


def test_damaged_artifacts_are_an_error(settings: Settings, tmp_path: Path) -> None:
    (make_release(tmp_path / "given" / VERSIONS[0]) / TARBALL).write_bytes(b"other")
    with pytest.raises(MirrorError, match="the file is damaged"):
        mirror.prepare(settings, tmp_path / "given", silent)


@pytest.fixture
def official(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A test double of the official release: (address, requested paths)."""
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    root = tmp_path / "official"
    for version in VERSIONS:
        make_release(root / version, f"official {version}".encode())
    paths: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, code: object = "-", size: object = "-") -> None:
            paths.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(root)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", paths
    server.shutdown()
    server.server_close()


def test_the_official_release_is_downloaded_once(settings: Settings, official: tuple[str, list[str]]) -> None:
    url, paths = official
    assert mirror.prepare(settings, None, silent, official_url=url).source is Source.OFFICIAL
    served = mirror.release_dir(settings) / VERSIONS[0] / TARBALL
    assert served.read_bytes() == f"official {VERSIONS[0]}".encode()
    assert any("%2B" in path for path in paths)
    paths.clear()
    assert mirror.prepare(settings, None, silent, official_url=url).source is Source.OFFICIAL
    assert paths == []


def test_a_damaged_download_is_an_error_and_removed(
    settings: Settings, official: tuple[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "official" / VERSIONS[0] / TARBALL).write_bytes(b"cut short")
    with pytest.raises(MirrorError, match="the file is damaged"):
        mirror.prepare(settings, None, silent, official_url=official[0])
    assert not list(settings.cache_dir.rglob(TARBALL))


def test_without_both_the_release_is_a_simulation(settings: Settings, simulation: None) -> None:
    release = mirror.prepare(settings, None, silent, official_url=NOWHERE)
    assert release.source is Source.SIMULATION
    assert "simulation" in release.note
    assert {path.name for path in mirror.release_dir(settings).iterdir()} == {*VERSIONS, "release.json"}


def test_archives_of_images_are_those_that_every_version_has(
    settings: Settings, tmp_path: Path, simulation: None
) -> None:
    mirror.prepare(settings, None, silent, official_url=NOWHERE)
    assert mirror.image_archives(settings) == [IMAGES]
    served = mirror.release_dir(settings) / VERSIONS[1] / IMAGES
    assert served.read_text() == f"Kubernetes {VERSIONS[1]}"
    for version, names in {
        VERSIONS[0]: (IMAGES, "rke2-images-canal.linux-amd64.tar.zst"),
        VERSIONS[1]: (IMAGES,),
    }.items():
        folder = make_release(tmp_path / "given" / version)
        for name in names:
            (folder / name).write_bytes(b"images")
    mirror.prepare(settings, tmp_path / "given", silent)
    assert mirror.image_archives(settings) == [IMAGES]


def test_a_change_of_source_removes_the_old_release(settings: Settings, tmp_path: Path, simulation: None) -> None:
    make_release(tmp_path / "given" / VERSIONS[0])
    mirror.prepare(settings, None, silent, official_url=NOWHERE)
    mirror.prepare(settings, tmp_path / "given", silent)
    assert {path.name for path in mirror.release_dir(settings).iterdir()} == {VERSIONS[0], "release.json"}
    mirror.prepare(settings, None, silent, official_url=NOWHERE)
    assert (tmp_path / "given" / VERSIONS[0] / TARBALL).read_bytes() == b"tarball"
    assert b"simulated" in (mirror.release_dir(settings) / VERSIONS[0] / TARBALL).read_bytes()


@pytest.fixture
def served(settings: Settings, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(address of the mirror, the lab's CA)."""
    make_release(tmp_path / "given" / VERSIONS[0], b"x" * 200_000)
    mirror.prepare(settings, tmp_path / "given", silent)
    authority = pki.ensure_authority(settings.state_dir / "pki", settings.name)
    pair = pki.ensure_certificate(settings.state_dir / "pki", authority, "mirror", ("127.0.0.1",))
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            mirror.create_app(settings),
            host="127.0.0.1",
            port=port,
            log_level="error",
            ssl_certfile=pair.certificate_path,
            ssl_keyfile=pair.key_path,
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started or not thread.is_alive(), 60, pause=0.005)
    assert server.started, "the mirror does not start"
    yield f"https://127.0.0.1:{port}/rke2/releases/download", authority.certificate_path
    server.should_exit = True
    thread.join(10)


def test_the_official_layout_is_served_over_tls(served: tuple[str, Path]) -> None:
    url, authority = served
    context = ssl.create_default_context(cafile=str(authority))
    for version in (VERSIONS[0].replace("+", "%2B"), VERSIONS[0]):
        with urllib.request.urlopen(f"{url}/{version}/{CHECKSUMS}", context=context) as answer:
            listed = answer.read().decode().split()[0]
        with urllib.request.urlopen(f"{url}/{version}/{TARBALL}", context=context) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == listed


def test_a_client_without_the_ca_does_not_trust_it(served: tuple[str, Path]) -> None:
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"{served[0]}/release.json", context=ssl.create_default_context())


def test_unknown_paths_are_not_found(served: tuple[str, Path]) -> None:
    context = ssl.create_default_context(cafile=str(served[1]))
    for path in ("v9.9.9%2Brke2r1/" + TARBALL, "../pki/ca.key", "%2e%2e/%2e%2e/pki/ca.key"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{served[0]}/{path}", context=context)
