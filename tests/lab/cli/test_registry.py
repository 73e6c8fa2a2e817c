"""The real image registry: it serves its storage read-only and is restarted after a kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from lab import oci, pki, registry
from lab.machines.base import MachineError
from lab.settings import CACHE_ROOT, Settings

HOST = "127.0.0.1"
IMAGE = "some/image"


@pytest.fixture
def served(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A lab on loopback, with the registry program of this machine's cache if it has one."""
    monkeypatch.setattr(Settings, "machine_address", property(lambda self: HOST))
    settings.state_dir.mkdir(parents=True)
    cached = Settings(settings.name, settings.slot, settings.state_root, CACHE_ROOT)
    program = registry.program(cached) if registry.program(cached).exists() else registry.ensure_program(settings)
    monkeypatch.setattr(registry, "program", lambda settings: program)
    return settings


@contextmanager
def running(settings: Settings) -> Iterator[ssl.SSLContext]:
    authority = pki.ensure_authority(settings.state_dir / "pki", settings.name)
    certificate = pki.ensure_certificate(settings.state_dir / "pki", authority, "mirror", (HOST,))
    loop, ended = asyncio.new_event_loop(), asyncio.Event()
    # The process ends with the thread that started it, so the loop runs in a thread of its own.
    thread = Thread(target=loop.run_until_complete, args=(registry.serve(settings, HOST, certificate, ended),))
    thread.start()
    try:
        yield ssl.create_default_context(cafile=str(authority.certificate_path))
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        assert not thread.is_alive()
        loop.close()


def publish(settings: Settings) -> str:
    storage = registry.storage(settings)
    layer = oci.Layer(storage.add(oci.layer({"etc/hello": "hello\n"})), "a file")
    return storage.publish(IMAGE, "v1", (layer,), {"Cmd": ["/bin/true"]}, "2026-01-01T00:00:00Z")


def fetch(settings: Settings, context: ssl.SSLContext, path: str, method: str = "GET") -> bytes:
    request = urllib.request.Request(f"https://{registry.address(settings)}/v2/{path}", method=method)
    request.add_header("Accept", oci.MANIFEST)
    with urllib.request.urlopen(request, timeout=10, context=context) as response:
        content: bytes = response.read()
        return content


def test_an_image_is_served_by_digest_and_by_tag(served: Settings) -> None:
    digest = publish(served)
    assert registry.storage(served).has_image(IMAGE, digest)
    with running(served) as trust:
        registry.wait_for_image(served, served.state_dir / "pki/ca.pem", IMAGE, digest)
        manifest = fetch(served, trust, f"{IMAGE}/manifests/{digest}")
        assert manifest == fetch(served, trust, f"{IMAGE}/manifests/v1")
        layer = json.loads(manifest)["layers"][0]["digest"]
        assert b"hello" in fetch(served, trust, f"{IMAGE}/blobs/{layer}")
        with pytest.raises(urllib.error.HTTPError) as rejected:
            fetch(served, trust, f"{IMAGE}/blobs/uploads/", "POST")
        assert rejected.value.code == 405


def test_a_killed_registry_is_restarted(served: Settings, caplog: pytest.LogCaptureFixture) -> None:
    digest = publish(served)
    authority = served.state_dir / "pki/ca.pem"
    with running(served):
        registry.wait_for_image(served, authority, IMAGE, digest)
        config = str(served.state_dir / "registry.json").encode()
        (pid,) = (path for path in Path("/proc").glob("[0-9]*/cmdline") if config in read(path))
        os.kill(int(pid.parent.name), signal.SIGKILL)
        registry.wait_for_image(served, authority, IMAGE, digest)
    assert not registry.serves_image(served, authority, IMAGE, digest)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_an_unreachable_registry_is_one_message(served: Settings) -> None:
    authority = pki.ensure_authority(served.state_dir / "pki", served.name)
    with pytest.raises(MachineError, match=r"does not serve some/image\. See .*registry\.log"):
        registry.wait_for_image(served, authority.certificate_path, IMAGE, "sha256:0", seconds=0.2)
