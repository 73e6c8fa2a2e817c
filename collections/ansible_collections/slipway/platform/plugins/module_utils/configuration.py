"""Configuration files and the service that uses them, as one unit: plan, test, write, activate, verify, roll back.

`plan` is read-only. `apply` writes, and keeps a record of the previous files until the new ones are verified, so that
the next run completes or rolls back a change that was interrupted.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Protocol

from ansible_collections.slipway.platform.plugins.module_utils.output import shortened

UNFINISHED, KNOWN_GOOD, VERIFIED = "unfinished", "known-good", "verified"
"""Kinds of records: the files before an unfinished change, those that the running service is known to work with, and
the state of the unit when it was last verified."""
LOCKED = re.compile(r"Could not get lock|Unable to (?:lock|acquire)|lock was locked by")
"""What apt and dpkg print while another process holds their locks."""
SYSTEMD_FOLDERS = ("/etc/systemd/system/", "/lib/systemd/system/", "/usr/lib/systemd/system/")


class ConfigurationError(Exception):
    """A fault; its text is the module's message."""


@dataclass(frozen=True)
class File:
    """A desired file; `content` None means that it should not exist."""

    path: str
    content: str | None
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    validate: tuple[str, ...] = ()
    sensitive: bool = False
    target: str = ""
    """Target of a symbolic link, which has no content, mode or owner of its own."""


@dataclass(frozen=True)
class Folder:
    """A desired directory; an exclusive one holds the unit's files alone."""

    path: str
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"
    exclusive: bool = False


@dataclass(frozen=True)
class Probe:
    """A port that must answer once the unit is active, and how."""

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
    """Files that belong together, and how they are tested, activated and verified."""

    name: str
    files: tuple[File, ...] = ()
    folders: tuple[Folder, ...] = ()
    test: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    commands_on_rollback: bool = True
    lock_timeout_seconds: float = 0.0
    """Seconds for which a command is repeated while another process holds the lock that it needs."""
    service: str = ""
    unmask: bool = False
    """Unmask the service; otherwise a masked one is an error, for it may be masked on purpose."""
    on_change: str = "reload"
    live_command: tuple[str, ...] = ()
    live_contains: str = ""
    live_lines: tuple[str, ...] = ()
    """Lines of the output of `live_command`, regardless of their order."""
    live_exact: bool = False
    """Whether the output of `live_command` stays the same as long as nobody changes what the unit activated."""
    probes: tuple[Probe, ...] = ()
    probe_seconds: float = 10.0
    restart: bool = False
    """Restart the service although no file differs."""
    known_good: tuple[str, ...] = ()
    """Files that are recorded when the running service uses them, and restored if it does not start with others."""
    known_good_contains: str = ""
    """Text in the output of `live_command` if the running service uses every value of its files."""


@dataclass(frozen=True)
class FileState:
    """The current state of a file."""

    content: bytes
    mode: int
    owner: str
    group: str
    link: str = ""
    """Target, if the path is a symbolic link."""


@dataclass(frozen=True)
class FolderState:
    mode: int
    owner: str
    group: str


@dataclass(frozen=True)
class ServiceState:
    """State of a service in systemd; `known` False means that there is no such unit."""

    known: bool = False
    masked: bool = False
    active: bool = False
    enabled: bool = False
    starting: bool = False
    """A start is in progress, which may fail. A service that waits for its next automatic restart is not active."""
    failed: bool = False
    """It failed, in contrast to one that was stopped."""
    elapsed: bool = False
    """A timer that is active, but has no next time."""


@dataclass(frozen=True)
class Result:
    """Result of a command; `code` None means that the program is not installed."""

    code: int | None
    output: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0


class Host(Protocol):
    """Operations on the host; the module implements them for the real one, tests for a temporary directory."""

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
    def read_record(self, unit: str, kind: str = UNFINISHED) -> str | None: ...
    def write_record(self, unit: str, text: str, kind: str = UNFINISHED) -> None: ...
    def remove_record(self, unit: str, kind: str = UNFINISHED) -> None: ...


@dataclass(frozen=True)
class Change:
    """A file that differs; `after` None removes it."""

    path: str
    before: FileState | None
    after: File | None


@dataclass(frozen=True)
class Plan:
    """The changes of a unit, and their reasons."""

    unit: Unit
    folders: tuple[Folder, ...] = ()
    changes: tuple[Change, ...] = ()
    resume: bool = False
    inactive: bool = False
    live_output: str | None = None
    """Output of the live command, if it was run."""
    start: bool = False
    enable: bool = False
    unmask: bool = False
    service: ServiceState = field(default_factory=ServiceState)

    @property
    def activate(self) -> bool:
        return bool(self.changes) or self.resume or self.inactive or self.restart

    @property
    def restart(self) -> bool:
        return self.unit.restart and self.service.active

    @property
    def changed(self) -> bool:
        return self.activate or bool(self.folders) or self.start or self.enable or self.unmask

    def reasons(self) -> list[str]:
        """The reasons of the change, for the result."""
        found = [f"{'remove' if c.after is None else 'write'} {c.path}" for c in self.changes]
        found += [f"create or correct {folder.path}" for folder in self.folders]
        if self.resume:
            found.append("complete an interrupted change")
        if self.inactive:
            found.append("activate the files on disk")
        if self.restart:
            found.append(f"restart {self.unit.service}")
        if self.unmask:
            found.append(f"unmask {self.unit.service}")
        if self.start:
            found.append(f"start {self.unit.service}")
        if self.enable:
            found.append(f"enable {self.unit.service}")
        return found


def unit_from(options: Mapping[str, Any]) -> Unit:
    """Build a unit from the module's validated options."""
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
        lock_timeout_seconds=float(options["lock_timeout_seconds"]),
        service=options["service"] or "",
        unmask=options["unmask"],
        on_change=options["on_change"],
        live_command=tuple(options["live_command"] or ()),
        live_contains=live_contains.replace(mark, digest) if mark else live_contains,
        live_lines=tuple(options["live_lines"] or ()),
        live_exact=options["live_exact"],
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
        restart=options["restart"],
        known_good=tuple(options["known_good"] or ()),
        known_good_contains=options["known_good_contains"] or "",
    )


def digest_of(files: Iterable[File]) -> str:
    """Digest of all contents, sixteen hexadecimal digits; a running service shows it to identify its files."""
    text = json.dumps([(file.path, file.content) for file in files])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_services(names: Sequence[str], output: str) -> dict[str, ServiceState]:
    """Read `systemctl show` of several units in their order: LoadState, ActiveState, SubState and UnitFileState."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in output.split("\n\n")]
    blocks = [block for block in blocks if block]
    if len(blocks) != len(names):
        raise ConfigurationError(f"systemctl returned {len(blocks)} of {len(names)} services: {' '.join(names)}")
    return {
        name: ServiceState(
            known=block.get("LoadState") == "loaded",
            masked=block.get("LoadState") == "masked",
            active=block.get("ActiveState") in {"active", "activating", "reloading"}
            and block.get("SubState") != "auto-restart",
            enabled=block.get("UnitFileState") in {"enabled", "enabled-runtime", "static", "generated", "alias"},
            failed=block.get("ActiveState") == "failed" or block.get("SubState") == "auto-restart",
            elapsed=name.endswith(".timer") and block.get("SubState") == "elapsed",
            starting=block.get("ActiveState") == "activating" and block.get("SubState") != "auto-restart",
        )
        for name, block in zip(names, blocks, strict=True)
    }


def services(units: Iterable[Unit], host: Host) -> dict[str, ServiceState]:
    names = sorted({unit.service for unit in units if unit.service})
    if not names:
        return {}
    return parse_services(names, _show_services(names, host))


def _show_services(names: Sequence[str], host: Host) -> str:
    result = host.run(["systemctl", "show", "--property=LoadState,ActiveState,SubState,UnitFileState", *names])
    if not result.ok:
        raise ConfigurationError(f"systemd does not answer: {result.output}")
    return result.output


def differs(wanted: File, found: FileState | None) -> bool:
    if wanted.content is None:
        return found is not None
    if wanted.target:
        return found is None or found.link != wanted.target
    return found is None or found != _wanted_state(wanted)


def _wanted_state(wanted: File) -> FileState:
    return FileState((wanted.content or "").encode(), wanted.mode, wanted.owner, wanted.group, wanted.target)


def plan(unit: Unit, host: Host, service: ServiceState) -> Plan:
    """Compare the current with the desired state. Read-only."""
    if service.masked and not unit.unmask:
        raise ConfigurationError(
            f"{unit.name}: the service {unit.service} is masked, so that it cannot start. Run `systemctl unmask "
            f"{unit.service}` on the host if it is not masked on purpose, and run again"
        )
    changes = []
    for wanted in unit.files:
        found = host.read(wanted.path)
        if differs(wanted, found):
            changes.append(Change(wanted.path, found, None if wanted.content is None else wanted))
    named = {wanted.path for wanted in unit.files}
    for folder in unit.folders:
        if folder.exclusive:
            undeclared = sorted(set(host.list_files(folder.path)) - named)
            changes.extend(Change(path, host.read(path), None) for path in undeclared)
    folders = tuple(
        folder
        for folder in unit.folders
        if host.read_folder(folder.path) != FolderState(folder.mode, folder.owner, folder.group)
    )
    resume = host.read_record(unit.name) is not None
    inactive, live_output = False, None
    if not changes and not resume and unit.live_command:
        result = host.run(unit.live_command)
        inactive = _live_fault(unit, result) is not None or (
            unit.live_exact
            and _verified(host, unit.name).get("live_digest", _digest(result.output)) != _digest(result.output)
        )
        live_output = result.output if result.ok else ""
    return Plan(
        unit=unit,
        folders=folders,
        changes=tuple(changes),
        resume=resume,
        inactive=inactive,
        live_output=live_output,
        start=bool(unit.service) and not service.active,
        enable=bool(unit.service) and not service.enabled,
        unmask=service.masked,
        service=service,
    )


def test(plan: Plan, host: Host, missing_program_ok: bool = False) -> None:
    """Validate the new files in the staging directory with the programs that use them. Active files are not changed.

    `missing_program_ok` is for check mode on a host whose packages are not installed yet.
    """
    unit = plan.unit
    commands: list[tuple[str, list[str]]] = []
    changed = {change.path for change in plan.changes}
    for wanted in unit.files:
        if wanted.content is None or wanted.target or not (wanted.path in changed or unit.test):
            continue
        staged = host.stage(wanted.path, wanted.content.encode())
        if wanted.validate and wanted.path in changed:
            commands.append((wanted.path, [part.replace("%s", staged) for part in wanted.validate]))
    if unit.test and plan.activate:
        main = unit.files[0].path
        commands.append((main, [part.replace("%s", host.staged(main)) for part in unit.test]))
    for path, command in commands:
        result = host.run(command)
        if result.code is None and missing_program_ok:
            continue
        if not result.ok:
            raise ConfigurationError(
                f"{unit.name}: `{command[0]}` rejects the new {path}, the previous one stays active. Output: "
                f"{result.output.strip() or 'none'}"
            )


def apply(plan: Plan, host: Host, sleep: Callable[[float], None] = time.sleep) -> None:
    """Activate the planned and tested unit, or roll it back and raise the reason."""
    unit = plan.unit
    previous = _previous_files(plan, host)
    if plan.activate:
        host.write_record(unit.name, _dump(previous, _was_active(plan, host)))
    for folder in plan.folders:
        host.make_folder(folder)
    for change in plan.changes:
        if change.after is None:
            host.remove(change.path)
        elif change.after.content is not None:
            host.write(change.path, _wanted_state(change.after))
    fault = _activate(plan, host, previous, sleep) or verify(unit, host, sleep)
    if fault is None:
        record_known_good(unit, host)
        record_verified(unit, host)
        host.remove_record(unit.name)
        return
    good = _known_good_files(unit, host)
    if not plan.activate and not good:
        raise ConfigurationError(f"{unit.name}: {fault}{_journal(unit, host)}")
    journal = _journal(unit, host)
    if previous or any(host.read(path) != state for path, state in good.items()):
        # The files before this change may never have worked: the service runs with values from before them.
        rollback = _roll_back(plan, host, previous | good, start=bool(good) and plan.service.failed)
        ending = f" The rollback failed too: {rollback}." if rollback else " The previous files are active again."
    else:
        # No file was changed, so there is none to restore; the service is not stopped.
        host.remove_record(unit.name)
        ending = " Its files are as declared and were not changed; the service was not stopped."
    raise ConfigurationError(f"{unit.name}: {fault}.{ending}{journal}")


def record_known_good(unit: Unit, host: Host, output: str | None = None) -> None:
    """Record the files that the running service uses. `output` is that of the live command, if it has just been run."""
    if not unit.known_good or not unit.live_command:
        return
    if output is None:
        result = host.run(unit.live_command)
        output = result.output if result.ok else ""
    if unit.live_contains in output and unit.known_good_contains in output:
        record = _dump({path: host.read(path) for path in unit.known_good}, active=True)
        if host.read_record(unit.name, KNOWN_GOOD) != record:
            host.write_record(unit.name, record, KNOWN_GOOD)


def record_verified(unit: Unit, host: Host, output: str | None = None) -> None:
    """Record the state of a unit that has just been verified, for `drift`. `output` is that of the live command."""
    if unit.restart or not (unit.files or unit.folders or unit.service):
        return  # an action on the service, not a state
    if unit.live_exact and output is None:
        output = host.run(unit.live_command).output
    record = json.dumps(
        {
            "files": {
                file.path: None if file.content is None else _described(_wanted_state(file)) for file in unit.files
            },
            "folders": {
                folder.path: {
                    "mode": folder.mode,
                    "owner": folder.owner,
                    "group": folder.group,
                    "exclusive": folder.exclusive,
                }
                for folder in unit.folders
            },
            "service": unit.service,
            "live_command": unit.live_command,
            "live_contains": unit.live_contains,
            "live_lines": unit.live_lines,
            **({"live_digest": _digest(output or "")} if unit.live_exact else {}),
        }
    )
    if host.read_record(unit.name, VERIFIED) != record:
        host.write_record(unit.name, record, VERIFIED)


def forget_verified(unit: Unit, host: Host) -> None:
    """Remove the record of a unit that does not apply any more."""
    host.remove_record(unit.name, VERIFIED)


def _described(state: FileState) -> dict[str, Any]:
    """A file without its content, which may be a secret."""
    if state.link:
        return {"link": state.link}
    content = hashlib.sha256(state.content).hexdigest()
    return {"content": content, "mode": state.mode, "owner": state.owner, "group": state.group}


def _digest(output: str) -> str:
    return hashlib.sha256(output.encode()).hexdigest()


def _verified(host: Host, unit: str) -> dict[str, Any]:
    """The record of a unit's last verification; empty without one."""
    try:
        found = json.loads(host.read_record(unit, VERIFIED) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def drift(host: Host, units: Sequence[str]) -> list[str]:
    """What differs from the last verification of the units, whose records are given from the oldest on. Read-only."""
    records = [_verified(host, unit) for unit in units]
    # A path that a unit has taken over from another one is described by its newest record.
    files = {path: described for record in records for path, described in record.get("files", {}).items()}
    found = [sentence for path, described in files.items() for sentence in _file_drift(path, described, host)]
    for record in records:
        found += _folder_drift(record, files, host)
        found += _live_drift(record, host)
    return found + _service_drift(sorted({record.get("service") or "" for record in records} - {""}), host)


def _file_drift(path: str, described: Mapping[str, Any] | None, host: Host) -> list[str]:
    state = host.read(path)
    if described is None or state is None:
        return [] if described is None and state is None else [f"{path} {'exists again' if state else 'is missing'}"]
    now = _described(state)
    if now.get("content") != described.get("content") or now.get("link") != described.get("link"):
        return [f"{path} was changed"]
    if now != described:
        return [f"{path} belongs to {state.owner}:{state.group} with mode {state.mode:04o}"]
    return []


def _folder_drift(record: Mapping[str, Any], files: Iterable[str], host: Host) -> list[str]:
    found = []
    for path, described in record.get("folders", {}).items():
        state = host.read_folder(path)
        if state is None:
            found.append(f"{path} is missing")
        elif state != FolderState(described["mode"], described["owner"], described["group"]):
            found.append(f"{path} belongs to {state.owner}:{state.group} with mode {state.mode:04o}")
        if described["exclusive"]:
            found += [f"{file} was added" for file in sorted(set(host.list_files(path)) - set(files))]
    return found


def _live_drift(record: Mapping[str, Any], host: Host) -> list[str]:
    command = tuple(record.get("live_command") or ())
    if not command:
        return []
    unit = Unit("", live_command=command, live_contains=record["live_contains"], live_lines=tuple(record["live_lines"]))
    result = host.run(command)
    if _live_fault(unit, result) is None and record.get("live_digest") in (None, _digest(result.output)):
        return []
    return [f"`{' '.join(command)}` shows another state than the one that was activated"]


def _service_drift(names: Sequence[str], host: Host) -> list[str]:
    if not names:
        return []
    found = []
    for name, service in parse_services(names, _show_services(names, host)).items():
        if not service.active or service.failed:
            found.append(f"{name} does not run")
        elif service.elapsed:
            found.append(f"{name} runs, but has no next time")
        if not service.enabled:
            found.append(f"{name} would not start with the host, because it is not enabled")
    return found


def _known_good_files(unit: Unit, host: Host) -> dict[str, FileState | None]:
    record = host.read_record(unit.name, KNOWN_GOOD) if unit.known_good else None
    return _load(record) if record is not None else {}


def verify(unit: Unit, host: Host, sleep: Callable[[float], None] = time.sleep, only_ports: bool = False) -> str | None:
    """Whether the unit is active, read-only: the first fault that persists until the timeout, or None.

    `only_ports` is for a unit whose plan has just verified the rest.
    """
    elapsed = 0.0
    while True:
        fault = (None if only_ports else _service_fault(unit, host)) or _port_fault(unit, host)
        if fault is None or elapsed >= unit.probe_seconds:
            return fault
        sleep(0.25)
        elapsed += 0.25


def plan_reactivation(plan: Plan, host: Host, sleep: Callable[[float], None] = time.sleep) -> Plan:
    """Activate an unchanged unit again if its ports fail: a certificate may have been renewed in its place."""
    if plan.changed:
        return plan
    fault = verify(plan.unit, host, sleep, only_ports=True)
    if fault is None:
        return plan
    if not plan.unit.service or plan.unit.on_change == "none":
        raise ConfigurationError(f"{plan.unit.name}: no file differs, but {fault}")
    return replace(plan, inactive=True)


def _service_fault(unit: Unit, host: Host) -> str | None:
    if unit.service and not host.run(["systemctl", "is-active", "--quiet", unit.service]).ok:
        return f"the service {unit.service} is not active"
    return _live_fault(unit, host.run(unit.live_command)) if unit.live_command else None


def _live_fault(unit: Unit, result: Result) -> str | None:
    """What the output of the live command lacks of the unit's configuration, or None."""
    found = set(result.output.splitlines())
    missing = next((line for line in unit.live_lines if line not in found), None)
    if result.ok and unit.live_contains in result.output and missing is None:
        return None
    wanted = f"`{missing}`" if result.ok and missing is not None else "the new configuration"
    output = " ".join(shortened(result.output, 200).split())
    return f"`{' '.join(unit.live_command)}` does not show {wanted} (output: {output})"


def _port_fault(unit: Unit, host: Host) -> str | None:
    return next((fault for fault in map(host.probe, unit.probes) if fault is not None), None)


def _activate(
    plan: Plan, host: Host, previous: Mapping[str, FileState | None], sleep: Callable[[float], None]
) -> str | None:
    unit = plan.unit
    commands: list[Sequence[str]] = []
    if plan.unmask:
        commands.append(["systemctl", "unmask", "--quiet", unit.service])
    if plan.activate:
        if any(path.startswith(SYSTEMD_FOLDERS) for path in previous):
            commands.append(["systemctl", "daemon-reload"])
        commands.extend(unit.commands)
    if unit.service:
        active = plan.service.active
        if plan.service.starting:
            # Waits for the start in progress, which may use the previous files and fail.
            active = host.run(["systemctl", "start", unit.service]).ok
        if plan.enable:
            commands.append(["systemctl", "enable", "--quiet", unit.service])
        if plan.activate and unit.on_change != "none":
            commands.append(["systemctl", _verb(unit, active), unit.service])
        elif plan.start or not active:
            commands.append(["systemctl", "start", unit.service])
    return _run_all(commands, host, unit.lock_timeout_seconds, sleep)


def _verb(unit: Unit, active: bool) -> str:
    if not active:
        return "start"
    return "reload" if unit.on_change == "reload" and not unit.restart else "restart"


def _run_all(
    commands: Iterable[Sequence[str]],
    host: Host,
    lock_timeout_seconds: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    elapsed = 0.0
    for command in commands:
        while not (result := host.run(command)).ok and LOCKED.search(result.output) and elapsed < lock_timeout_seconds:
            sleep(1.0)
            elapsed += 1.0
        if not result.ok:
            return f"`{' '.join(command)}` failed: {shortened(result.output, 1500)}"
    return None


def _previous_files(plan: Plan, host: Host) -> dict[str, FileState | None]:
    """The files before this change, or before the interrupted one if there is a record."""
    previous = {change.path: change.before for change in plan.changes}
    record = host.read_record(plan.unit.name)
    if record is not None:
        previous |= _load(record)
    return previous


def _was_active(plan: Plan, host: Host) -> bool:
    """Whether the service was active before this change, or before the interrupted one if there is a record."""
    record = host.read_record(plan.unit.name)
    try:
        return bool(json.loads(record)["active"]) if record is not None else plan.service.active
    except (ValueError, KeyError, TypeError):
        return plan.service.active


def _roll_back(plan: Plan, host: Host, previous: Mapping[str, FileState | None], start: bool = False) -> str | None:
    """Restore the files and activate them. `start` starts a service that had failed, with files that worked."""
    unit = plan.unit
    was_active = _was_active(plan, host)
    for path, state in previous.items():
        if state is None:
            host.remove(path)
        else:
            host.write(path, state)
    commands: list[Sequence[str]] = []
    if any(path.startswith(SYSTEMD_FOLDERS) for path in previous):
        commands.append(["systemctl", "daemon-reload"])
    if unit.service and not was_active and not start:
        commands.append(["systemctl", "stop", unit.service])
    else:
        # Before a first installation there was nothing to activate.
        first = all(state is None for state in previous.values())
        commands.extend(unit.commands if unit.commands_on_rollback and not first else ())
        # A service that ran before the first installation, such as the SSH server, keeps running without our files.
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


def _dump(previous: Mapping[str, FileState | None], active: bool) -> str:
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
                for path, state in previous.items()
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
        # The record was interrupted while it was written, so no file has been changed yet.
        return {}


def diff(plan: Plan) -> list[dict[str, str]]:
    """The diff of the unit, for --diff."""
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
    """Path of a host's file below the staging directory."""
    return str(PurePosixPath(root) / path.lstrip("/"))
