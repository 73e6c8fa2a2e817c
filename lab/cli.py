"""The lab command line: create and remove the lab, show its status, inject faults."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from lab import daemon
from lab.admin import Admin, AdminError
from lab.gitlab.cli import app as gitlab_app
from lab.secrets import make_private_dir, write_private
from lab.settings import Settings

if TYPE_CHECKING:
    from rich.status import Status

    from lab import ceph, mirror, summary
    from lab.charts import mirror as charts

REPOSITORY = Path(__file__).resolve().parents[1]
HOST_IMAGE = "debian-13"
"""The image of the platform's hosts, built before the daemon starts; others are built at first use."""
ADMIN_USER = "slipway"
"""The user that the platform creates on its servers; other servers have only root."""
PUBLIC_NAME = "rancher"
"""A public name of the platform, in its domain."""
ENVIRONMENT_LABEL = "slipway_environment"

app = typer.Typer(
    name="lab",
    help="The outside world on one machine: a local Hetzner Cloud with real Linux hosts, and the platform on it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
fault_app = typer.Typer(help="Inject faults and clear them.", no_args_is_help=True)
app.add_typer(fault_app, name="fault")
app.add_typer(gitlab_app, name="gitlab")

# Without a terminal there is no width: 120 columns fit a table of servers.
out = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
err = Console(stderr=True)


def main() -> None:
    """Entry point: an expected failure is one message, not a traceback."""
    # SIGTERM as an exception, so that child processes (Ansible, the build of an image) are ended as well.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        app()
    except KeyboardInterrupt:
        err.print("lab: interrupted")
        raise SystemExit(130) from None


def fail(message: object) -> NoReturn:
    err.print(f"[red]lab:[/] {_escaped(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def _escaped(message: object) -> str:
    from rich.markup import escape

    return escape(str(message))


def _settings() -> Settings:
    try:
        return Settings.from_environment()
    except ValueError as error:
        fail(error)


@contextlib.contextmanager
def _exit_on_error() -> Iterator[None]:
    """Print the lab's own errors as one message and exit with 1."""
    from lab.charts.mirror import ChartError
    from lab.kubernetes.build import BuildError
    from lab.machines.base import MachineError
    from lab.mirror import MirrorError

    try:
        yield
    except (AdminError, daemon.DaemonError, MachineError, MirrorError, ChartError, BuildError) as error:
        fail(error)


class _Steps:
    """Steps that run in parallel: one spinner with a progress line per step."""

    def __init__(self, spinner: Status) -> None:
        self._spinner = spinner
        self._lines: dict[str, str] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Prints the duration of the step at its end."""
        started = time.monotonic()

        def line(text: str) -> None:
            detail = " ".join(text.split())
            columns = max(20, out.width - len(title) - 16)
            self._show(title, f"{title} [dim]{_escaped(detail[:columns])}[/]")

        if not out.is_terminal:
            out.print(f"… {title}", highlight=False)
        self._show(title, title)
        try:
            yield line
        finally:
            self._show(title, "")
        out.print(f"[green]✓[/] {title} [dim]{_duration(time.monotonic() - started)}[/]", highlight=False)

    def _show(self, title: str, text: str) -> None:
        with self._lock:
            self._lines[title] = text
            self._spinner.update("\n  ".join(filter(None, self._lines.values())))


@contextlib.contextmanager
def _steps() -> Iterator[_Steps]:
    with out.status("") as spinner:
        yield _Steps(spinner)


@contextlib.contextmanager
def _step(title: str) -> Iterator[Callable[[str], None]]:
    """A single step."""
    with _steps() as steps, steps.step(title) as line:
        yield line


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


# Create and remove


@app.command()
def up(
    only_cloud: Annotated[
        bool, typer.Option("--only-cloud", help="Start the local cloud without the platform.")
    ] = False,
    rke2_artifacts: Annotated[
        Path | None,
        typer.Option(
            envvar="SLIPWAY_RKE2_ARTIFACTS",
            exists=True,
            file_okay=False,
            help="Folder with official RKE2 releases, one folder per version.",
        ),
    ] = None,
    chart_folder: Annotated[
        Path | None,
        typer.Option(
            "--charts",
            envvar="SLIPWAY_CHARTS",
            exists=True,
            file_okay=False,
            help="Folder with charts, one folder per repository, and archives of their images in images/.",
        ),
    ] = None,
) -> None:
    """Start the local cloud and build the platform on it. Repeat it to converge both."""
    settings = _settings()
    started, since = time.monotonic(), time.time()
    with _exit_on_error():
        _start_cloud(settings, rke2_artifacts, chart_folder, site=not only_cloud)
        if not only_cloud or not Path(daemon.read_description(settings)["secrets_path"]).exists():
            _create_secrets(settings)
        if not only_cloud:
            out.rule("[bold]site.yml[/]", align="left")
            _build_site(settings)
        _print_summary(settings, time.monotonic() - started, since, site=not only_cloud)


def _start_cloud(settings: Settings, artifacts: Path | None, chart_folder: Path | None, *, site: bool) -> None:
    from lab import ceph, preflight, registry

    pid = daemon.find(settings)
    machine = preflight.inspect_machine(settings, daemon_running=pid is not None)
    if faults := preflight.faults(machine, settings, site=site):
        for fault in faults:
            err.print(f"[red]lab:[/] {_escaped(fault)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    make_private_dir(settings.state_dir)
    release, storage, charts = _prepare_images(settings, artifacts, chart_folder)
    if pid is not None and not _is_current(settings, release, storage, charts):
        with _step("Replacing the daemon, which runs older code, other host images or another release"):
            daemon.stop(settings)
        pid = None
    if pid is None:
        with _step("Local cloud") as progress:
            daemon.start(settings, progress=progress)
    with _step("Image registry"):
        registry.wait_for_image(settings, settings.state_dir / "pki" / "ca.pem", ceph.IMAGE, storage.digest)


def _prepare_images(
    settings: Settings, artifacts: Path | None, chart_folder: Path | None
) -> tuple[mirror.Release, ceph.Release, charts.Source]:
    """Host image, RKE2 and Ceph in parallel: each build is mostly single-threaded. The charts use RKE2's programs."""
    from lab import ceph, mirror
    from lab.charts import mirror as chart_mirror
    from lab.machines import builds, images

    def host_image() -> None:
        with steps.step(f"Host image {HOST_IMAGE}") as line:
            images.ensure(settings, HOST_IMAGE, lambda text, share: line(f"{text} ({share:.0%})"))

    def rke2_release() -> mirror.Release:
        def progress(text: str) -> None:
            builds.check_cancelled()
            line(text)

        with steps.step("RKE2 release") as line:
            return mirror.prepare(settings, artifacts, progress)

    def ceph_image() -> ceph.Release:
        with steps.step("Ceph image and cephadm") as line:
            return ceph.prepare(settings, line)

    with _steps() as steps:
        _, release, storage = builds.run_in_parallel(host_image, rke2_release, ceph_image)
        with steps.step("Charts and their images") as line:
            source = chart_mirror.prepare(settings, chart_folder, mirror.VERSIONS, line)
    return release, storage, source


def _is_current(settings: Settings, release: Any, storage: Any, charts: Any) -> bool:
    """Whether the running daemon has this code, these host images and these releases of RKE2 and Ceph."""
    try:
        description = daemon.read_description(settings)
    except (OSError, ValueError):
        return False
    rke2 = description["rke2"]
    image = description.get("ceph", {}).get("image", "")
    return (
        description.get("code"),
        description.get("images", {}).get("kind"),
        rke2["source"],
        rke2["note"],
        image.partition("@")[2],
        description.get("charts", {}).get("note"),
    ) == (daemon.code_fingerprint(), settings.images, str(release.source), release.note, storage.digest, charts.note)


def _create_secrets(settings: Settings) -> None:
    """Create the platform's secrets with the usual playbooks, in the lab's folder, which only root can read."""
    description = daemon.read_description(settings)
    secrets = Path(description["secrets_path"])
    with _step("Secrets"):
        _operate(settings, "create_secrets", path=secrets)
    with _step("Runners at GitLab"):
        token = description["gitlab"]["token"]
        _operate(settings, "create_runner", path=secrets.with_name("gitlab_runners.yml"), GITLAB_TOKEN=token)


def _operate(settings: Settings, name: str, path: Path, **environment: str) -> None:
    """Run an operation that writes an unencrypted file of secrets."""
    done = subprocess.run(
        [
            *_playbook(f"playbooks/operations/{name}.yml"),
            f"--extra-vars=op_{name}_path={path}",
            f"--extra-vars=op_{name}_plain=true",
        ],
        cwd=REPOSITORY,
        env=_environment(settings) | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        fail(f"{name}.yml: exit code {done.returncode}. The cause is above; repeat with: lab up")


def _build_site(settings: Settings) -> None:
    """Run site.yml; its output goes to the terminal."""
    done = subprocess.run(_playbook("site.yml"), cwd=REPOSITORY, env=_environment(settings), check=False)
    if done.returncode != 0:
        fail(
            f"site.yml: exit code {done.returncode}. The cause is above; show the hosts with: lab status; "
            "repeat with: lab up"
        )


def _playbook(name: str) -> list[str]:
    return [str(Path(sys.executable).with_name("ansible-playbook")), name, "-i", "inventories/lab"]


def _environment(settings: Settings) -> dict[str, str]:
    """This process's environment with the lab's name, and with this virtual environment first in PATH."""
    return {
        **os.environ,
        "SLIPWAY_LAB": settings.name,
        "SLIPWAY_LAB_SLOT": str(settings.slot),
        "SLIPWAY_LAB_IMAGES": settings.images,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        **({"ANSIBLE_FORCE_COLOR": "1"} if out.is_terminal else {}),
    }


@app.command()
def down() -> None:
    """Remove the lab from this machine: hosts, networks, volumes, keys. Images and downloads stay in the cache."""
    settings = _settings()
    if os.geteuid() != 0:
        fail(f"User {os.geteuid()}: removing hosts and networks requires root. Repeat with sudo.")
    with _exit_on_error():
        from lab.machines.podman import PodmanMachines

        existed = settings.state_dir.exists()
        with _step("Daemon"):
            daemon.stop(settings)
        with _step("Hosts, networks and volumes"):
            _close_ssh_connections(settings)
            PodmanMachines(settings, lambda server, path: None, lambda server, reason: None).destroy()
        with _step("Keys, database and logs"):
            shutil.rmtree(settings.state_dir, ignore_errors=False) if existed else None
            with contextlib.suppress(OSError):
                settings.state_root.rmdir()
    out.print(
        f"Lab {settings.name!r}: removed." if existed else f"Lab {settings.name!r}: does not exist.", highlight=False
    )


def _close_ssh_connections(settings: Settings) -> None:
    """End the ssh connections that Ansible keeps open to the lab: the next lab has the same addresses."""
    listed = subprocess.run(
        ["ss", "-Htnp", "state", "established", "dst", str(settings.public_range)],
        capture_output=True,
        text=True,
        check=False,
    )
    for pid in {int(pid) for pid in re.findall(r'\("ssh",pid=(\d+),', listed.stdout)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


@app.command()
def reset() -> None:
    """Delete all objects of the cloud (servers, networks, volumes …); the cloud itself continues to run."""
    with _exit_on_error(), _step("Deleting all objects of the cloud"):
        Admin.of(_settings()).reset()


# Status and access


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="The daemon's whole status as JSON, for programs.")] = False,
) -> None:
    """Show hosts, networks, volumes and faults."""
    settings = _settings()
    with _exit_on_error():
        cloud = Admin.of(settings).status()
    if as_json:
        out.print_json(data=cloud)
        return
    from lab import summary

    platform = _platform(settings) if summary.store(cloud) else None
    out.print(summary.status(daemon.read_description(settings), cloud, platform))


def _print_summary(settings: Settings, seconds: float, since: float, *, site: bool) -> None:
    from lab import summary

    cloud = Admin.of(settings).status()
    report = summary.newest_report(REPOSITORY / "artifacts" / "lab", since) if site else None
    page = summary.page(
        daemon.read_description(settings),
        cloud,
        report,
        settings=settings,
        seconds=seconds,
        platform=_platform(settings) if site else None,
    )
    out.print(page)


def _platform(settings: Settings) -> summary.Platform:
    """Endpoints of the site, and its CA in a file for clients."""
    import yaml

    from lab import summary

    variables = yaml.safe_load((REPOSITORY / "inventories/lab/group_vars/all/platform.yml").read_text(encoding="utf-8"))
    secrets = yaml.safe_load(Path(daemon.read_description(settings)["secrets_path"]).read_text(encoding="utf-8"))
    authority = settings.state_dir / "platform-ca.pem"
    write_private(authority, secrets["platform_ca_certificate"].strip() + "\n")

    def rendered(name: str) -> str:
        return re.sub(r"{{ (\w+) }}", lambda match: str(variables[match[1]]), str(variables[name]))

    return summary.Platform(
        name=f"{PUBLIC_NAME}.{variables['platform_domain']}",
        ca_path=authority,
        store_endpoint=rendered("platform_object_storage_endpoint"),
        bucket=rendered("platform_object_storage_bucket"),
    )


def _server_names(incomplete: str) -> list[str]:
    """For shell completion; empty when no lab is running."""
    try:
        servers = Admin.of(Settings.from_environment()).status(seconds=2)["servers"]
    except (AdminError, ValueError, KeyError):
        return []
    return [server["name"] for server in servers if server["name"].startswith(incomplete)]


Name = Annotated[str, typer.Argument(help="Name of a server.", autocompletion=_server_names)]


def _server(admin: Admin, name: str) -> dict[str, Any]:
    servers = {server["name"]: server for server in admin.status()["servers"]}
    if name not in servers:
        known = ", ".join(sorted(servers)) or "none"
        raise AdminError(f"Server {name!r}: does not exist. Use one of: {known}")
    return dict(servers[name])


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def ssh(
    context: typer.Context,
    name: Name,
    user: Annotated[str | None, typer.Option("--user", "-l", help="User on the server.")] = None,
) -> None:
    """Log in to a server, or run a command there: [bold]lab ssh NAME -- COMMAND[/]."""
    from lab import summary

    settings = _settings()
    with _exit_on_error():
        server = _server(Admin.of(settings), name)
        address = summary.address(server)
        if not address:
            raise AdminError(f"Server {name!r}: no public address. Log in through another server.")
    login = user or (ADMIN_USER if ENVIRONMENT_LABEL in server["labels"] else "root")
    key = settings.state_dir / "ssh" / "id_ed25519"
    # The addresses exist only on this machine, and a server that is created again has another host key.
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentitiesOnly=yes"]
    command = ["ssh", "-i", str(key), *(f"-o{option}" for option in options), f"{login}@{address}"]
    if context.args:
        command += ["--", shlex.join(context.args) if len(context.args) > 1 else context.args[0]]
    os.execvp("ssh", command)


@app.command()
def console(name: Name) -> None:
    """Print the console output of a server."""
    with _exit_on_error():
        print(Admin.of(_settings()).console(name), end="")


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines as they are written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Number of lines.", min=1)] = 100,
) -> None:
    """Print the daemon's log."""
    path = daemon.log_file(_settings())
    if not path.exists():
        fail(f"{path}: the daemon has no log, it was never started. Start it with: lab up")
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), str(path)])


@app.command()
def env() -> None:
    """Print environment variables for other clients of the cloud: [bold]eval "$(lab env)"; hcloud server list[/]."""
    settings = _settings()
    with _exit_on_error():
        Admin.of(settings)
    description = daemon.read_description(settings)
    print(f"export HCLOUD_ENDPOINT={shlex.quote(description['api_endpoint'])}")
    print(f"export HCLOUD_TOKEN={shlex.quote(description['token'])}")


# Faults

Count = Annotated[
    int | None, typer.Option("--count", "-n", help="Number of requests that fail. Default: until cleared.", min=1)
]
Link = Annotated[str, typer.Option("--link", help="public, the name of a private network, or all.")]


def _add_fault(kind: str, **fields: Any) -> None:
    with _exit_on_error():
        Admin.of(_settings()).add_fault(
            {"kind": kind, **{key: value for key, value in fields.items() if value is not None}}
        )
    out.print(f"[yellow]●[/] {kind}", " ".join(f"{key}={value}" for key, value in fields.items() if value is not None))


@fault_app.command("out-of-stock")
def out_of_stock(
    server_type: Annotated[str | None, typer.Option("--type", help="Server type. Default: all.")] = None,
    location: Annotated[str | None, typer.Option(help="Location. Default: all.")] = None,
    announced: Annotated[bool, typer.Option("--announced", help="Also in the catalogue.")] = False,
    count: Count = None,
) -> None:
    """Servers of a type or in a location are sold out."""
    _add_fault("out_of_stock", server_type=server_type, location=location, announced=announced or None, count=count)


@fault_app.command("rate-limit")
def rate_limit(count: Count = None) -> None:
    """Requests fail with HTTP 429."""
    _add_fault("rate_limit", count=count)


@fault_app.command()
def locked(count: Count = None) -> None:
    """Changes fail with HTTP 423: the resource is locked by an action."""
    _add_fault("locked", count=count)


@fault_app.command("action-error")
def action_error(
    command: Annotated[str, typer.Argument(help="Command of the action, for example create_server.")],
    count: Count = None,
) -> None:
    """Actions with one command fail."""
    _add_fault("action_error", command=command, count=count)


@fault_app.command()
def slow(
    seconds: Annotated[float, typer.Argument(help="Delay of every response.", min=0)],
    count: Count = None,
) -> None:
    """Responses are delayed."""
    _add_fault("slow", seconds=seconds, count=count)


@fault_app.command()
def error(
    http_status: Annotated[int, typer.Argument(help="HTTP status of the responses.", min=500, max=599)] = 503,
    count: Count = None,
) -> None:
    """Requests fail with a server error."""
    _add_fault("error", status=http_status, count=count)


@fault_app.command("power-cut")
def power_cut(
    name: Name,
    seconds: Annotated[
        float | None,
        typer.Option(help="Power returns after so long. Default: at [bold]hcloud server poweron[/].", min=0.1),
    ] = None,
) -> None:
    """A host loses power."""
    _add_fault("power_cut", server=name, seconds=seconds)


@fault_app.command()
def cut(name: Name, link: Link = "public") -> None:
    """A host's link is cut."""
    _add_fault("network_cut", server=name, link=link)


@fault_app.command()
def heal(name: Name, link: Link = "all") -> None:
    """Clear the faults of a host's link: cut, delay and loss."""
    _add_fault("network_heal", server=name, link=link)


@fault_app.command()
def delay(
    name: Name,
    milliseconds: Annotated[int, typer.Argument(help="Delay of every packet.", min=0)],
    link: Link = "public",
) -> None:
    """Packets to a host are delayed."""
    _add_fault("delay", server=name, link=link, milliseconds=milliseconds)


@fault_app.command()
def loss(
    name: Name,
    percent: Annotated[int, typer.Argument(help="Share of packets that are lost.", min=0, max=100)],
    link: Link = "public",
) -> None:
    """Packets of a host are lost."""
    _add_fault("loss", server=name, link=link, percent=percent)


@fault_app.command("full-disk")
def full_disk(
    name: Name,
    free: Annotated[int, typer.Option(help="Free space that remains, in MB.", min=0)] = 0,
    over: Annotated[bool, typer.Option("--over", help="Free the space again.")] = False,
) -> None:
    """A host's root disk is full."""
    if over:
        _add_fault("disk_room", server=name)
    else:
        _add_fault("disk_full", server=name, free_mb=free)


@fault_app.command("list")
def list_faults() -> None:
    """Show the faults in force."""
    from lab import summary

    with _exit_on_error():
        out.print(summary.faults(Admin.of(_settings()).faults()))


@fault_app.command()
def clear(
    fault_id: Annotated[int | None, typer.Argument(help="Number from `lab fault list`. Default: all.")] = None,
) -> None:
    """Clear faults."""
    with _exit_on_error():
        Admin.of(_settings()).clear_faults(fault_id)
    out.print("[green]●[/] cleared")


if __name__ == "__main__":
    main()
