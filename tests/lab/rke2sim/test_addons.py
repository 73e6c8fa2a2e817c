"""The manifests folder of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.rke2sim.runtime.addons import Addons
from lab.rke2sim.runtime.config import Config
from lab.rke2sim.runtime.layout import Layout
from lab.rke2sim.runtime.resources import Obj
from lab.rke2sim.runtime.store import ApiError

from .conftest import Cluster

MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: NAME, namespace: kube-system}
data: {a: VALUE}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "server/manifests").mkdir(parents=True)
    return tmp_path


def addons(cluster: Cluster, folder: Path) -> Addons:
    return Addons(Config("server", {}), Layout(folder), cluster.api)


def value(cluster: Cluster, name: str) -> Any:
    resource = cluster.api.catalogue.find("", "v1", "configmaps")
    assert resource is not None
    found: Obj | None = cluster.run(cluster.store.find(resource, "kube-system", name))
    return found and found["data"]["a"]


def test_a_manifest_is_applied_and_again_when_it_changes(cluster: Cluster, folder: Path) -> None:
    path = folder / "server/manifests/first.yaml"
    keeper = addons(cluster, folder)
    for text in ("one", "three"):
        path.write_text(MANIFEST.replace("NAME", "first").replace("VALUE", text))
        cluster.run(keeper._scan())
        assert value(cluster, "first") == text


@pytest.mark.parametrize(("code", "again"), [(409, True), (503, True), (422, False)])
def test_temporary_errors_are_retried(
    cluster: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, again: bool
) -> None:
    name = f"passing-{code}"
    (folder / f"server/manifests/{name}.yaml").write_text(MANIFEST.replace("NAME", name).replace("VALUE", "x"))
    keeper = addons(cluster, folder)

    async def fail(*_: Any) -> None:
        raise ApiError(code, "Conflict", "not now")

    with monkeypatch.context() as broken:
        broken.setattr(keeper, "_apply", fail)
        cluster.run(keeper._scan())
    cluster.run(keeper._scan())
    assert value(cluster, name) == ("x" if again else None)
