"""What deploy jobs need on the runner's host, as the operator of a real runner prepares it once.

That is the Python environment of uv.lock, and the files that inventories/lab reads.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from lab import daemon, secrets
from lab.gitlab.store import GitlabError, Variable
from lab.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
HOST = "lab-gitlab-runner-1"
USER = "gitlab-runner"
PYTHON = "opt/slipway"
"""Directory of the environment, as in the execution environment."""
PYTHON_VERSION = (3, 13)
"""That of Debian 13, which the runner's host has: compiled packages fit only one."""
SITE_PACKAGES = f"{PYTHON}/lib/python{PYTHON_VERSION[0]}.{PYTHON_VERSION[1]}/site-packages"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def variables(settings: Settings) -> list[Variable]:
    """Variables of the project, by which its jobs apply to the lab (docs/pipeline.md)."""
    token = secrets.gitlab_token(settings)
    return [
        Variable("PATH", f"/{PYTHON}/bin:/usr/local/bin:/usr/bin:/bin"),
        Variable("INVENTORY", "inventories/lab"),
        Variable("SLIPWAY_LAB", settings.name),
        Variable("SLIPWAY_CONTROLLER_NETWORK", "private"),
        # The library of the cloud's API brings its own authorities; the lab's is among those of the host.
        Variable("REQUESTS_CA_BUNDLE", AUTHORITIES),
        *(
            Variable("SLIPWAY_API_TOKEN", token, masked=True, raw=True, protected=True, scope=environment)
            for environment in ("stage", "prod")
        ),
    ]


def prepare(settings: Settings) -> None:
    """Write it all to the host; what is there already is replaced."""
    if sys.version_info[:2] != PYTHON_VERSION:
        raise GitlabError(
            f"Python {sys.version_info[0]}.{sys.version_info[1]}: its packages do not run on {HOST}, which has "
            f"{PYTHON_VERSION[0]}.{PYTHON_VERSION[1]}. Remove .venv, install Python 3.13 and repeat lab/setup.sh"
        )
    state = state_files(settings)
    folder = settings.state_dir
    command = (
        # A package that is gone must not stay; the directories of the jobs' own files do.
        f"sudo rm -rf /{PYTHON} && sudo tar --extract --directory / --no-same-owner --owner=root && "
        f"sudo install --directory {folder}/ansible && sudo chown --recursive {USER}: {folder} && "
        f"sudo chmod 0700 {folder}"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "lab.cli", "ssh", HOST, "--", command],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stderr
        try:
            with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
                write_python(archive)
                for path, content in state.items():
                    add(archive, path, content, mode=0o600)
        except BrokenPipeError:
            pass  # the command has failed; its message follows
        message = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise GitlabError(f"{HOST}: the environment of deploy jobs was not written: {message[-500:]}. Repeat")


def state_files(settings: Settings) -> dict[str, bytes]:
    """Path on the host → content. lab.json names the address of the cloud's API that hosts reach."""
    description: dict[str, Any] = daemon.read_description(settings)
    found = {
        str(settings.description): json.dumps(
            {**description, "api_endpoint": description["hosts_api_endpoint"]}, indent=2
        ).encode()
    }
    paths = [description[name] for name in ("secrets_path", "ssh_private_key_path", "ca_certificate_path")]
    paths.append(str(Path(description["secrets_path"]).with_name("gitlab_runners.yml")))
    return found | {path: Path(path).read_bytes() for path in paths}


def write_python(archive: tarfile.TarFile) -> None:
    """A virtual environment of the host's Python with what the execution environment has."""
    add(archive, f"{PYTHON}/pyvenv.cfg", b"home = /usr/bin\ninclude-system-site-packages = false\n")
    link = tarfile.TarInfo(f"{PYTHON}/bin/python3")
    link.type, link.linkname = tarfile.SYMTYPE, "/usr/bin/python3"
    archive.addfile(link)
    for target, source in {**dict(package_files()), **dict(collection_files())}.items():
        content = source.read_bytes()
        if target.startswith(f"{PYTHON}/bin/") and content.startswith(b"#!"):
            content = f"#!/{PYTHON}/bin/python3\n".encode() + content.partition(b"\n")[2]
        add(archive, target, content, mode=0o755 if source.stat().st_mode & 0o100 else 0o644)


def package_files() -> Iterator[tuple[str, Path]]:
    """Files of the execution environment's packages, from the environment that this program runs in."""
    for line in (REPOSITORY / "ci/requirements.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        for file in metadata.distribution(line.partition("==")[0]).files or []:
            source = Path(str(file.locate()))
            if source.suffix == ".pyc" or not source.exists():
                continue
            is_program = ".." in file.parts
            yield f"{PYTHON}/bin/{source.name}" if is_program else f"{SITE_PACKAGES}/{file}", source


def collection_files() -> Iterator[tuple[str, Path]]:
    """Files of the collections in requirements.yml and of those they require."""
    root = Path(str(metadata.distribution("ansible").locate_file("ansible_collections")))
    waiting = [entry["name"] for entry in yaml.safe_load((REPOSITORY / "requirements.yml").read_text())["collections"]]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        folder = root / name.replace(".", "/")
        about: Mapping[str, Any] = json.loads((folder / "MANIFEST.json").read_text())["collection_info"]
        waiting += list(about["dependencies"])
        for source in folder.rglob("*"):
            if source.is_file() and source.suffix != ".pyc" and "tests" not in source.relative_to(folder).parts:
                yield f"{SITE_PACKAGES}/ansible_collections/{source.relative_to(root)}", source


def add(archive: tarfile.TarFile, path: str, content: bytes, *, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(path.lstrip("/"))
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))
