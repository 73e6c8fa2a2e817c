"""The lab's chart repository: its source, helm's index, and the images in the registry's storage."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab import registry
from lab.charts import cert_manager, mirror
from lab.charts.catalogue import Build, Chart, Image
from lab.kubernetes.images import Link
from lab.settings import Settings

NOWHERE = "http://127.0.0.1:9/index.yaml"
CHART = Chart("example", "web", "1.2.3", {"Chart.yaml": b"name: web\nversion: 1.2.3\napiVersion: v2\n"})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(registry, "ensure_program", lambda settings: None)
    found = Settings(state_root=tmp_path / "state", cache_root=tmp_path / "cache")
    mirror.folder(found).mkdir(parents=True)
    return found


@pytest.fixture
def server() -> Iterator[str]:
    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/index.yaml"
    httpd.shutdown()


def given(folder: Path) -> Path:
    (folder / "example").mkdir(parents=True)
    (folder / "example" / CHART.archive_name).write_bytes(CHART.archive())
    return folder


def save(path: Path, name: str, layer: bytes) -> None:
    """A `docker save` archive of one image."""
    files = {
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": [name], "Layers": ["l.tar.gz"]}]).encode(),
        "c.json": json.dumps({"config": {"User": "7"}, "created": "2026-01-01T00:00:00Z"}).encode(),
        "l.tar.gz": gzip.compress(layer),
    }
    with tarfile.open(path, "w") as tar:
        for file, content in files.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_equal_charts_have_equal_bytes_and_helm_s_layout() -> None:
    assert CHART.archive() == CHART.archive()
    with tarfile.open(fileobj=io.BytesIO(CHART.archive())) as tar:
        assert tar.getnames() == ["web/Chart.yaml"]
    assert mirror.chart_description(CHART.archive()) == {"name": "web", "version": "1.2.3", "apiVersion": "v2"}


def test_given_charts_come_first(settings: Settings, tmp_path: Path, server: str) -> None:
    source = mirror.prepare(settings, given(tmp_path / "given"), ["v1"], print, official=server)
    assert (source.kind, mirror.read_source(settings)) == ("local", source)
    index = yaml.safe_load((mirror.folder(settings) / "example/index.yaml").read_text())
    (entry,) = index["entries"]["web"]
    assert (entry["version"], entry["urls"]) == ("1.2.3", ["web-1.2.3.tgz"])
    assert (mirror.folder(settings) / "example" / entry["urls"][0]).read_bytes() == CHART.archive()


def test_the_newest_version_is_first_in_the_index(settings: Settings, tmp_path: Path) -> None:
    folder = given(tmp_path / "given")
    newer = Chart("example", "web", "1.10.0", {"Chart.yaml": b"name: web\nversion: 1.10.0\n"})
    (folder / "example" / newer.archive_name).write_bytes(newer.archive())
    mirror.prepare(settings, folder, ["v1"], print)
    index = yaml.safe_load((mirror.folder(settings) / "example/index.yaml").read_text())
    assert [entry["version"] for entry in index["entries"]["web"]] == ["1.10.0", "1.2.3"]


def test_images_of_given_charts_are_published(settings: Settings, tmp_path: Path) -> None:
    folder = given(tmp_path / "given")
    (folder / "images").mkdir()
    save(folder / "images/web.tar", "quay.io/example/web:1.2.3", b"layer")
    mirror.prepare(settings, folder, ["v1"], print)
    tag = registry.storage(settings).root / "docker/registry/v2/repositories/example/web/_manifests/tags/1.2.3"
    digest = (tag / "current/link").read_text()
    assert registry.storage(settings).has_image("example/web", digest)


def test_a_folder_without_charts_is_rejected(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(mirror.ChartError, match=r"has no folder with charts\. Copy charts to"):
        mirror.prepare(settings, tmp_path / "empty", ["v1"], print)


def test_the_official_repositories_come_second(settings: Settings, server: str) -> None:
    source = mirror.prepare(settings, None, ["v1"], print, official=server)
    assert source.kind == "official"
    described = mirror.describe(settings, source, "https://192.0.2.1")
    assert (described["mirror"], described["registry"]) == ("", "")


def test_the_lab_s_own_charts_come_last(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = Image("quay.io/example/web:1", {"app/web": b"program", "app/link": Link("web")}, {"User": "1000"})
    own = Chart("example", "web", "1.2.3", dict(CHART.files), (image,), simulation=True, note="web is a simulation")
    monkeypatch.setattr(mirror.build, "programs", lambda *_: {"v1": tmp_path / "v1"})
    monkeypatch.setattr(mirror, "charts", lambda build: [own])
    source = mirror.prepare(settings, None, ["v1"], print, official=NOWHERE)
    assert source == mirror.Source("simulation", "Charts of the lab. web is a simulation.")
    assert mirror.describe(settings, source, "https://192.0.2.1")["mirror"] == "https://192.0.2.1/charts"
    assert (mirror.folder(settings) / "example/web-1.2.3.tgz").exists()


def test_cert_manager_has_one_image_for_each_program(tmp_path: Path) -> None:
    folder = tmp_path / "charts/cert-manager"
    folder.mkdir(parents=True)
    (folder / "Chart.yaml").write_text("name: cert-manager\nversion: v0.0.0\nappVersion: v0.0.0\n")
    (folder / "templates").mkdir()
    (folder / "templates/webhook-deployment.yaml").write_text("metadata:\n  labels:\n    app: x\nspec:\n  labels:\n")
    (chart,) = cert_manager.charts(Build(tmp_path, tmp_path / "charts"))
    assert chart.files["Chart.yaml"].decode().count(chart.version) == 2
    webhook = chart.files["templates/webhook-deployment.yaml"].decode()
    assert webhook == 'metadata:\n  labels:\n    slipway.dev/simulation: "true"\n    app: x\nspec:\n  labels:\n'
    assert [image.repository for image in chart.images] == [
        "jetstack/cert-manager-controller",
        "jetstack/cert-manager-cainjector",
        "jetstack/cert-manager-webhook",
    ]
    assert {image.tag for image in chart.images} == {chart.version}
