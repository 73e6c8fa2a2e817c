"""The summary of `lab up` as rendered text."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab import summary
from lab.settings import Settings

from .conftest import SERVERS, describe

PLATFORM = summary.Platform("apps.test", Path("/ca.pem"), "https://s3.test", "lab-backup")
STORE = SERVERS[0] | {
    "name": "lab-store-1",
    "public": {"ipv4": "198.18.0.61"},
    "labels": {"slipway_environment": "lab-store", "slipway_group": "object_storage"},
}
REPORT = {
    "phases": [
        {"name": "Provision the machines", "seconds": 21.4, "changed": 12},
        {"name": "Build the Kubernetes cluster", "seconds": 93.0, "changed": 40},
    ]
}


def rendered(renderable: Any) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def page(settings: Settings, **changes: Any) -> str:
    arguments: dict[str, Any] = {"report": REPORT, "seconds": 184.0, "platform": PLATFORM} | changes
    cloud = {"servers": SERVERS}
    return rendered(
        summary.page(
            describe(settings), cloud, arguments["report"],
            settings=settings, seconds=arguments["seconds"], platform=arguments["platform"],
        )
    )  # fmt: skip


def test_page_lists_hosts_endpoints_times_and_simulations(settings: Settings) -> None:
    text = page(settings)
    for words in (
        "The platform is running", "3 min 04 s", "lab-lb-1", "198.18.0.10", "https://apps.test/, at 198.18.0.10",
        "--resolve apps.test:443:198.18.0.10",
        "https://198.18.0.10:6443",
        "kubectl --kubeconfig", "Provision the machines", "21 s", "1 min 33 s", "40", "RKE2 is a simulation.",
        f"SLIPWAY_LAB=unit SLIPWAY_LAB_SLOT={settings.slot} lab ssh",
    ):  # fmt: skip
        assert words in text.replace("\n", " ") or words in text, words


def test_page_lists_the_sources_of_images(settings: Settings) -> None:
    text = page(settings)
    assert "https://198.19.255.1:8402/ (Ceph 20.2.4)" in text
    assert "Ceph is composed here." in text
    assert "Host images carry packages." in text
    cloud = {"servers": SERVERS, "counts": {}, "memory_mb": 1.0}
    assert "Host images carry packages." in rendered(summary.status(describe(settings), cloud))


def test_page_lists_the_object_storage(settings: Settings) -> None:
    line = "https://s3.test, at 198.18.0.61, bucket lab-backup"
    cloud = {"servers": [*SERVERS, STORE], "counts": {}, "memory_mb": 1.0}
    assert line in rendered(summary.status(describe(settings), cloud, PLATFORM))
    assert line in rendered(
        summary.page(describe(settings), cloud, None, settings=settings, seconds=1.0, platform=PLATFORM)
    )
    assert "object storage" not in page(settings)
    assert "object storage" not in rendered(summary.status(describe(settings), cloud | {"servers": SERVERS}, PLATFORM))


def test_the_default_lab_requires_no_variables(settings: Settings) -> None:
    assert "SLIPWAY_LAB=" not in rendered(
        summary.page(
            describe(settings), {"servers": SERVERS}, None, settings=Settings(), seconds=1.0, platform=PLATFORM
        )
    )


def test_page_of_only_the_cloud(settings: Settings) -> None:
    text = page(settings, platform=None, report=None)
    assert "The local cloud is running" in text
    assert "kubeconfig" not in text


@pytest.mark.parametrize("broken", ["", "{", "[1]", '{"playbook": "destroy"}'])
def test_an_invalid_report_is_ignored(tmp_path: Path, broken: str) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "run.json").write_text(broken)
    assert summary.newest_report(tmp_path) is None


def test_the_newest_report_of_the_site_is_used(tmp_path: Path) -> None:
    for age, (name, playbook) in enumerate([("d", "check"), ("c", "site"), ("b", "site"), ("a", "site")]):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "run.json"
        path.write_text(json.dumps({"phases": [], "playbook": playbook, "name": name}))
        os.utime(path, (1000 - age, 1000 - age))
    report = summary.newest_report(tmp_path)
    assert report is not None
    assert report["name"] == "c"
    assert summary.newest_report(tmp_path, since=1000) is None
