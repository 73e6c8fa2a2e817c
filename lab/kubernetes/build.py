"""Builds the programs of Kubernetes from Go modules, once per content, into the lab's cache.

`go.mod` names the versions; `cmd/` has the programs of which upstream has no main that can be built. Only modules are
downloaded, and Go where this machine has none that is new enough: a machine that has the finished programs needs no
network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import debian
from lab.machines import builds

HERE = Path(__file__).parent
GO = (1, 26)
"""The oldest Go that builds the modules."""
GO_SUITE = "sid"
"""The Debian release that has it."""
BUILD_MEGABYTES = 7000
"""Free disk space that a build needs: Go's cache takes 3.2 GB, the modules 1.6 GB, the programs 0.7 GB."""
KEPT_BUILDS = 2
VERSION_VARIABLES = "k8s.io/component-base/version"
MODULE_CHARTS = {"cert-manager": ("github.com/cert-manager/cert-manager", "deploy/charts/cert-manager")}
"""Charts that are part of a module: name → module and folder in it."""
KUBERNETES = "kubernetes"
"""The one program that has the version of the release in it."""

Progress = Callable[[str], None]


class BuildError(Exception):
    """The programs cannot be built. The text is one sentence for the user."""


def module_version(module: str) -> str:
    """The version of a module that go.mod requires."""
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", (HERE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise BuildError(f"{HERE / 'go.mod'} requires no module {module}. Add it with `go get`.")
    return found.group(1)


def sources() -> dict[str, bytes]:
    """Everything that determines the programs, by path."""
    paths = [HERE / "go.mod", HERE / "go.sum", Path(__file__), *HERE.glob("cmd/*/*.go")]
    return {str(path.relative_to(HERE)): path.read_bytes() for path in sorted(paths)}


def content_hash(versions: Sequence[str]) -> str:
    digest = hashlib.sha256(" ".join(versions).encode())
    for name, content in sources().items():
        digest.update(name.encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def programs(cache: Path, versions: Sequence[str], progress: Progress) -> dict[str, Path]:
    """Release version → folder of its programs; built on first use, for all versions at once.

    The versions differ in the version that Kubernetes reports, not in its code: a second one costs seconds, and another
    code as much as the first.
    """
    folder = cache / "kubernetes" / content_hash(versions)
    with builds.locked(cache / "kubernetes" / "lock"):
        if not folder.exists():
            with builds.work_folder(folder) as work:
                (work / "programs").mkdir()
                _build(work, versions, progress)
                (work / "programs").replace(folder)
        folder.touch()
        # The one that was used before is kept, for a machine with two checkouts.
        used = sorted(folder.parent.glob("*/"), key=lambda path: path.stat().st_mtime, reverse=True)
        for stale in used[KEPT_BUILDS:]:
            shutil.rmtree(stale)
    return {version: folder / version for version in versions}


def module_charts(programs: Path) -> Path:
    """The folder of the charts, beside a version's folder of programs."""
    return programs.parent / "charts"


def _build(work: Path, versions: Sequence[str], progress: Progress) -> None:
    if (free := shutil.disk_usage(work).free // 2**20) < BUILD_MEGABYTES:
        raise BuildError(
            f"{work.parent}: {free} MB are free, building Kubernetes needs {BUILD_MEGABYTES} MB. Free space there or "
            "set SLIPWAY_CACHE_ROOT to a folder on another disk."
        )
    go = find_go(work / "go", progress)
    environment = _environment(work, go)
    packages = subprocess.run(
        [go, "list", "-deps", "tool", "./cmd/..."],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    total = len(packages.stdout.split()) or 1
    for name, (module, subfolder) in MODULE_CHARTS.items():
        shown = subprocess.run(
            [go, "list", "-m", "-f", "{{.Dir}}", module], cwd=HERE, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if shown.returncode:
            raise BuildError(
                f"module {module} cannot be read: {shown.stderr.strip()[-300:]}. Correct the cause and run again."
            )
        shutil.copytree(
            Path(shown.stdout.strip(), subfolder), work / "programs" / "charts" / name, copy_function=shutil.copyfile
        )
    for version in versions:
        target = work / "programs" / version
        target.mkdir()
        what = ["tool", "./cmd/..."] if version == versions[0] else [f"./cmd/{KUBERNETES}"]
        done = 0
        with subprocess.Popen(
            [go, "build", "-v", "-trimpath", f"-ldflags={link_flags(version)}", "-o", f"{target}/", *what],
            cwd=HERE, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            output = []
            try:
                for line in process.stderr:
                    output.append(line.rstrip())
                    done += 1
                    progress(f"building Kubernetes {version}: {min(done, total)} of {total} packages")
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode:
            faults = [line for line in output if " " in line][-3:]
            raise BuildError(f"go build of {HERE} failed: {'; '.join(faults)}. Correct the cause and run again.")
        for path in (work / "programs" / versions[0]).iterdir():
            if not (target / path.name).exists():
                os.link(path, target / path.name)


def link_flags(version: str) -> str:
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(["-s", "-w", *(f"-X {VERSION_VARIABLES}.{name}={value}" for name, value in values.items())])


def _environment(work: Path, go: Path) -> dict[str, str]:
    """Variables of Go. Its cache is in the work folder and ends with the build; a refused module ends the build.

    `SLIPWAY_GO_CACHE` names a folder that keeps the cache, for those who work on the programs.
    """
    cache = Path(os.environ.get("SLIPWAY_GO_CACHE", work / "gocache"))
    temporary = work / "tmp"
    temporary.mkdir()
    proxies = subprocess.run([go, "env", "GOPROXY"], capture_output=True, text=True, check=True).stdout
    return {
        **os.environ,
        "GOCACHE": str(cache), "GOTMPDIR": str(temporary), "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly",
        "GOPROXY": proxies.strip().removesuffix(",direct"), "CGO_ENABLED": "0",
    }  # fmt: skip


def find_go(target: Path, progress: Progress) -> Path:
    """The go command: this machine's where it is new enough, else Debian's, extracted to a folder of the build."""
    if (own := shutil.which("go")) is not None:
        shown = subprocess.run([own, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
        found = re.match(r"go(\d+)\.(\d+)", shown)
        if found is not None and (int(found.group(1)), int(found.group(2))) >= GO:
            return Path(own)
    name = f"{GO[0]}.{GO[1]}"
    progress(f"downloading Go {name} from Debian {GO_SUITE}")
    try:
        debian.extract(GO_SUITE, (f"golang-{name}-go", f"golang-{name}-src"), target)
    except debian.DebianError as error:
        raise BuildError(f"this machine has no Go {name}, and {error}. Install Go {name} or newer.") from error
    return target / f"usr/lib/go-{name}/bin/go"
