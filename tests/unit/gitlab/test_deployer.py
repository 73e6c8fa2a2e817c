"""What `lab gitlab prepare` writes to the runner's host."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import pytest

from lab import daemon
from lab.gitlab import deployer
from lab.settings import Settings


@pytest.fixture(scope="module")
def archive() -> tarfile.TarFile:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as written:
        deployer.write_python(written)
    return tarfile.open(fileobj=io.BytesIO(stream.getvalue()))


def test_the_environment_has_every_package_and_collection_of_the_execution_environment(
    archive: tarfile.TarFile,
) -> None:
    names = archive.getnames()
    lines = (deployer.REPOSITORY / "ci/requirements.txt").read_text().splitlines()[1:]
    wanted = {re.sub("[-.]", "_", line.partition(" ")[0].replace("==", "-", 1)).lower() for line in lines}
    found = {
        re.sub("[-.]", "_", match[1]).lower() for name in names if (match := re.search(r"/([^/]+)\.dist-info/", name))
    }
    assert wanted - found == set()
    for name in ("hetzner/hcloud", "kubernetes/core", "community/crypto", "community/postgresql"):
        assert f"{deployer.SITE_PACKAGES}/ansible_collections/{name}/MANIFEST.json" in names


def test_its_programs_run_with_its_python(archive: tarfile.TarFile) -> None:
    program = archive.extractfile("opt/slipway/bin/ansible-playbook")
    assert program and program.readline() == b"#!/opt/slipway/bin/python3\n"
    assert archive.getmember("opt/slipway/bin/ansible-playbook").mode == 0o755
    assert archive.getmember("opt/slipway/bin/python3").linkname == "/usr/bin/python3"


def test_the_description_on_the_host_names_the_api_that_hosts_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: tmp_path / name for name in ("secrets.yml", "gitlab_runners.yml", "key", "ca.pem")}
    for name, path in files.items():
        path.write_text(name)
    description = {
        "api_endpoint": "http://127.0.0.1:8400/v1",
        "hosts_api_endpoint": "https://198.19.255.1:8406/v1",
        "secrets_path": str(files["secrets.yml"]),
        "ssh_private_key_path": str(files["key"]),
        "ca_certificate_path": str(files["ca.pem"]),
    }
    monkeypatch.setattr(daemon, "read_description", lambda settings: description)
    settings = Settings(name="unit", state_root=tmp_path)
    found = deployer.state_files(settings)
    assert json.loads(found.pop(str(settings.description)))["api_endpoint"] == "https://198.19.255.1:8406/v1"
    assert found == {str(path): name.encode() for name, path in files.items()}
