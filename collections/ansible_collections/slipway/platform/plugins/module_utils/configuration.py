"""Configuration files and what makes them live, as one unit: plan, test, swap, activate, prove, roll back.

`plan` only reads. `apply` writes, and leaves a record of the former files until the new ones are proved, so that a
run which dies in between is finished, or taken back, by the next one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Protocol

SYSTEMD_FOLDERS = ("/etc/systemd/system/", "/lib/systemd/system/", "/usr/lib/systemd/system/")


class ConfigurationError(Exception):
    """A fault, told in a sentence that is fit to be the module's message."""


@dataclass(frozen=True)
class File:
    """A file as it should be; `content` None means that it should not exist."""

    path: str
    content: str | None
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    validate: tuple[str, ...] = ()
    sensitive: bool = False
    target: str = ""
    """Of a symbolic link, which has no content, mode or owner of its own."""


@dataclass(frozen=True)
class Folder:
    """A folder as it should be; an exclusive one holds the unit's files and nothing else."""

    path: str
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"
    exclusive: bool = False


@dataclass(frozen=True)
class Probe:
    """A port that must answer once the unit is live, and how."""

    address: str
    port: int
    tls: bool = False
    server_name: str = ""
    certificate_path: str = ""
    starttls: str = ""

    def __str__(self) -> str:
        return f"{self.address} port {self.port}"


@dataclass(frozen=True)
class Unit:
    """Files that only make sense together, how they are tested, made live and proved."""

    name: str
    files: tuple[File, ...] = ()
    folders: tuple[Folder, ...] = ()
    test: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    commands_on_rollback: bool = True
    service: str = ""
    on_change: str = "reload"
    live_command: tuple[str, ...] = ()
    live_contains: str = ""
    probes: tuple[Probe, ...] = ()
    probe_seconds: float = 10.0


@dataclass(frozen=True)
class FileState:
    """A file as it is."""

    content: bytes
    mode: int
    owner: str
    group: str
    link: str = ""
    """Target, where the path is a symbolic link."""


@dataclass(frozen=True)
class FolderState:
    mode: int
    owner: str
    group: str


@dataclass(frozen=True)
class ServiceState:
    """What systemd says of a service; `known` False means that it has no such unit."""

    known: bool = False
    active: bool = False
    enabled: bool = False


@dataclass(frozen=True)
class Result:
    """What a command did; `code` None means that there is no such program."""

    code: int | None
    output: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0


class Host(Protocol):
    """All that a unit needs of the machine; the module gives the real one, tests a temporary folder."""

    def read(self, path: str) -> FileState | None: ...
    def read_folder(self, path: str) -> FolderState | None: ...
    def list_files(self, folder: str) -> list[str]: ...
    def write(self, path: str, state: FileState) -> None: ...
    def remove(self, path: str) -> None: ...
    def make_folder(self, folder: Folder) -> None: ...
    def stage(self, path: str, content: bytes) -> str: ...
    def staged(self, path: str) -> str: ...
    def run(self, command: Sequence[str]) -> Result: ...
    def probe(self, probe: Probe) -> str | None: ...
    def read_record(self, unit: str) -> str | None: ...
    def write_record(self, unit: str, text: str) -> None: ...
    def remove_record(self, unit: str) -> None: ...


@dataclass(frozen=True)
class Change:
    """One file that differs; `after` None removes it."""

    path: str
    before: FileState | None
    after: File | None


@dataclass(frozen=True)
class Plan:
    """What a unit needs, and why."""

    unit: Unit
    folders: tuple[Folder, ...] = ()
    changes: tuple[Change, ...] = ()
    resume: bool = False
    not_live: bool = False
    start: bool = False
    enable: bool = False
    service: ServiceState = field(default_factory=ServiceState)

    @property
    def activate(self) -> bool:
        return bool(self.changes) or self.resume or self.not_live

    @property
    def changed(self) -> bool:
        return self.activate or bool(self.folders) or self.start or self.enable

    def reasons(self) -> list[str]:
        """For people: what made the unit change."""
        found = [f"{'remove' if c.after is None else 'write'} {c.path}" for c in self.changes]
        found += [f"set up {folder.path}" for folder in self.folders]
        if self.resume:
            found.append("finish what an interrupted run began")
        if self.not_live:
            found.append("make live what is on disk")
        if self.start:
            found.append(f"start {self.unit.service}")
        if self.enable:
            found.append(f"enable {self.unit.service}")
        return found


def unit_from(options: Mapping[str, Any]) -> Unit:
    """Build a unit from the module's checked options."""
    files = tuple(
        File(
            path=f["path"],
            content=None if f["state"] == "absent" else (f["content"] or ""),
            mode=int(f["mode"], 8),
            owner=f["owner"],
            group=f["group"],
            validate=tuple(f["validate"] or ()),
            sensitive=f["sensitive"],
            target=f["target"] or "",
        )
        for f in options["files"] or ()
    )
    mark, digest = options["digest_mark"] or "", digest_of(files)
    if mark:
        files = tuple(f if f.content is None else replace(f, content=f.content.replace(mark, digest)) for f in files)
    live_contains = options["live_contains"] or ""
    return Unit(
        name=options["name"],
        files=files,
        folders=tuple(
            Folder(f["path"], int(f["mode"], 8), f["owner"], f["group"], f["exclusive"])
            for f in options["folders"] or ()
        ),
        test=tuple(options["test"] or ()),
        commands=tuple(tuple(command) for command in options["commands"] or ()),
        commands_on_rollback=options["commands_on_rollback"],
        service=options["service"] or "",
        on_change=options["on_change"],
        live_command=tuple(options["live_command"] or ()),
        live_contains=live_contains.replace(mark, digest) if mark else live_contains,
        probes=tuple(
            Probe(
                address=p["address"],
                port=p["port"],
                tls=p["tls"],
                server_name=p["server_name"] or "",
                certificate_path=p["certificate_path"] or "",
                starttls=p["starttls"] or "",
            )
            for p in options["probes"] or ()
        ),
        probe_seconds=float(options["probe_seconds"]),
    )


def digest_of(files: Iterable[File]) -> str:
    """Sixteen hexadecimal digits that change with any content, by which a running service tells which files it has."""
    text = json.dumps([(file.path, file.content) for file in files])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_services(names: Sequence[str], output: str) -> dict[str, ServiceState]:
    """Read `systemctl show` of several units (LoadState, ActiveState, UnitFileState): one block each, in order."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in output.split("\n\n")]
    blocks = [block for block in blocks if block]
    if len(blocks) != len(names):
        raise ConfigurationError(
            f"systemctl told of {len(blocks)} services, {len(names)} were asked: {' '.join(names)}"
        )
    return {
        name: ServiceState(
            known=block.get("LoadState") == "loaded",
            active=block.get("ActiveState") in {"active", "activating", "reloading"},
            enabled=block.get("UnitFileState") in {"enabled", "enabled-runtime", "static", "generated", "alias"},
        )
        for name, block in zip(names, blocks, strict=True)
    }


def services(units: Iterable[Unit], host: Host) -> dict[str, ServiceState]:
    names = sorted({unit.service for unit in units if unit.service})
    if not names:
        return {}
    result = host.run(["systemctl", "show", "--property=LoadState,ActiveState,UnitFileState", *names])
    if not result.ok:
        raise ConfigurationError(f"systemd does not answer: {result.output}")
    return parse_services(names, result.output)


def differs(wanted: File, found: FileState | None) -> bool:
    if wanted.content is None:
        return found is not None
    if wanted.target:
        return found is None or found.link != wanted.target
    return found is None or found != _wanted_state(wanted)


def _wanted_state(wanted: File) -> FileState:
    return FileState((wanted.content or "").encode(), wanted.mode, wanted.owner, wanted.group, wanted.target)


def plan(unit: Unit, host: Host, service: ServiceState) -> Plan:
    """Compare what is with what should be. Changes nothing."""
    changes = []
    for wanted in unit.files:
        found = host.read(wanted.path)
        if differs(wanted, found):
            changes.append(Change(wanted.path, found, None if wanted.content is None else wanted))
    named = {wanted.path for wanted in unit.files}
    for folder in unit.folders:
        if folder.exclusive:
            strays = sorted(set(host.list_files(folder.path)) - named)
            changes.extend(Change(path, host.read(path), None) for path in strays)
    folders = tuple(
        folder
        for folder in unit.folders
        if host.read_folder(folder.path) != FolderState(folder.mode, folder.owner, folder.group)
    )
    resume = host.read_record(unit.name) is not None
    not_live = False
    if not changes and not resume and unit.live_command:
        result = host.run(unit.live_command)
        not_live = not result.ok or unit.live_contains not in result.output
    return Plan(
        unit=unit,
        folders=folders,
        changes=tuple(changes),
        resume=resume,
        not_live=not_live,
        start=bool(unit.service) and not service.active,
        enable=bool(unit.service) and not service.enabled,
        service=service,
    )


def test(plan: Plan, host: Host, missing_program_ok: bool = False) -> None:
    """Lay the new files beside the old ones and let the programs judge them. Nothing live is touched.

    `missing_program_ok` is for check mode on a host whose packages are not there yet.
    """
    unit = plan.unit
    commands: list[tuple[str, list[str]]] = []
    changed = {change.path for change in plan.changes}
    for wanted in unit.files:
        if wanted.content is None or wanted.target or not (wanted.path in changed or unit.test):
            continue
        place = host.stage(wanted.path, wanted.content.encode())
        if wanted.validate and wanted.path in changed:
            commands.append((wanted.path, [part.replace("%s", place) for part in wanted.validate]))
    if unit.test and plan.activate:
        main = unit.files[0].path
        commands.append((main, [part.replace("%s", host.staged(main)) for part in unit.test]))
    for path, command in commands:
        result = host.run(command)
        if result.code is None and missing_program_ok:
            continue
        if not result.ok:
            raise ConfigurationError(
                f"{unit.name}: the new {path} is refused by `{command[0]}`, the old one stays in force. It says: "
                f"{result.output.strip() or 'nothing'}"
            )


def apply(plan: Plan, host: Host, sleep: Callable[[float], None] = time.sleep) -> None:
    """Make the planned and tested unit live, or leave everything as it was and say why."""
    unit = plan.unit
    former = _former(plan, host)
    if plan.activate:
        host.write_record(unit.name, _dump(former, _was_active(plan, host)))
    for folder in plan.folders:
        host.make_folder(folder)
    for change in plan.changes:
        if change.after is None:
            host.remove(change.path)
        elif change.after.content is not None:
            host.write(change.path, _wanted_state(change.after))
    fault = _activate(plan, host, former) or prove(unit, host, sleep)
    if fault is None:
        host.remove_record(unit.name)
        return
    if not plan.activate:
        raise ConfigurationError(f"{unit.name}: {fault}{_journal(unit, host)}")
    journal = _journal(unit, host)
    if former:
        again = _roll_back(plan, host, former)
        ending = f" Taking it back failed too: {again}." if again else " The former configuration is in force again."
    else:
        # No file was swapped, so there is none to go back to; a service that runs is worth more than none.
        host.remove_record(unit.name)
        ending = " Its files are as they should be and stay; nothing was stopped."
    raise ConfigurationError(f"{unit.name}: {fault}.{ending}{journal}")


def prove(unit: Unit, host: Host, sleep: Callable[[float], None] = time.sleep, only_ports: bool = False) -> str | None:
    """Read-only: is the unit in force? Gives the first fault that is still there when the time is up.

    `only_ports` is for a unit whose plan has just seen the rest in order.
    """
    waited = 0.0
    while True:
        fault = (None if only_ports else _service_fault(unit, host)) or _port_fault(unit, host)
        if fault is None or waited >= unit.probe_seconds:
            return fault
        sleep(0.25)
        waited += 0.25


def reconsider(plan: Plan, host: Host, sleep: Callable[[float], None] = time.sleep) -> Plan:
    """A unit in order whose ports are not is made live once more: a certificate may have been renewed beside it."""
    if plan.changed:
        return plan
    fault = prove(plan.unit, host, sleep, only_ports=True)
    if fault is None:
        return plan
    if not plan.unit.service or plan.unit.on_change == "none":
        raise ConfigurationError(f"{plan.unit.name}: nothing was to be changed, but {fault}")
    return replace(plan, not_live=True)


def _service_fault(unit: Unit, host: Host) -> str | None:
    if unit.service and not host.run(["systemctl", "is-active", "--quiet", unit.service]).ok:
        return f"the service {unit.service} does not run"
    if unit.live_command:
        result = host.run(unit.live_command)
        if not result.ok or unit.live_contains not in result.output:
            said = " ".join(result.output.split())[-200:] or "nothing"
            return f"`{' '.join(unit.live_command)}` does not show it in force, it says {said!r}"
    return None


def _port_fault(unit: Unit, host: Host) -> str | None:
    return next((fault for fault in map(host.probe, unit.probes) if fault is not None), None)


def _activate(plan: Plan, host: Host, former: Mapping[str, FileState | None]) -> str | None:
    unit = plan.unit
    commands: list[Sequence[str]] = []
    if plan.activate:
        if any(path.startswith(SYSTEMD_FOLDERS) for path in former):
            commands.append(["systemctl", "daemon-reload"])
        commands.extend(unit.commands)
    if unit.service:
        if plan.enable:
            commands.append(["systemctl", "enable", "--quiet", unit.service])
        if plan.activate and unit.on_change != "none":
            commands.append(["systemctl", _verb(unit, plan.service.active), unit.service])
        elif plan.start:
            commands.append(["systemctl", "start", unit.service])
    return _run_all(commands, host)


def _verb(unit: Unit, active: bool) -> str:
    if not active:
        return "start"
    return "reload" if unit.on_change == "reload" else "restart"


def _run_all(commands: Iterable[Sequence[str]], host: Host) -> str | None:
    for command in commands:
        result = host.run(command)
        if not result.ok:
            return f"`{' '.join(command)}` failed: {result.output.strip()[-1500:] or 'it said nothing'}"
    return None


def _former(plan: Plan, host: Host) -> dict[str, FileState | None]:
    """The files before this change; before the interrupted one, where a record tells."""
    former = {change.path: change.before for change in plan.changes}
    record = host.read_record(plan.unit.name)
    if record is not None:
        former |= _load(record)
    return former


def _was_active(plan: Plan, host: Host) -> bool:
    """Whether the service ran before this change; before the interrupted one, where a record tells."""
    record = host.read_record(plan.unit.name)
    try:
        return bool(json.loads(record)["active"]) if record is not None else plan.service.active
    except (ValueError, KeyError, TypeError):
        return plan.service.active


def _roll_back(plan: Plan, host: Host, former: Mapping[str, FileState | None]) -> str | None:
    unit = plan.unit
    was_active = _was_active(plan, host)
    for path, state in former.items():
        if state is None:
            host.remove(path)
        else:
            host.write(path, state)
    commands: list[Sequence[str]] = []
    if any(path.startswith(SYSTEMD_FOLDERS) for path in former):
        commands.append(["systemctl", "daemon-reload"])
    if unit.service and not was_active:
        commands.append(["systemctl", "stop", unit.service])
    else:
        # The commands of a first installation had nothing to do before it.
        first = all(state is None for state in former.values())
        commands.extend(unit.commands if unit.commands_on_rollback and not first else ())
        # What ran before our files came, such as the SSH server, runs on without them.
        if unit.service and unit.on_change != "none":
            commands.append(
                ["systemctl", "reload-or-restart" if unit.on_change == "reload" else "restart", unit.service]
            )
    fault = _run_all(commands, host)
    host.remove_record(unit.name)
    return fault


def _journal(unit: Unit, host: Host) -> str:
    if not unit.service:
        return ""
    result = host.run(["journalctl", "--unit", unit.service, "--lines", "15", "--no-pager", "--output", "cat"])
    return f"\nLast lines of {unit.service}:\n{result.output.strip()}" if result.ok and result.output.strip() else ""


def _dump(former: Mapping[str, FileState | None], active: bool) -> str:
    return json.dumps(
        {
            "active": active,
            "files": {
                path: None
                if state is None
                else {
                    "content": base64.b64encode(state.content).decode(),
                    "mode": state.mode,
                    "owner": state.owner,
                    "group": state.group,
                    "link": state.link,
                }
                for path, state in former.items()
            },
        }
    )


def _load(record: str) -> dict[str, FileState | None]:
    try:
        files = json.loads(record)["files"]
        return {
            path: None if state is None else FileState(base64.b64decode(state.pop("content")), **state)
            for path, state in files.items()
        }
    except (ValueError, KeyError, TypeError):
        # Cut short while it was written: then no file had been swapped yet.
        return {}


def diff(plan: Plan) -> list[dict[str, str]]:
    """What --diff shows."""
    shown = []
    for change in plan.changes:
        hidden = change.after is not None and change.after.sensitive
        before = "" if change.before is None else _shown(change.before)
        after = "" if change.after is None or change.after.content is None else _shown(_wanted_state(change.after))
        entry = {
            "before_header": change.path,
            "after_header": change.path,
            "before": "(hidden)\n" if hidden else before,
            "after": "(hidden, changed)\n" if hidden else after,
        }
        if change.before and change.after and not hidden and before == after:
            entry["before"] = f"{change.before.owner}:{change.before.group} {change.before.mode:04o}\n"
            entry["after"] = f"{change.after.owner}:{change.after.group} {change.after.mode:04o}\n"
        shown.append(entry)
    return shown


def _shown(state: FileState) -> str:
    return f"link to {state.link}\n" if state.link else state.content.decode(errors="replace")


def staged_path(root: str, path: str) -> str:
    """Where a file of the host is laid below the staging folder."""
    return str(PurePosixPath(root) / path.lstrip("/"))
