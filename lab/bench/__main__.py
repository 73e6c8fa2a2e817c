"""Runs the benchmarks in a lab named `bench`, in a free slot, which is created for the run and removed after it.

The results are written to artifacts/bench/<time>.json. This is not a test: load on the machine distorts the results.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml
from rich.console import Console

from lab import daemon, mirror, preflight, summary
from lab.bench import postgresql, restore, scale, storage
from lab.bench.goals import Figure, table
from lab.settings import SLOTS, Settings

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
NAME = "bench"
INVENTORY = "inventories/lab"
MANY = 30
LISTED = 1000
IDLE_SECONDS = 30

out = Console()


def main(
    site: Annotated[bool, typer.Option(help="Build the whole platform, then run every play again.")] = True,
    hosts: Annotated[bool, typer.Option(help="Measure real hosts.")] = True,
) -> None:
    """Measure the lab against its goals."""
    os.environ.update(SLIPWAY_LAB=NAME, SLIPWAY_LAB_SLOT=str(_free_slot()))
    settings = Settings.from_environment()
    figures: list[Figure] = []
    figures += list(_print_figures(listing(settings.slot)))
    with _temporary_lab():
        if hosts:
            _lab("up", "--only-cloud")
            figures += list(_print_figures(one_host(settings)))
            figures += list(_print_figures(many_hosts(settings)))
            _lab("reset")
        if site:
            figures += list(_print_figures(site_runs()))
            figures += list(_print_figures(storage.ratios(settings, REPOSITORY / "inventories" / "lab")))
            figures += list(_print_figures(postgresql.ratios(settings, REPOSITORY / "inventories" / "lab")))
            figures += list(_print_figures(restore.restores(settings, REPOSITORY / INVENTORY, _play)))
            figures += list(_print_figures(scale.per_host(REPOSITORY / INVENTORY, _play)))
    out.rule(style="dim")
    out.print(table(figures))
    results_path = REPOSITORY / "artifacts" / "bench" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    results_path.parent.mkdir(parents=True, exist_ok=True)
    results_path.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n", encoding="utf-8")
    out.print(f"[dim]written to {results_path.relative_to(REPOSITORY)}[/]")


def _free_slot() -> int:
    for slot in range(SLOTS - 1, -1, -1):
        seen = preflight.inspect_machine(Settings(NAME, slot))
        if not (seen.ports_taken or seen.slot_owner or seen.addresses_taken):
            return slot
    raise SystemExit("bench: every slot of this machine is in use. Remove a lab with: lab down")


def _print_figures(figures: Iterable[Figure]) -> Iterator[Figure]:
    for figure in figures:
        out.print(f"  {figure.name}: {figure.value_text} [dim]{figure.goal_text}[/]", highlight=False)
        yield figure


def _lab(*arguments: str) -> None:
    done = subprocess.run(
        [PROGRAMS / "lab", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"bench: `lab {' '.join(arguments)}` failed:\n{done.stdout[-4000:]}")


@contextlib.contextmanager
def _temporary_lab() -> Iterator[None]:
    try:
        yield
    finally:
        _lab("down")


class Cloud:
    """Plain HTTP client of the API: the polling of the official client would be part of the times."""

    def __init__(self, settings: Settings) -> None:
        self.description = daemon.read_description(settings)
        self.key = Path(self.description["ssh_private_key_path"])
        self.http = httpx.Client(
            base_url=self.description["api_endpoint"],
            headers={"Authorization": f"Bearer {self.description['token']}"},
            timeout=60,
        )

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        if answer.is_error:
            raise SystemExit(f"bench: POST {path} failed with status {answer.status_code}: {answer.text}")
        return dict(answer.json())

    def create(self, name: str) -> tuple[int, str]:
        """(id, address) of a new server."""
        body = {"name": name, "server_type": "cx23", "image": "debian-13", "location": "fsn1", "ssh_keys": ["bench"]}
        server = self.post("/servers", body)["server"]
        return int(server["id"]), str(server["public_net"]["ipv4"]["ip"])

    def wait_for_ssh(self, address: str) -> None:
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=2"]
        command = ["ssh", "-i", str(self.key), *(f"-o{option}" for option in options), f"root@{address}", "true"]
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            # Without the port check, 30 failing ssh processes four times a second would distort the measurement.
            if _listens(address) and subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return
            time.sleep(0.25)
        raise SystemExit(f"bench: {address}: no SSH login within 300 s")


def _listens(address: str) -> bool:
    try:
        socket.create_connection((address, 22), timeout=2).close()
    except OSError:
        return False
    return True


def _measure_seconds(run: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    started = time.monotonic()
    run(*arguments, **options)
    return time.monotonic() - started


def one_host(settings: Settings) -> Iterator[Figure]:
    cloud = Cloud(settings)
    cloud.post("/ssh_keys", {"name": "bench", "public_key": cloud.description["ssh_public_key"]})

    def create_and_log_in(name: str) -> None:
        cloud.wait_for_ssh(cloud.create(name)[1])

    times = [_measure_seconds(create_and_log_in, name) for name in ("one", "two", "three")]
    yield Figure("server: create until a command runs over SSH", statistics.median(times), "s", 6, "median of 3")
    for server in cloud.http.get("/servers").json()["servers"]:
        cloud.http.delete(f"/servers/{server['id']}")


def many_hosts(settings: Settings) -> Iterator[Figure]:
    cloud = Cloud(settings)
    ids = []

    def create_numbered(number: int) -> None:
        server_id, address = cloud.create(f"many-{number}")
        ids.append(server_id)
        cloud.wait_for_ssh(address)

    with ThreadPoolExecutor(MANY) as pool:
        yield Figure(
            f"{MANY} servers at once", _measure_seconds(lambda: list(pool.map(create_numbered, range(MANY)))), "s", 60
        )
    time.sleep(IDLE_SECONDS)
    sizes = [_host_megabytes(settings.container_name(server_id)) for server_id in ids]
    yield Figure("an idle host", statistics.median(sizes), "MB", 60, f"median of {MANY}, page cache in use included")
    yield Figure(f"daemon with {MANY} servers", _resident_megabytes(cloud.description["pid"]), "MB", 150)
    yield from _measure_api(cloud, ids)


def _measure_api(cloud: Cloud, ids: list[int]) -> Iterator[Figure]:
    paths = [f"/servers/{ids[0]}", "/servers", "/ssh_keys", "/server_types", "/actions?per_page=5", "/networks"]
    times = [_measure_seconds(cloud.http.get, path) * 1000 for _ in range(50) for path in paths]
    yield Figure("API response", statistics.median(times), "ms", 10, f"median of {len(times)}")
    bodies = [{"name": f"group-{number}", "type": "spread"} for number in range(50)]
    times = [_measure_seconds(cloud.post, "/placement_groups", body) * 1000 for body in bodies]
    yield Figure(
        "API response to a change", statistics.median(times), "ms", None, "median of 50, with the write to disk"
    )


def listing(slot: int) -> Iterator[Figure]:
    """List a thousand servers that have no hosts, all pages."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    settings = Settings(NAME, slot, state_root=folder / "state", cache_root=folder / "cache")
    try:
        mirror.release_dir(settings).mkdir(parents=True)
        (mirror.release_dir(settings) / "release.json").write_text('{"source": "simulation", "note": "none"}')
        daemon.start(settings, machines="stub")
        cloud = Cloud(settings)
        cloud.post("/ssh_keys", {"name": "bench", "public_key": cloud.description["ssh_public_key"]})
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(cloud.create, (f"listed-{number}" for number in range(LISTED))))

        def list_all_pages() -> None:
            page: int | None = 1
            count = 0
            while page:
                answer = cloud.http.get("/servers", params={"page": page, "per_page": 50}).json()
                count += len(answer["servers"])
                page = answer["meta"]["pagination"]["next_page"]
            if count != LISTED:
                raise SystemExit(f"bench: the API listed {count} servers instead of {LISTED}")

        times = [_measure_seconds(list_all_pages) * 1000 for _ in range(5)]
        yield Figure(f"list of {LISTED:,} servers, all pages", statistics.median(times), "ms", 200, "median of 5")
    finally:
        daemon.stop(settings)
        shutil.rmtree(folder)


def site_runs() -> Iterator[Figure]:
    started = time.time()
    yield Figure("lab up, images and release cached", _measure_seconds(_lab, "up"), "s", 300)
    yield from storage.phases(summary.newest_report(REPOSITORY / "artifacts" / "lab", started))
    _run_playbook("playbooks/check.yml")  # fills the caches of facts and host keys
    yield from no_op_runs()


def no_op_runs() -> Iterator[Figure]:
    """Runs without changes: their time is part of every operation."""
    seconds, processor = _run_playbook("site.yml")
    hosts = len(_host_names())
    yield Figure("site.yml a second time", seconds, "s", 30, f"{hosts} hosts")
    yield Figure("… CPU time of the controller", processor, "s", 40)
    ping, _ = _run_timed([str(PROGRAMS / "ansible"), "all", "-i", INVENTORY, "-m", "ansible.builtin.ping"])
    yield Figure(
        "… as a multiple of one ping of all hosts", seconds / ping, "times", None, f"a ping takes {ping:.1f} s"
    )
    yield Figure("site.yml --check", _run_playbook("site.yml", "--check", "--diff")[0], "s", 40)
    yield Figure("check.yml", _run_playbook("playbooks/check.yml")[0], "s", 3)
    for name in ("base", "load_balancer", "ceph", "rke2", "postgresql", "verify"):
        yield Figure(f"{name}.yml alone, nothing to change", _run_playbook(f"playbooks/{name}.yml")[0], "s", 8)


def _host_names() -> list[str]:
    inventory = yaml.safe_load((REPOSITORY / INVENTORY / "hosts.yml").read_text(encoding="utf-8"))
    return [name for group in inventory["all"]["children"].values() for name in group.get("hosts") or {}]


def _play(playbook: str, inventory: Path) -> float:
    """Wall-clock seconds of a playbook on another inventory."""
    return _run_playbook(playbook, inventory=inventory)[0]


def _run_playbook(playbook: str, *options: str, inventory: Path | str = INVENTORY) -> tuple[float, float]:
    """Wall-clock seconds and CPU seconds of the controller."""
    return _run_timed([str(PROGRAMS / "ansible-playbook"), playbook, "-i", str(inventory), *options])


def _run_timed(command: list[str]) -> tuple[float, float]:
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"bench: `{' '.join(command[1:])}` failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _host_megabytes(container: str) -> float:
    """Memory of a host's control group without inactive file pages."""
    inspected = subprocess.run(
        ["podman", "inspect", "--format", "{{.State.Pid}}", container], capture_output=True, text=True, check=True
    )
    groups = Path(f"/proc/{inspected.stdout.strip()}/cgroup").read_text(encoding="ascii").splitlines()
    legacy = next((line.split(":", 2)[2] for line in groups if line.split(":")[1] == "memory"), None)
    if legacy is not None:
        folder = Path("/sys/fs/cgroup/memory") / legacy.removesuffix("/init.scope").lstrip("/")
        usage, droppable = "memory.usage_in_bytes", "total_inactive_file"
    else:
        path = next(line.split(":", 2)[2] for line in groups if line.startswith("0::"))
        folder = Path("/sys/fs/cgroup") / path.removesuffix("/init.scope").lstrip("/")
        usage, droppable = "memory.current", "inactive_file"
    statistics_lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    inactive = next(int(line.split()[1]) for line in statistics_lines if line.split()[0] == droppable)
    return (int((folder / usage).read_text(encoding="ascii")) - inactive) / 1e6


def _resident_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1e3
    return 0.0


if __name__ == "__main__":
    typer.run(main)
