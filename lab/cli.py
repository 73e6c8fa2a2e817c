"""The lab command line: the outside world on this machine, up and down, looked at and broken on purpose."""

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
from lab.secrets import make_private_dir, write_private
from lab.settings import Settings

if TYPE_CHECKING:
    from rich.status import Status

    from lab import ceph, mirror, summary

REPOSITORY = Path(__file__).resolve().parents[1]
HOST_IMAGE = "debian-13"
"""The image of the platform's hosts, built before the daemon starts; others are built at first use."""
ADMIN_USER = "slipway"
"""The user that the platform makes on its servers; others are reached as root."""
PUBLIC_NAME = "rancher"
"""One of the names that the platform serves to the world, in its domain."""
ENVIRONMENT_LABEL = "slipway_environment"

app = typer.Typer(
    name="lab",
    help="The outside world on this machine: a local Hetzner Cloud with real Linux hosts, and the platform on it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
fault_app = typer.Typer(help="Break something on purpose, and heal it.", no_args_is_help=True)
app.add_typer(fault_app, name="fault")

# Into a file or a log: as wide as a table of servers needs, for nothing tells the width there.
out = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
err = Console(stderr=True)


def main() -> None:
    """Entry point: a foreseen failure is one sentence, not a traceback."""
    # As an exception, so that what was started (Ansible, an image's build) is ended as well.
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
def _told() -> Iterator[None]:
    """Turn the errors that the lab foresees into one sentence."""
    from lab.machines.base import MachineError
    from lab.mirror import MirrorError

    try:
        yield
    except (AdminError, daemon.DaemonError, MachineError, MirrorError) as error:
        fail(error)


class _Steps:
    """Steps that run side by side: one spinner, beside it a line for each with what is being done."""

    def __init__(self, spinner: Status) -> None:
        self._spinner = spinner
        self._lines: dict[str, str] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """At the end a line with the time that the step took."""
        began = time.monotonic()

        def line(text: str) -> None:
            detail = " ".join(text.split())
            room = max(20, out.width - len(title) - 16)
            self._show(title, f"{title} [dim]{_escaped(detail[:room])}[/]")

        if not out.is_terminal:
            out.print(f"… {title}", highlight=False)
        self._show(title, title)
        try:
            yield line
        finally:
            self._show(title, "")
        out.print(f"[green]✓[/] {title} [dim]{_seconds(time.monotonic() - began)}[/]", highlight=False)

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
    """One step of a longer work, on its own."""
    with _steps() as steps, steps.step(title) as line:
        yield line


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


# Up and down


@app.command()
def up(
    only_cloud: Annotated[
        bool, typer.Option("--only-cloud", help="Start the local cloud, build nothing on it.")
    ] = False,
    rke2_artifacts: Annotated[
        Path | None,
        typer.Option(
            envvar="SLIPWAY_RKE2_ARTIFACTS",
            exists=True,
            file_okay=False,
            help="Folder with real RKE2 releases, one folder a version.",
        ),
    ] = None,
) -> None:
    """Start the local cloud and build the whole platform on it; run again, it brings both in line."""
    settings = _settings()
    began, since = time.monotonic(), time.time()
    with _told():
        _start_cloud(settings, rke2_artifacts, site=not only_cloud)
        if not only_cloud or not Path(daemon.read_description(settings)["secrets_path"]).exists():
            _create_secrets(settings)
        if not only_cloud:
            out.rule("[bold]site.yml[/]", align="left")
            _build_site(settings)
        _print_summary(settings, time.monotonic() - began, since, site=not only_cloud)


def _start_cloud(settings: Settings, artifacts: Path | None, *, site: bool) -> None:
    from lab import ceph, preflight, registry

    pid = daemon.find(settings)
    sentences = preflight.faults(preflight.look(settings, ours_runs=pid is not None), settings, site=site)
    if sentences:
        for sentence in sentences:
            err.print(f"[red]lab:[/] {_escaped(sentence)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    make_private_dir(settings.state_dir)
    release, storage = _prepare_images(settings, artifacts)
    if pid is not None and not _current(settings, release, storage):
        with _step("Replacing the daemon, which runs older code, other host images or another release"):
            daemon.stop(settings)
        pid = None
    if pid is None:
        with _step("Local cloud") as progress:
            daemon.start(settings, progress=progress)
    with _step("Image registry"):
        registry.wait_for_image(settings, settings.state_dir / "pki" / "ca.pem", ceph.IMAGE, storage.digest)


def _prepare_images(settings: Settings, artifacts: Path | None) -> tuple[mirror.Release, ceph.Release]:
    """Host image, RKE2 and Ceph, side by side: each build is one process most of the time."""
    from lab import ceph, mirror
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
    return release, storage


def _current(settings: Settings, release: Any, storage: Any) -> bool:
    """Whether the running daemon runs this code and tells of these host images and releases of RKE2 and Ceph."""
    try:
        description = daemon.read_description(settings)
    except (OSError, ValueError):
        return False
    told = description["rke2"]
    image = description.get("ceph", {}).get("image", "")
    return (
        description.get("code"),
        description.get("images", {}).get("kind"),
        told["source"],
        told["note"],
        image.partition("@")[2],
    ) == (daemon.code_fingerprint(), settings.images, str(release.source), release.note, storage.digest)


def _create_secrets(settings: Settings) -> None:
    """The platform's secrets, by the same play as everywhere; into the lab's own folder, which root alone can read."""
    path = daemon.read_description(settings)["secrets_path"]
    with _step("Secrets"):
        done = subprocess.run(
            [
                *_playbook("playbooks/operations/create_secrets.yml"),
                f"--extra-vars=op_create_secrets_path={path}",
                "--extra-vars=op_create_secrets_plain=true",
            ],
            cwd=REPOSITORY,
            env=_environment(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        fail("The platform's secrets could not be made; the cause is above.")


def _build_site(settings: Settings) -> None:
    """Run the whole of site.yml; its output goes to the terminal as it comes."""
    done = subprocess.run(_playbook("site.yml"), cwd=REPOSITORY, env=_environment(settings), check=False)
    if done.returncode != 0:
        fail(
            f"site.yml failed (exit code {done.returncode}); the cause is above. Look at the hosts with: lab status; "
            "run it again with: lab up"
        )


def _playbook(name: str) -> list[str]:
    return [str(Path(sys.executable).with_name("ansible-playbook")), name, "-i", "inventories/lab"]


def _environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with the lab named in it and this virtual environment's programs first."""
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
    """Remove the lab from this machine: hosts, networks, volumes, keys. Images and downloads stay for the next one."""
    settings = _settings()
    if os.geteuid() != 0:
        fail(f"You are user {os.geteuid()}: hosts and networks belong to root; run it again with sudo.")
    with _told():
        from lab.machines.podman import PodmanMachines

        stood = settings.state_dir.exists()
        with _step("Daemon"):
            daemon.stop(settings)
        with _step("Hosts, networks and volumes"):
            _hang_up(settings)
            PodmanMachines(settings, lambda server, path: None, lambda server, reason: None).destroy()
        with _step("Keys, database and logs"):
            shutil.rmtree(settings.state_dir, ignore_errors=False) if stood else None
            with contextlib.suppress(OSError):
                settings.state_root.rmdir()
    out.print(
        f"The lab {settings.name!r} is gone." if stood else f"There was no lab {settings.name!r}.", highlight=False
    )


def _hang_up(settings: Settings) -> None:
    """End the ssh connections into the lab, which Ansible keeps open: the next lab has the same addresses."""
    listed = subprocess.run(
        ["ss", "-Htnp", "state", "established", "dst", str(settings.public_range)],
        capture_output=True,
        text=True,
        check=False,
    )
    for pid in {int(found) for found in re.findall(r'\("ssh",pid=(\d+),', listed.stdout)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


@app.command()
def reset() -> None:
    """Delete every object of the cloud (servers, networks, volumes …), keep the cloud itself."""
    with _told(), _step("Deleting everything in the cloud"):
        Admin.of(_settings()).reset()


# Looking


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs: everything the daemon says.")] = False,
) -> None:
    """Show hosts, networks, volumes and faults."""
    settings = _settings()
    with _told():
        seen = Admin.of(settings).status()
    if as_json:
        out.print_json(data=seen)
        return
    from lab import summary

    platform = _platform(settings) if summary.store(seen) else None
    out.print(summary.status(daemon.read_description(settings), seen, platform))


def _print_summary(settings: Settings, seconds: float, since: float, *, site: bool) -> None:
    from lab import summary

    seen = Admin.of(settings).status()
    report = summary.newest_report(REPOSITORY / "artifacts" / "lab", since) if site else None
    page = summary.page(
        daemon.read_description(settings),
        seen,
        report,
        settings=settings,
        seconds=seconds,
        platform=_platform(settings) if site else None,
    )
    out.print(page)


def _platform(settings: Settings) -> summary.Platform:
    """Where the site answers, and its CA in a file of its own for clients that want one."""
    import yaml

    from lab import summary

    truths = yaml.safe_load((REPOSITORY / "inventories/lab/group_vars/all/platform.yml").read_text(encoding="utf-8"))
    kept = yaml.safe_load(Path(daemon.read_description(settings)["secrets_path"]).read_text(encoding="utf-8"))
    authority = settings.state_dir / "platform-ca.pem"
    write_private(authority, kept["platform_ca_certificate"].strip() + "\n")

    def rendered(name: str) -> str:
        return re.sub(r"{{ (\w+) }}", lambda match: str(truths[match[1]]), str(truths[name]))

    return summary.Platform(
        name=f"{PUBLIC_NAME}.{truths['platform_domain']}",
        ca_path=authority,
        store_endpoint=rendered("platform_object_storage_endpoint"),
        bucket=rendered("platform_object_storage_bucket"),
    )


def _server_names(incomplete: str) -> list[str]:
    """For shell completion; silent when no lab answers."""
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
        raise AdminError(f"There is no server {name!r} (there are: {known}).")
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
    with _told():
        server = _server(Admin.of(settings), name)
        address = summary.address(server)
        if not address:
            raise AdminError(f"The server {name!r} has no public address; log in through another one.")
    login = user or (ADMIN_USER if ENVIRONMENT_LABEL in server["labels"] else "root")
    key = settings.state_dir / "ssh" / "id_ed25519"
    # The addresses exist on this machine alone, and a server made anew comes back with another key.
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentitiesOnly=yes"]
    command = ["ssh", "-i", str(key), *(f"-o{option}" for option in options), f"{login}@{address}"]
    if context.args:
        command += ["--", shlex.join(context.args) if len(context.args) > 1 else context.args[0]]
    os.execvp("ssh", command)


@app.command()
def console(name: Name) -> None:
    """Print what a server wrote to its console."""
    with _told():
        print(Admin.of(_settings()).console(name), end="")


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines.", min=1)] = 100,
) -> None:
    """Print the daemon's log."""
    path = daemon.log_file(_settings())
    if not path.exists():
        fail(f"There is no log at {path}: the lab was never started; start it with: lab up")
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), str(path)])


@app.command()
def env() -> None:
    """Print the variables for other clients of the cloud: [bold]eval "$(lab env)"; hcloud server list[/]."""
    settings = _settings()
    with _told():
        Admin.of(settings)
    description = daemon.read_description(settings)
    print(f"export HCLOUD_ENDPOINT={shlex.quote(description['api_endpoint'])}")
    print(f"export HCLOUD_TOKEN={shlex.quote(description['token'])}")


# Faults

Count = Annotated[
    int | None, typer.Option("--count", "-n", help="How many requests fail; without it, until cleared.", min=1)
]
Link = Annotated[str, typer.Option("--link", help="public, the name of a private network, or all.")]


def _add_fault(kind: str, **fields: Any) -> None:
    with _told():
        Admin.of(_settings()).add_fault(
            {"kind": kind, **{key: value for key, value in fields.items() if value is not None}}
        )
    out.print(f"[yellow]●[/] {kind}", " ".join(f"{key}={value}" for key, value in fields.items() if value is not None))


@fault_app.command("out-of-stock")
def out_of_stock(
    server_type: Annotated[str | None, typer.Option("--type", help="Server type; without it, every one.")] = None,
    location: Annotated[str | None, typer.Option(help="Location; without it, every one.")] = None,
    announced: Annotated[bool, typer.Option("--announced", help="The catalogue says so too.")] = False,
    count: Count = None,
) -> None:
    """Servers of a type or in a location are sold out."""
    _add_fault("out_of_stock", server_type=server_type, location=location, announced=announced or None, count=count)


@fault_app.command("rate-limit")
def rate_limit(count: Count = None) -> None:
    """Requests are answered 429."""
    _add_fault("rate_limit", count=count)


@fault_app.command()
def locked(count: Count = None) -> None:
    """Changes are refused: the resource is locked by an action."""
    _add_fault("locked", count=count)


@fault_app.command("action-error")
def action_error(
    command: Annotated[str, typer.Argument(help="Command of the action, for example create_server.")],
    count: Count = None,
) -> None:
    """Actions of one kind end in error."""
    _add_fault("action_error", command=command, count=count)


@fault_app.command()
def slow(
    seconds: Annotated[float, typer.Argument(help="How long every answer is held back.", min=0)],
    count: Count = None,
) -> None:
    """Answers come late."""
    _add_fault("slow", seconds=seconds, count=count)


@fault_app.command()
def error(
    http_status: Annotated[int, typer.Argument(help="HTTP status of the answers.", min=500, max=599)] = 503,
    count: Count = None,
) -> None:
    """Requests are answered with a server error."""
    _add_fault("error", status=http_status, count=count)


@fault_app.command("power-cut")
def power_cut(
    name: Name,
    seconds: Annotated[
        float | None,
        typer.Option(help="Power returns after so long; without it, at [bold]hcloud server poweron[/].", min=0.1),
    ] = None,
) -> None:
    """A host loses power."""
    _add_fault("power_cut", server=name, seconds=seconds)


@fault_app.command()
def cut(name: Name, link: Link = "public") -> None:
    """A host's link carries nothing any more."""
    _add_fault("network_cut", server=name, link=link)


@fault_app.command()
def heal(name: Name, link: Link = "all") -> None:
    """A host's link works again: no cut, no delay, no loss."""
    _add_fault("network_heal", server=name, link=link)


@fault_app.command()
def delay(
    name: Name,
    milliseconds: Annotated[int, typer.Argument(help="Delay of every packet.", min=0)],
    link: Link = "public",
) -> None:
    """Packets to a host come late."""
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
    free: Annotated[int, typer.Option(help="MB that are left.", min=0)] = 0,
    over: Annotated[bool, typer.Option("--over", help="Give the room back.")] = False,
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

    with _told():
        out.print(summary.faults(Admin.of(_settings()).faults()))


@fault_app.command()
def clear(
    fault_id: Annotated[int | None, typer.Argument(help="Number from `lab fault list`; without it, all.")] = None,
) -> None:
    """Take faults back."""
    with _told():
        Admin.of(_settings()).clear_faults(fault_id)
    out.print("[green]●[/] cleared")


if __name__ == "__main__":
    main()
