"""Run a playbook through ansible-runner, as every Ansible job of the pipeline does.

The log is collapsed by play in GitLab; <reports>/<name>.json, .md and .xml (JUnit) hold the result. Secrets come from
the variables HCLOUD_TOKEN or HCLOUD_TOKEN_FILE, ANSIBLE_VAULT_PASSWORD_FILE and SLIPWAY_SSH_KEY_FILE. They are copied
to files that only this user can read, removed at the end, and masked in the log and the reports, as is all that the
vault holds.

exit codes:
  0    the playbook ended well
  1    Ansible ended without a failed host: the message is in the log
  2    a task failed
  3    a host is unreachable, and no task failed
  4    the input is wrong; nothing has been started
  5    tasks changed or would change something, with --require-unchanged
  130  canceled by SIGINT or SIGTERM: Ansible was interrupted, and killed after --grace-seconds
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import ansible_runner
import yaml

from ci import reports
from ci.events import Event, Recorder
from ci.masking import SHORTEST, InputError, Masker, vault_values, write_private

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCHER = Path(__file__).with_name("ansible-playbook.sh")
PREFIX = "slipway-run-"
SECRET_FILES = {
    "HCLOUD_TOKEN_FILE": "hcloud_token",
    "ANSIBLE_VAULT_PASSWORD_FILE": "vault_password",
    "SLIPWAY_SSH_KEY_FILE": "ssh_key",
}
"""Variable with the path of a secret → name of the private copy."""
SECRET_NAME = re.compile(r"TOKEN|PASSWORD|SECRET|PRIVATE|JWT|^CI_REPOSITORY_URL$", re.IGNORECASE)
"""Variables of the job that Ansible does not need and does not get."""
POLL_SECONDS = 1
GRACE_SECONDS = 60


class ExitCode(IntEnum):
    OK = 0
    ERROR = 1
    FAILED = 2
    UNREACHABLE = 3
    BAD_INPUT = 4
    DRIFT = 5
    CANCELED = 130


@dataclass(frozen=True, slots=True)
class Options:
    playbook: str
    inventory: Path
    project: Path
    reports: Path
    name: str
    extra_vars: Mapping[str, Any] = field(default_factory=dict)
    check: bool = False
    diff: bool = False
    require_unchanged: bool = False
    limit: str = ""
    tags: str = ""
    state_dir: str = ""
    grace_seconds: float = GRACE_SECONDS

    @property
    def environment(self) -> str:
        return self.inventory.name

    def command_line(self) -> str:
        flags = [flag for flag, given in (("--check", self.check), ("--diff", self.diff)) if given]
        values = [f"--{name}={value}" for name, value in (("limit", self.limit), ("tags", self.tags)) if value]
        return shlex.join([self.playbook, *flags, *values])


def parse_extra_vars(texts: Sequence[str]) -> dict[str, Any]:
    """`name=value`, or a JSON object, as for ansible-playbook; not for secrets, since arguments are visible."""
    values: dict[str, Any] = {}
    for text in texts:
        if text.lstrip().startswith("{"):
            try:
                values |= json.loads(text)
            except ValueError as error:
                raise InputError(f"--extra-vars: {text!r} is not a JSON object ({error}). Correct it.") from None
        else:
            name, equals, value = text.partition("=")
            if not (equals and re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name)):
                raise InputError(f"--extra-vars: {text!r} is not name=value. Write it so, or as a JSON object.")
            values[name] = value
    return values


def parse_options(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    summary, _, codes = str(__doc__).partition("\nexit codes:")
    parser = argparse.ArgumentParser(
        prog="python -m ci.run_playbook",
        description=summary,
        epilog=f"exit codes:{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("playbook", help="path in the repository")
    parser.add_argument("--inventory", required=True, help="directory, for example inventories/stage")
    parser.add_argument("--extra-vars", "-e", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    parser.add_argument("--check", action="store_true", help="dry run")
    parser.add_argument("--diff", action="store_true", help="print the differences of files")
    parser.add_argument("--require-unchanged", action="store_true", help="fail if a task changes something")
    parser.add_argument("--limit", default="")
    parser.add_argument("--tags", default="")
    parser.add_argument("--project", type=Path, default=REPOSITORY, help="another checkout of this repository")
    parser.add_argument("--reports", type=Path, default=Path("artifacts/ci"), help="directory of the reports")
    parser.add_argument("--name", default="", help="of the reports. Default: the playbook's name")
    parser.add_argument("--grace-seconds", type=float, default=GRACE_SECONDS, help="for Ansible to end when canceled")
    given = parser.parse_args(arguments)
    project = given.project.resolve()
    inventory = (project / given.inventory).resolve()
    if not (project / given.playbook).is_file():
        raise InputError(f"{given.playbook}: is not a playbook in {project}. Name one by its path there.")
    if not inventory.exists():
        raise InputError(f"{given.inventory}: is not an inventory in {project}. Name one by its path there.")
    return Options(
        playbook=given.playbook,
        inventory=inventory,
        project=project,
        reports=given.reports,
        name=given.name or Path(given.playbook).stem,
        extra_vars=parse_extra_vars(given.extra_vars),
        check=given.check,
        diff=given.diff,
        require_unchanged=given.require_unchanged,
        limit=given.limit,
        tags=given.tags,
        state_dir=environment.get("SLIPWAY_STATE_DIR", ""),
        grace_seconds=given.grace_seconds,
    )


def take_secrets(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Read the secrets that variables name, and remove from the environment all that looks like one."""
    secrets = {}
    if token := environment.get("HCLOUD_TOKEN", "").strip():
        secrets["hcloud_token"] = token
    for variable, name in SECRET_FILES.items():
        if path := environment.get(variable):
            try:
                # ssh requires the last newline of a key; the other readers ignore it.
                secrets[name] = Path(path).read_text(encoding="utf-8").strip() + "\n"
            except OSError as error:
                raise InputError(f"{variable}: {path} cannot be read ({error.strerror}). Set it to a file.") from None
            if len(secrets[name].strip()) < SHORTEST:
                raise InputError(f"{variable}: {path} has fewer than {SHORTEST} characters. Use a longer secret.")
    for variable in [name for name in environment if SECRET_NAME.search(name) or name in SECRET_FILES]:
        del environment[variable]
    return secrets


@contextmanager
def private_directory(parent: Path | None = None) -> Iterator[Path]:
    """A directory for one run. Removes those of runs that were killed: nobody holds their lock any more."""
    parent = parent or Path(tempfile.gettempdir())
    for leftover in parent.glob(f"{PREFIX}*"):
        with suppress(OSError), (leftover / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover)
    # It gets its name after its lock, so that another run that starts now does not take it for a leftover.
    unlocked = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    with (unlocked / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = unlocked.rename(unlocked.with_name(unlocked.name.removeprefix(".")))
        try:
            yield path
        finally:
            shutil.rmtree(path)


def prepare(directory: Path, options: Options, secrets: Mapping[str, str]) -> dict[str, str]:
    """Write what the run needs into its directory; returns variables for Ansible's environment."""
    extra_vars = dict(options.extra_vars)
    for name, value in secrets.items():
        write_private(directory / "secrets" / name, value)
    if "ssh_key" in secrets:
        extra_vars.setdefault("ansible_ssh_private_key_file", str(directory / "secrets/ssh_key"))
    if options.state_dir:
        extra_vars.setdefault("platform_state_dir", str(Path(options.state_dir).resolve() / options.environment))
    write_private(directory / "env/extravars", json.dumps(extra_vars))
    found = {
        "SLIPWAY_RUN_DIR": str(directory),
        # Ansible ignores a configuration in a directory that everybody can write to, as builds of containers are.
        "ANSIBLE_CONFIG": str(options.project / "ansible.cfg"),
        # ansible-runner switches it off otherwise.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
    }
    if "vault_password" in secrets:
        found["ANSIBLE_VAULT_PASSWORD_FILE"] = str(directory / "secrets/vault_password")
    return found


class Cancellation:
    """Interrupts Ansible at the first signal; ansible-runner kills it when `expired`, after the grace period."""

    def __init__(self, pid_file: Path, grace_seconds: float) -> None:
        self._pid_file = pid_file
        self._grace_seconds = grace_seconds
        self._requested_at: float | None = None
        self._interrupted = False

    @property
    def requested(self) -> bool:
        return self._requested_at is not None

    def request(self, *_: object) -> None:
        if self._requested_at is None:
            self._requested_at = time.monotonic()

    def expired(self) -> bool:
        """Called every second."""
        if self._requested_at is None:
            return False
        if not self._interrupted and self._pid_file.exists() and (pid := self._pid_file.read_text().strip()):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGINT)
            self._interrupted = True
        return time.monotonic() - self._requested_at > self._grace_seconds


def exit_code(recorder: Recorder, status: int, options: Options, *, canceled: bool) -> ExitCode:
    failures = recorder.failures()
    if canceled:
        return ExitCode.CANCELED
    if any(not failure.unreachable for failure in failures):
        return ExitCode.FAILED
    if failures:
        return ExitCode.UNREACHABLE
    if status != 0:
        return ExitCode.FAILED if any(host["failures"] for host in (recorder.stats or {}).values()) else ExitCode.ERROR
    return ExitCode.DRIFT if options.require_unchanged and recorder.changed() else ExitCode.OK


def write_reports(recorder: Recorder, options: Options, masker: Masker, about: Mapping[str, Any]) -> None:
    document = masker.value(reports.document(recorder, about))
    suite = reports.junit(
        recorder, f"{options.environment}.{options.name}", require_unchanged=options.require_unchanged
    )
    stem = options.reports / options.name
    reports.write(stem.with_suffix(".json"), reports.to_json(document))
    reports.write(stem.with_suffix(".md"), masker.text(reports.markdown(document)))
    reports.write(stem.with_suffix(".xml"), masker.text(ElementTree.tostring(suite, encoding="unicode")) + "\n")


def run(options: Options, secrets: Mapping[str, str], masker: Masker) -> ExitCode:
    started = datetime.now(UTC)
    recorder = Recorder(lambda text: print(masker.text(text), end="", flush=True))

    def save(result: str, code: ExitCode | None) -> None:
        ended = datetime.now(UTC)
        about = {
            "environment": options.environment,
            "playbook": options.playbook,
            "check_mode": options.check,
            "commit": os.environ.get("CI_COMMIT_SHA", ""),
            "pipeline": os.environ.get("CI_PIPELINE_ID", ""),
            "job": os.environ.get("CI_JOB_ID", ""),
            "started": started.isoformat(timespec="seconds"),
            "ended": ended.isoformat(timespec="seconds"),
            "seconds": round((ended - started).total_seconds(), 1),
            "result": result,
            "exit_code": code,
        }
        write_reports(recorder, options, masker, about)

    # The report of a run that is killed must not be that of an earlier one.
    save("unfinished", None)
    with private_directory() as directory:
        cancellation = Cancellation(directory / "pid", options.grace_seconds)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, cancellation.request)
        runner = ansible_runner.run(
            private_data_dir=str(directory),
            project_dir=str(options.project),
            binary=str(LAUNCHER),
            cmdline=options.command_line(),
            inventory=str(options.inventory),
            envvars=prepare(directory, options, secrets),
            settings={"pexpect_timeout": POLL_SECONDS},
            quiet=True,
            event_handler=lambda event: handle(recorder, event),
            cancel_callback=cancellation.expired,
        )
    recorder.end_play()
    code = exit_code(recorder, runner.rc, options, canceled=cancellation.requested)
    save(code.name.lower(), code)
    for line in reports.failure_lines(recorder.failures()):
        print(masker.text(line))
    print(f"{options.playbook}: {code.name.lower()}, {recorder.changed()} changed tasks; exit code {code.value}.")
    return code


def handle(recorder: Recorder, event: Event) -> bool:
    """Returns false: ansible-runner then keeps no file of the event, which may hold secrets."""
    recorder.handle(event)
    return False


def main(arguments: Sequence[str]) -> int:
    try:
        options = parse_options(arguments, os.environ)
        secrets = take_secrets(os.environ)
        masker = Masker(
            [*secrets.values(), *vault_values(options.inventory, secrets.get("vault_password", "").strip() or None)]
        )
    except (InputError, yaml.YAMLError) as error:
        print(f"Nothing has been started. {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT
    return run(options, secrets, masker)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
