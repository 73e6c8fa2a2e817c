"""Units of configuration: planned without a change, tested before, proved after, taken back when the proof fails."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import configuration
from ansible_collections.slipway.platform.plugins.module_utils.configuration import (
    Change,
    ConfigurationError,
    File,
    FileState,
    Folder,
    FolderState,
    Probe,
    Result,
    ServiceState,
    Unit,
)

RUNNING = ServiceState(known=True, active=True, enabled=True)


class Killed(BaseException):
    """The run dies: nothing after it happens."""


@dataclass
class FakeHost:
    """Files in memory, a service that runs what the files say, and a log of all commands."""

    files: dict[str, FileState] = field(default_factory=dict)
    folders: dict[str, FolderState] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    known_good: dict[str, str] = field(default_factory=dict)
    verified: dict[str, str] = field(default_factory=dict)
    stages: dict[str, bytes] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    answers: dict[str, Result] = field(default_factory=dict)
    faults: list[str | None] = field(default_factory=list)
    die_at: str = ""

    @property
    def kinds(self) -> dict[str, dict[str, str]]:
        return {
            configuration.UNFINISHED: self.records,
            configuration.KNOWN_GOOD: self.known_good,
            configuration.VERIFIED: self.verified,
        }

    def read(self, path: str) -> FileState | None:
        return self.files.get(path)

    def read_folder(self, path: str) -> FolderState | None:
        return self.folders.get(path)

    def list_files(self, folder: str) -> list[str]:
        return [path for path in self.files if path.rpartition("/")[0] == folder]

    def write(self, path: str, state: FileState) -> None:
        if self.die_at == path:
            raise Killed
        self.files[path] = state

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    def make_folder(self, folder: Folder) -> None:
        self.folders[folder.path] = FolderState(folder.mode, folder.owner, folder.group)

    def stage(self, path: str, content: bytes) -> str:
        self.stages[path] = content
        return self.staged(path)

    def staged(self, path: str) -> str:
        return f"/staging{path}"

    def run(self, command: Sequence[str]) -> Result:
        text = " ".join(command)
        if self.die_at and self.die_at == text:
            raise Killed
        self.commands.append(text)
        return next((answer for start, answer in self.answers.items() if text.startswith(start)), Result(0))

    def probe(self, probe: Probe) -> str | None:
        return self.faults.pop(0) if self.faults else None

    def read_record(self, unit: str, kind: str = configuration.UNFINISHED) -> str | None:
        return self.kinds[kind].get(unit)

    def write_record(self, unit: str, text: str, kind: str = configuration.UNFINISHED) -> None:
        self.kinds[kind][unit] = text

    def remove_record(self, unit: str, kind: str = configuration.UNFINISHED) -> None:
        self.kinds[kind].pop(unit, None)


def state(content: str, mode: int = 0o644) -> FileState:
    return FileState(content.encode(), mode, "root", "root")


WEB = Unit(
    name="web",
    files=(File("/etc/web/web.conf", "new"), File("/etc/web/key.pem", "key", mode=0o600, sensitive=True)),
    test=("web", "-t", "-c", "%s"),
    service="web",
    probes=(Probe("127.0.0.1", 443),),
    probe_seconds=1.0,
)


def no_wait(seconds: float) -> None:
    """Time passes at once."""


def converge(unit: Unit, host: FakeHost, service: ServiceState = RUNNING) -> configuration.Plan:
    planned = configuration.plan(unit, host, service)
    configuration.test(planned, host)
    if planned.changed:
        configuration.apply(planned, host, no_wait)
    return planned


def test_a_fresh_host_gets_all_and_the_second_time_nothing() -> None:
    host = FakeHost()
    first = converge(WEB, host, ServiceState(known=True))
    assert first.changed
    assert first.reasons() == ["write /etc/web/web.conf", "write /etc/web/key.pem", "start web", "enable web"]
    assert host.files == {"/etc/web/web.conf": state("new"), "/etc/web/key.pem": state("key", 0o600)}
    assert host.commands[-3:] == [
        "systemctl enable --quiet web",
        "systemctl start web",
        "systemctl is-active --quiet web",
    ]
    assert host.records == {}
    second = configuration.plan(WEB, host, RUNNING)
    assert not second.changed
    assert second.reasons() == []


def test_planning_changes_nothing() -> None:
    host = FakeHost(files={"/etc/web/web.conf": state("old")})
    configuration.plan(WEB, host, RUNNING)
    assert host.files == {"/etc/web/web.conf": state("old")}
    assert host.commands == []


def test_a_running_service_is_reloaded_never_restarted() -> None:
    host = FakeHost(files={"/etc/web/web.conf": state("old")})
    converge(WEB, host)
    assert "systemctl reload web" in host.commands
    assert not any("restart" in command for command in host.commands)


def test_the_staged_unit_is_tested_before_any_file_is_written() -> None:
    host = FakeHost(
        files={"/etc/web/web.conf": state("old"), "/etc/web/key.pem": state("key", 0o600)},
        answers={"web -t": Result(1, "unknown directive")},
    )
    with pytest.raises(
        ConfigurationError, match=r"`web` rejects the new .*the previous one stays active.*unknown directive"
    ):
        converge(WEB, host)
    assert host.commands == ["web -t -c /staging/etc/web/web.conf"]
    assert host.stages == {"/etc/web/web.conf": b"new", "/etc/web/key.pem": b"key"}, (
        "unchanged files belong to the test"
    )
    assert host.files["/etc/web/web.conf"] == state("old")


@pytest.mark.parametrize(("missing_ok", "fails"), [(False, True), (True, False)])
def test_check_mode_forgives_a_program_that_is_not_installed_yet(missing_ok: bool, fails: bool) -> None:
    host = FakeHost(answers={"web -t": Result(None, "there is no program web here")})
    planned = configuration.plan(WEB, host, ServiceState())
    if fails:
        with pytest.raises(ConfigurationError, match="no program web"):
            configuration.test(planned, host, missing_program_ok=missing_ok)
    else:
        configuration.test(planned, host, missing_program_ok=missing_ok)


def test_a_single_file_is_validated_by_its_staged_path_when_it_changed() -> None:
    unit = Unit("ssh", files=(File("/etc/ssh/a.conf", "a", validate=("sshd", "-t", "-f", "%s")), File("/b", "b")))
    host = FakeHost(files={"/b": state("other")})
    configuration.test(configuration.plan(unit, host, ServiceState()), host)
    assert host.commands == ["sshd -t -f /staging/etc/ssh/a.conf"]
    host = FakeHost(files={"/etc/ssh/a.conf": state("a"), "/b": state("other")})
    configuration.test(configuration.plan(unit, host, ServiceState()), host)
    assert host.commands == []


def test_a_failed_verification_restores_and_activates_the_previous_files() -> None:
    host = FakeHost(
        files={"/etc/web/web.conf": state("old")},
        faults=["127.0.0.1 port 443 does not answer"] * 9,
        answers={"journalctl": Result(0, "bind failed")},
    )
    with pytest.raises(ConfigurationError) as error:
        converge(WEB, host)
    assert str(error.value) == (
        "web: 127.0.0.1 port 443 does not answer. The previous files are active again.\nLast lines of web:\nbind failed"
    )
    assert host.files == {"/etc/web/web.conf": state("old")}
    assert host.commands.count("systemctl reload web") == 1
    assert host.commands[-1] == "systemctl reload-or-restart web"
    assert host.records == {}


def test_a_port_may_take_its_time() -> None:
    host = FakeHost(files={"/etc/web/web.conf": state("old")}, faults=["not yet", "not yet", None])
    converge(WEB, host)
    assert host.files["/etc/web/web.conf"] == state("new")


def test_a_first_installation_that_fails_is_silenced() -> None:
    host = FakeHost(faults=["no answer"] * 9)
    with pytest.raises(ConfigurationError):
        converge(WEB, host, ServiceState(known=True))
    assert host.files == {}
    assert "systemctl stop web" in host.commands


def test_a_failed_rollback_is_reported() -> None:
    host = FakeHost(files={"/etc/web/web.conf": state("old")}, answers={"systemctl reload": Result(1, "dead")})
    with pytest.raises(ConfigurationError, match=r"`systemctl reload web` failed: dead\. The rollback failed too"):
        converge(WEB, host)


@pytest.mark.parametrize("death", ["/etc/web/web.conf", "/etc/web/key.pem", "systemctl reload web"])
def test_a_run_that_died_is_finished_by_the_next(death: str) -> None:
    host = FakeHost(files={"/etc/web/web.conf": state("old")}, die_at=death)
    with pytest.raises(Killed):
        converge(WEB, host)
    host.die_at = ""
    host.commands.clear()
    second = converge(WEB, host)
    assert second.resume
    assert "systemctl reload web" in host.commands
    assert host.files["/etc/web/web.conf"] == state("new")
    assert not configuration.plan(WEB, host, RUNNING).changed


def test_a_run_that_died_is_taken_back_to_before_it_began() -> None:
    host = FakeHost(files={"/etc/web/web.conf": state("old")}, die_at="systemctl reload web")
    with pytest.raises(Killed):
        converge(WEB, host)
    host.die_at = ""
    host.faults = ["no answer"] * 9
    with pytest.raises(ConfigurationError):
        converge(WEB, host)
    assert host.files == {"/etc/web/web.conf": state("old")}


def test_a_record_cut_short_is_no_obstacle() -> None:
    host = FakeHost(files={"/etc/web/web.conf": state("old")}, records={"web": '{"files": {"/etc'})
    converge(WEB, host)
    assert host.records == {}


def test_what_is_on_disk_but_not_live_is_made_live() -> None:
    unit = Unit(
        "rules", files=(File("/rules", "r"),), live_command=("nft", "list"), live_contains="version 2", service="fw"
    )
    host = FakeHost(files={"/rules": state("r")}, answers={"nft list": Result(0, "version 1")})
    planned = configuration.plan(unit, host, RUNNING)
    assert planned.inactive
    host.answers["nft list"] = Result(0, "version 2")
    configuration.apply(planned, host, no_wait)
    assert "systemctl reload fw" in host.commands
    assert not configuration.plan(unit, host, RUNNING).changed


def test_a_failed_activation_is_reported_and_nothing_is_stopped() -> None:
    unit = Unit("ssh", files=(File("/ssh", "s"),), live_command=("sshd", "-T"), live_contains="wanted", service="ssh")
    host = FakeHost(files={"/ssh": state("s")}, answers={"sshd -T": Result(0, "another file came first")})
    with pytest.raises(ConfigurationError, match="the service was not stopped"):
        converge(replace(unit, probe_seconds=0), host)
    assert "systemctl reload ssh" in host.commands
    assert not any("stop" in command for command in host.commands)
    assert host.files == {"/ssh": state("s")}
    assert host.records == {}


def test_a_service_that_ran_before_our_first_file_runs_after_its_rollback() -> None:
    host = FakeHost(faults=["no answer"] * 9)
    with pytest.raises(ConfigurationError):
        converge(replace(WEB, commands=(("apply", "web.conf"),)), host)
    assert host.files == {}
    assert host.commands.count("apply web.conf") == 1, "its file is gone"
    assert host.commands[-1] == "systemctl reload-or-restart web"
    assert "systemctl stop web" not in host.commands


def test_a_service_that_an_interrupted_run_started_is_silenced_with_it() -> None:
    host = FakeHost(die_at="systemctl is-active --quiet web")
    with pytest.raises(Killed):
        converge(WEB, host, ServiceState(known=True))
    host.die_at = ""
    host.faults = ["no answer"] * 9
    with pytest.raises(ConfigurationError):
        converge(WEB, host, RUNNING)
    assert host.files == {}
    assert "systemctl stop web" in host.commands


def test_a_port_that_serves_what_was_before_is_reason_enough_to_reload() -> None:
    host = FakeHost(files={"/etc/web/web.conf": state("new"), "/etc/web/key.pem": state("key", 0o600)})
    planned = configuration.plan(WEB, host, RUNNING)
    assert not configuration.plan_reactivation(planned, host, no_wait).changed
    host.faults = ["presents another certificate"] * 5
    planned = configuration.plan_reactivation(planned, host, no_wait)
    assert planned.reasons() == ["activate the files on disk"]
    configuration.apply(planned, host, no_wait)
    assert "systemctl reload web" in host.commands
    host.faults = ["no answer"] * 5
    with pytest.raises(ConfigurationError, match="no file differs, but no answer"):
        configuration.plan_reactivation(
            configuration.plan(replace(WEB, on_change="none"), host, RUNNING), host, no_wait
        )


def test_strays_of_an_exclusive_folder_go_and_come_back_with_a_rollback() -> None:
    unit = Unit(
        "trust",
        files=(File("/ca/a.crt", "a"),),
        folders=(Folder("/ca", exclusive=True),),
        commands=(("update-ca-certificates", "--fresh"),),
    )
    host = FakeHost(files={"/ca/old.crt": state("old")}, folders={"/ca": FolderState(0o755, "root", "root")})
    converge(unit, host)
    assert set(host.files) == {"/ca/a.crt"}
    host = FakeHost(files={"/ca/old.crt": state("old")}, answers={"update-ca": Result(1, "bad")})
    with pytest.raises(ConfigurationError):
        converge(unit, host)
    assert host.files == {"/ca/old.crt": state("old")}


def test_systemd_is_reloaded_before_the_service() -> None:
    unit = Unit("fw", files=(File("/etc/systemd/system/fw.service", "x"),), service="fw", on_change="restart")
    host = FakeHost()
    converge(unit, host)
    assert host.commands[:2] == ["systemctl daemon-reload", "systemctl restart fw"]


def test_an_absent_file_is_removed_and_that_is_a_change() -> None:
    unit = Unit("web", files=(File("/a", None),))
    host = FakeHost(files={"/a": state("x")})
    assert converge(unit, host).reasons() == ["remove /a"]
    assert host.files == {}
    assert not configuration.plan(unit, host, ServiceState()).changed


def test_owner_mode_and_links_count_as_differences() -> None:
    wanted = File("/a", "x", mode=0o600)
    assert not configuration.differs(wanted, state("x", 0o600))
    assert configuration.differs(wanted, state("x", 0o644))
    assert configuration.differs(wanted, replace(state("x", 0o600), owner="anna"))
    assert configuration.differs(wanted, replace(state("x", 0o600), link="/b"))


def test_commands_that_must_not_be_repeated_are_left_out_of_the_rollback() -> None:
    unit = Unit("acme", files=(File("/ini", "new"),), commands=(("certbot",),), commands_on_rollback=False)
    host = FakeHost(files={"/ini": state("old")}, answers={"certbot": Result(1, "refused")})
    with pytest.raises(ConfigurationError, match="certbot"):
        converge(unit, host)
    assert host.commands == ["certbot"]
    assert host.files == {"/ini": state("old")}


def test_the_diff_hides_what_is_sensitive_and_shows_modes() -> None:
    host = FakeHost(files={"/etc/web/web.conf": state("new", 0o600), "/etc/web/key.pem": state("secret", 0o600)})
    shown = configuration.diff(configuration.plan(WEB, host, RUNNING))
    assert (shown[0]["before"], shown[0]["after"]) == ("root:root 0600\n", "root:root 0644\n")
    assert "secret" not in str(shown)
    removal = configuration.Plan(WEB, changes=(Change("/x", state("gone"), None),))
    assert configuration.diff(removal)[0]["after"] == ""


DATABASE = Unit(
    name="database",
    files=(File("/etc/database.conf", "new"),),
    service="database",
    live_command=("query",),
    live_contains="digest",
    known_good=("/etc/database.conf",),
    known_good_contains="settled",
    probe_seconds=1.0,
)
FAILED = ServiceState(known=True, enabled=True, failed=True)
RESTART = replace(DATABASE, files=(), live_command=(), live_contains="", restart=True)


def settled(content: str) -> FakeHost:
    """A host whose service was verified with this content and runs."""
    host = FakeHost({"/etc/database.conf": state(content)}, answers={"query": Result(0, "digest settled")})
    configuration.record_known_good(DATABASE, host)
    return host


@pytest.mark.parametrize(
    ("output", "recorded"), [("digest settled", True), ("digest pending", False), ("settled", False)]
)
def test_files_are_known_good_once_the_service_uses_every_value(output: str, recorded: bool) -> None:
    host = FakeHost({"/etc/database.conf": state("new")}, answers={"query": Result(0, output)})
    planned = configuration.plan(DATABASE, host, RUNNING)
    configuration.record_known_good(DATABASE, host, planned.live_output)
    assert bool(host.known_good) == recorded


def test_a_change_is_recorded_as_known_good_after_its_verification() -> None:
    host = settled("old")
    before = host.known_good["database"]
    converge(DATABASE, host)
    assert host.known_good["database"] != before
    host.answers["query"] = Result(0, "digest pending")
    recorded = host.known_good["database"]
    converge(replace(DATABASE, files=(File("/etc/database.conf", "later"),)), host)
    assert host.known_good["database"] == recorded, "a value waits for a restart"


def test_a_failed_restart_restores_the_known_good_files() -> None:
    host = settled("good")
    host.files["/etc/database.conf"] = state("bad")
    host.answers["systemctl restart"] = Result(1, "Job failed")
    with pytest.raises(
        ConfigurationError, match=r"restart database` failed: Job failed.*previous files are active again"
    ):
        converge(RESTART, host)
    assert host.files["/etc/database.conf"] == state("good")
    assert host.commands[-1] == "systemctl reload-or-restart database"
    assert host.records == {}


def test_a_restart_that_succeeds_keeps_the_files() -> None:
    host = settled("good")
    host.files["/etc/database.conf"] = state("better")
    planned = converge(RESTART, host)
    assert planned.reasons() == ["restart database"]
    assert host.files["/etc/database.conf"] == state("better")
    assert "systemctl restart database" in host.commands


@pytest.mark.parametrize("service", [FAILED, RUNNING])
def test_a_rollback_passes_over_files_that_never_worked(service: ServiceState) -> None:
    host = settled("good")
    host.files["/etc/database.conf"] = state("bad")
    host.answers["systemctl start"] = host.answers["systemctl reload database"] = Result(1, "huge_pages")
    with pytest.raises(ConfigurationError, match="previous files are active again"):
        converge(replace(DATABASE, files=(File("/etc/database.conf", "worse"),)), host, service)
    assert host.files["/etc/database.conf"] == state("good")
    assert host.commands[-1] == "systemctl reload-or-restart database", "it is started, although it was not active"


@pytest.mark.parametrize(
    ("service", "last"),
    [
        (FAILED, "systemctl reload-or-restart database"),
        (replace(FAILED, failed=False), "systemctl stop database"),
    ],
    ids=["failed", "stopped"],
)
def test_declared_files_that_fail_are_rolled_back_and_a_stopped_service_stays_stopped(
    service: ServiceState, last: str
) -> None:
    host = settled("good")
    host.files["/etc/database.conf"] = state("new")
    host.answers["systemctl start"] = Result(1, "huge_pages")
    with pytest.raises(ConfigurationError, match="previous files are active again"):
        converge(DATABASE, host, service)
    assert host.files["/etc/database.conf"] == state("good")
    assert host.commands[-1] == last


@pytest.mark.parametrize(
    ("succeeds", "then"), [(True, "systemctl reload database"), (False, "systemctl start database")]
)
def test_a_start_in_progress_is_waited_for(succeeds: bool, then: str) -> None:
    host = settled("old")
    starts = iter([Result(0 if succeeds else 1), Result(0)])
    run = host.run

    def run_or_start(command: Sequence[str]) -> Result:
        result = run(command)
        return next(starts) if "start" in command else result

    host.run = run_or_start  # type: ignore[method-assign]
    converge(DATABASE, host, replace(RUNNING, starting=True))
    systemctl = [command for command in host.commands if command.startswith("systemctl")]
    assert systemctl == ["systemctl start database", then, "systemctl is-active --quiet database"]


SHOWN = "LoadState=loaded\nActiveState={}\nSubState={}\nUnitFileState={}\n"


def test_services_are_read_in_one_go() -> None:
    output = "\n".join(
        [
            SHOWN.format("active", "running", "enabled"),
            SHOWN.format("inactive", "dead", "disabled"),
            SHOWN.format("active", "exited", "static"),
            SHOWN.format("activating", "start", "enabled"),
            SHOWN.format("activating", "auto-restart", "enabled"),
        ]
    )
    assert configuration.parse_services(["a", "b", "c", "d", "e"], output) == {
        "a": RUNNING,
        "b": ServiceState(known=True),
        "c": RUNNING,
        "d": replace(RUNNING, starting=True),
        "e": FAILED,
    }
    absent = configuration.parse_services(["d"], "LoadState=not-found\nActiveState=inactive\nUnitFileState=\n")
    assert absent == {"d": ServiceState()}
    with pytest.raises(ConfigurationError, match="returned 0 of 1 services"):
        configuration.parse_services(["a"], "")


@pytest.mark.parametrize("path", ["/etc/a", "etc/a"])
def test_staging_mirrors_the_host(path: str) -> None:
    assert configuration.staged_path("/tmp/s", path) == "/tmp/s/etc/a"


def test_the_real_host_keeps_modes_links_and_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.slipway.platform.plugins.module_utils import configuration_host as module

    monkeypatch.setattr(module, "STATE_FOLDER", tmp_path / "state")
    monkeypatch.setattr(module, "STAGING_FOLDER", tmp_path)

    class Stand:
        def atomic_move(self, source: str, target: str, unsafe_writes: bool) -> None:
            Path(source).replace(target)

    umask = os.umask(0o077)  # as sudo may set it
    try:
        host = module.RealHost(Stand(), "test")
        user, group = module._user(os.getuid()), module._group(os.getgid())
        target = tmp_path / "new" / "deep" / "a.conf"
        host.write(str(target), FileState(b"x", 0o640, user, group))
        host.make_folder(module.Folder(str(tmp_path / "above" / "folder"), 0o700, user, group, False))
    finally:
        os.umask(umask)
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("new", "new/deep", "above", "above/folder")] == [
        "0o755",
        "0o755",
        "0o755",
        "0o700",
    ]
    assert host.read(str(target)) == FileState(b"x", 0o640, user, group)
    link = tmp_path / "link"
    link.symlink_to("/nowhere")
    before = host.read(str(link))
    assert before is not None and before.link == "/nowhere"
    host.write(str(link), FileState(b"plain", 0o644, user, group))
    assert not link.is_symlink()
    host.write(str(link), before)
    assert link.is_symlink()
    host.write_record("web", "{}")
    assert host.read_record("web") == "{}"
    assert (tmp_path / "state/test").stat().st_mode & 0o777 == 0o700
    host.remove_record("web")
    assert host.read_record("web") is None
    with pytest.raises(ConfigurationError, match="is a directory"):
        host.read(str(tmp_path))


KNOWN = ("known_good", "known_good_contains")


def options(**given: object) -> dict[str, object]:
    """A unit's options as the module hands them on, with its defaults."""
    file = {"state": "present", "mode": "0644", "owner": "root", "group": "root", "validate": None, "sensitive": False}
    file |= {"content": None, "target": None}
    files = [file | entry for entry in given.pop("files", [])]  # type: ignore[attr-defined]
    empty = dict.fromkeys(
        (
            "folders",
            "test",
            "commands",
            "service",
            "live_command",
            "live_contains",
            "live_lines",
            "digest_mark",
            "probes",
            *KNOWN,
        )
    )
    fixed = {
        "name": "web",
        "live_exact": False,
        "commands_on_rollback": True,
        "on_change": "reload",
        "probe_seconds": 10,
        "restart": False,
    }
    fixed |= {"lock_timeout_seconds": 0, "unmask": False}
    return {**empty, **fixed, "files": files, **given}


def test_a_digest_of_all_files_is_put_in_place_of_its_mark() -> None:
    def built(second: str) -> Unit:
        files = [{"path": "/a", "content": "digest @digest@\n"}, {"path": "/b", "content": second}]
        return configuration.unit_from(options(files=files, digest_mark="@digest@", live_contains="is @digest@"))

    one, same, other = built("x"), built("x"), built("y")
    digest = one.live_contains.removeprefix("is ")
    assert len(digest) == 16 and one == same
    assert one.files[0].content == f"digest {digest}\n"
    assert other.live_contains != one.live_contains


def test_without_a_mark_nothing_is_replaced() -> None:
    unit = configuration.unit_from(options(files=[{"path": "/a", "content": "@digest@"}], live_contains="@digest@"))
    assert unit.files[0].content == unit.live_contains == "@digest@"


@pytest.mark.parametrize("before", [None, state("a file"), FileState(b"", 0o777, "root", "root", "/elsewhere")])
def test_a_link_is_placed_once(before: FileState | None) -> None:
    unit = configuration.unit_from(options(files=[{"path": "/link", "target": "/there", "validate": ["never"]}]))
    host = FakeHost(files={} if before is None else {"/link": before})
    assert converge(unit, host).reasons() == ["write /link"]
    assert host.files["/link"].link == "/there"
    # Links have a mode and owner that nobody chose.
    host.files["/link"] = FileState(b"", 0o777, "other", "other", "/there")
    assert not configuration.plan(unit, host, RUNNING).changed


def test_the_diff_shows_where_links_lead() -> None:
    unit = configuration.unit_from(options(files=[{"path": "/link", "target": "/there"}]))
    host = FakeHost(files={"/link": FileState(b"", 0o777, "root", "root", "/elsewhere")})
    (shown,) = configuration.diff(configuration.plan(unit, host, RUNNING))
    assert (shown["before"], shown["after"]) == ("link to /elsewhere\n", "link to /there\n")


def test_a_masked_service_is_an_error_before_any_change_unless_it_may_be_unmasked() -> None:
    masked = configuration.parse_services(["web"], "LoadState=masked\nActiveState=inactive\nUnitFileState=masked\n")[
        "web"
    ]
    host = FakeHost()
    with pytest.raises(ConfigurationError, match="the service web is masked, so that it cannot start"):
        converge(WEB, host, masked)
    assert host.files == {}
    planned = converge(replace(WEB, unmask=True), host, masked)
    assert "unmask web" in planned.reasons()
    assert host.commands.index("systemctl unmask --quiet web") < host.commands.index("systemctl enable --quiet web")


LOCKED = [
    "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 8 (apt-get)",
    "dpkg: error: dpkg frontend lock was locked by /usr/bin/apt-get process with pid 8",
    "dpkg: error: dpkg frontend lock was locked by another process with pid 8",
]


@pytest.mark.parametrize("output", LOCKED)
def test_a_command_waits_for_the_lock_of_another_process(output: str) -> None:
    unit = Unit(
        name="apt", files=(File("/etc/apt/a", "new"),), commands=(("apt-get", "update"),), lock_timeout_seconds=9
    )
    locked = Result(100, f"{output}\n")

    class Locked(FakeHost):
        left = 5

        def run(self, command: Sequence[str]) -> Result:
            self.left -= 1
            return locked if self.left > 0 else super().run(command)

    host = Locked()
    converge(unit, host)
    assert host.files == {"/etc/apt/a": state("new")}
    assert host.left == 0
    for failing, text in ((locked, output), (Result(100, "E: no such host"), "no such host")):
        host = FakeHost(answers={"apt-get": failing})
        with pytest.raises(ConfigurationError, match=re.escape(text)):
            converge(unit, host)
        assert host.files == {}
    assert len(host.commands) == 1
