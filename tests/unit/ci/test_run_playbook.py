"""The driver of ansible-runner, with real runs of small local playbooks."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from ci.masking import InputError, Masker, vault_values
from ci.run_playbook import (
    Cancellation,
    ExitCode,
    parse_extra_vars,
    parse_options,
    private_directory,
    take_secrets,
)
from tests.support.deadlines import until

REPOSITORY = Path(__file__).resolve().parents[3]
TOKEN = "hcloud-token-of-the-test"
PASSWORD = "vault-password-of-the-test"
VAULTED = "database-password-in-the-vault"
SECRETS = (TOKEN, PASSWORD, VAULTED)

INVENTORY = """
all:
  hosts: { one: {}, two: {} }
  vars: { ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}" }
"""
PLAYBOOK = """
- name: Same name
  hosts: all
  gather_facts: false
  tasks:
    - name: Set a statistic
      ansible.builtin.set_stats: { data: { run_report: { simulation: none } } }
    - name: Write the file
      ansible.builtin.copy: { content: hello, dest: "{{ folder }}/{{ inventory_hostname }}", mode: "0600" }

- name: Same name
  hosts: one
  gather_facts: false
  tasks:
    - name: Collect what other processes can see
      ansible.builtin.shell: |
        cat /proc/[0-9]*/cmdline | tr '\\\\0' ' ' > {{ folder }}/arguments
        grep -rl hcloud-token-of "$SLIPWAY_RUN_DIR" > {{ folder }}/files
        stat -c %a "$SLIPWAY_RUN_DIR" "$SLIPWAY_RUN_DIR"/secrets "$SLIPWAY_RUN_DIR"/secrets/* > {{ folder }}/modes
        env > {{ folder }}/environment
      changed_when: false
    - name: Print every secret
      ansible.builtin.debug:
        msg: "{{ lookup('ansible.builtin.env', 'HCLOUD_TOKEN') }} {{ database_password }} {{ folder }}"
    - name: Recover
      block:
        - name: Fail first
          ansible.builtin.fail: { msg: this failure is rescued }
      rescue:
        - name: Print the rescue
          ansible.builtin.debug: { msg: rescued }
    - name: Fail at the end
      ansible.builtin.fail: { msg: "no {{ lookup('ansible.builtin.env', 'HCLOUD_TOKEN') }}" }
      when: broken | default(false) | bool
"""
WAITING = """
- name: Wait
  hosts: one
  gather_facts: false
  tasks:
    - name: Write that the task runs
      ansible.builtin.copy: { content: "{{ ansible_playbook_python }}", dest: "{{ folder }}/waiting", mode: "0600" }
    - name: Wait for ever
      ansible.builtin.wait_for: { path: /does/not/exist, timeout: 600 }
"""
UNREACHABLE = """
- name: Reach the host
  hosts: away
  gather_facts: false
  tasks:
    - name: Ping the host
      ansible.builtin.ping:
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "ansible.cfg").write_text("[defaults]\ncallback_result_format = yaml\n")
    variables = root / "inventories/test/group_vars/all"
    variables.mkdir(parents=True)
    (root / "inventories/test/hosts.yml").write_text(INVENTORY)
    vault = VaultLib([("default", VaultSecret(PASSWORD.encode()))])
    (variables / "vault.yml").write_bytes(vault.encrypt(f"database_password: {VAULTED}\n"))
    (root / "inventories/away.yml").write_text(
        "all: { hosts: { away: { ansible_host: 127.0.0.1, ansible_port: 1, ansible_connection: ssh } } }\n"
    )
    for name, text in (("playbook", PLAYBOOK), ("waiting", WAITING), ("unreachable", UNREACHABLE), ("wrong", "- 1\n")):
        (root / f"{name}.yml").write_text(text)
    return root


class Runs:
    """Starts the driver as a job does."""

    def __init__(self, project: Path, folder: Path, temporary: Path) -> None:
        self.folder = folder
        self.temporary = temporary
        self.reports = folder / "reports"
        (folder / "token").write_text(f"{TOKEN}\n")
        (folder / "password").write_text(f"{PASSWORD}\n")
        self._project = project

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ci.run_playbook", *arguments, "--project", str(self._project)]
        return subprocess.Popen(
            [*command, "--reports", str(self.reports), "-e", f"folder={self.folder}"],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {
                "TMPDIR": str(self.temporary),
                "HCLOUD_TOKEN_FILE": str(self.folder / "token"),
                "ANSIBLE_VAULT_PASSWORD_FILE": str(self.folder / "password"),
                "CI_JOB_TOKEN": "job-token-of-the-test",
            },
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output.decode()

    def report(self, name: str) -> dict[str, object]:
        return json.loads((self.reports / f"{name}.json").read_text())  # type: ignore[no-any-return]

    def leftovers(self) -> list[Path]:
        return [path for path in self.temporary.iterdir() if "slipway-run" in path.name]


@pytest.fixture
def runs(project: Path, tmp_path: Path) -> Iterator[Runs]:
    # Ansible puts a socket in it, whose path has 107 characters at most; pytest's directories are longer.
    with TemporaryDirectory(prefix="slipway-test-", dir="/tmp") as temporary:
        yield Runs(project, tmp_path, Path(temporary))


def test_a_run_that_changes_something(runs: Runs) -> None:
    code, output = runs.run("playbook.yml", "--inventory", "inventories/test")
    assert code == ExitCode.OK, output
    report = runs.report("playbook")
    assert (report["result"], report["exit_code"], report["changed"]) == ("ok", 0, 2)
    assert report["drift"] == [{"play": "Same name", "task": "Write the file", "hosts": ["one", "two"]}]
    assert report["failures"] == []
    assert list(report["hosts"]) == ["one", "two"]  # type: ignore[call-overload]
    # Sections as GitLab reads them: each one that starts also ends.
    started = re.findall("\x1b\\[0Ksection_start:\\d+:(\\w+)\\[collapsed=true\\]\r\x1b\\[0K", output)
    assert started == re.findall("\x1b\\[0Ksection_end:\\d+:(\\w+)\r\x1b\\[0K", output)
    assert started == ["play_1_same_name", "play_2_same_name"]
    suites = ElementTree.parse(runs.reports / "playbook.xml").getroot()
    cases = [(suite.get("name"), case.get("name")) for suite in suites for case in suite]
    assert cases == [("Same name", "one"), ("Same name", "two"), ("Same name", "one")]
    assert suites.findall(".//failure") == []


def test_no_secret_is_visible(runs: Runs) -> None:
    code, output = runs.run("playbook.yml", "--inventory", "inventories/test")
    assert code == ExitCode.OK, output
    assert f"[MASKED] [MASKED] {runs.folder}" in output
    shown = output + "".join(path.read_text() for path in runs.reports.iterdir())
    arguments, environment = (runs.folder / name for name in ("arguments", "environment"))
    assert "ansible-playbook" in arguments.read_text()
    for secret in SECRETS:
        assert secret not in shown
        assert secret not in arguments.read_text()
    assert "job-token-of-the-test" not in environment.read_text()
    # On disk in one file that only this user can read, and nowhere afterwards.
    files = (runs.folder / "files").read_text().split()
    assert [Path(path).name for path in files] == ["hcloud_token"]
    assert set((runs.folder / "modes").read_text().split()) == {"700", "600"}
    assert runs.leftovers() == []


def test_drift_is_an_error_where_nothing_may_change(runs: Runs) -> None:
    arguments = ("playbook.yml", "--inventory", "inventories/test", "--check", "--diff", "--require-unchanged")
    code, output = runs.run(*arguments, "--name", "dry-run")
    assert code == ExitCode.DRIFT, output
    report = runs.report("dry-run")
    assert (report["result"], report["check_mode"], report["changed"]) == ("drift", True, 2)
    assert not (runs.folder / "one").exists()
    summary = (runs.reports / "dry-run.md").read_text()
    assert "| Same name | Write the file | one, two |" in summary and "dry run" in summary
    failures = ElementTree.parse(runs.reports / "dry-run.xml").getroot().findall(".//failure")
    assert [failure.text for failure in failures] == ["changed, although nothing should: Write the file"] * 2
    assert runs.run("playbook.yml", "--inventory", "inventories/test")[0] == ExitCode.OK
    assert runs.run(*arguments)[0] == ExitCode.OK


def test_a_failure_is_reported_with_its_message_and_a_rescued_one_is_not(runs: Runs) -> None:
    code, output = runs.run("playbook.yml", "--inventory", "inventories/test", "-e", "broken=true")
    assert code == ExitCode.FAILED, output
    assert "one: Fail at the end: no [MASKED]" in output
    report = runs.report("playbook")
    assert [(failure["task"], failure["message"]) for failure in report["failures"]] == [  # type: ignore[attr-defined]
        ("Fail at the end", "no [MASKED]")
    ]
    assert [play["failed"] for play in report["plays"]] == [0, 1]  # type: ignore[attr-defined]
    suites = ElementTree.parse(runs.reports / "playbook.xml").getroot()
    assert [suite.get("failures") for suite in suites] == ["0", "1"]
    assert [failure.get("message") for failure in suites.findall(".//failure")] == ["Fail at the end: no [MASKED]"]


def test_an_unreachable_host_has_a_code_of_its_own(runs: Runs) -> None:
    code, output = runs.run("unreachable.yml", "--inventory", "inventories/away.yml")
    assert code == ExitCode.UNREACHABLE, output
    report = runs.report("unreachable")
    assert [failure["host"] for failure in report["failures"]] == ["away"]  # type: ignore[attr-defined]
    assert report["result"] == "unreachable"


def test_a_playbook_that_ansible_rejects(runs: Runs) -> None:
    code, output = runs.run("wrong.yml", "--inventory", "inventories/test")
    assert code == ExitCode.ERROR, output
    assert runs.report("wrong")["result"] == "error"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_canceled_run_interrupts_ansible_and_leaves_no_secret(runs: Runs, number: signal.Signals) -> None:
    process = runs.start("waiting.yml", "--inventory", "inventories/test", "--grace-seconds", "600")
    until((runs.folder / "waiting").exists, 60, pause=0.1)
    assert runs.report("waiting")["result"] == "unfinished"
    [directory] = runs.leftovers()
    assert stat.S_IMODE((directory / "secrets/hcloud_token").stat().st_mode) == 0o600
    ansible = int((directory / "pid").read_text())
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == ExitCode.CANCELED, output.decode()
    assert "User interrupted execution" in output.decode()
    assert not Path(f"/proc/{ansible}").exists()
    assert runs.leftovers() == []
    assert runs.report("waiting")["result"] == "canceled"


def test_ansible_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (tmp_path / "pid").write_text(f"{process.pid}\n")
        cancellation = Cancellation(tmp_path / "pid", grace_seconds=0)
        assert not cancellation.expired()
        cancellation.request(signal.SIGTERM, None)
        assert until(cancellation.expired, 10, pause=0.01)
        assert process.wait(10) == -signal.SIGINT
        # A second look does not fail when the process has gone.
        assert cancellation.expired()
    finally:
        process.kill()


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    leftover = tmp_path / "slipway-run-killed"
    (leftover / "secrets").mkdir(parents=True)
    (leftover / "lock").touch()
    with private_directory(tmp_path) as running, private_directory(tmp_path) as other:
        assert not leftover.exists()
        assert running.exists() and other.exists() and running != other
        assert stat.S_IMODE(running.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


OPTIONS = ["playbook.yml", "--inventory", "inventories/test"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda p: parse_options(["other.yml", *OPTIONS[1:], "--project", str(p)], {}), "other.yml: is not a playbook"),
        (lambda p: parse_options([*OPTIONS[:2], "inventories/x", "--project", str(p)], {}), "x: is not an inventory"),
        (lambda p: parse_extra_vars(["word"]), "--extra-vars: 'word' is not name=value"),
        (lambda p: parse_extra_vars(["{"]), "--extra-vars: '{' is not a JSON object"),
        (lambda p: take_secrets({"HCLOUD_TOKEN_FILE": "/does/not/exist"}), "HCLOUD_TOKEN_FILE: /does/not/exist cannot"),
        (lambda p: take_secrets({"SLIPWAY_SSH_KEY_FILE": os.devnull}), "SLIPWAY_SSH_KEY_FILE: /dev/null has fewer"),
        (lambda p: vault_values(p / "inventories/test", None), "vault.yml: is encrypted and there is no"),
        (lambda p: vault_values(p / "inventories/test", "wrong"), "ANSIBLE_VAULT_PASSWORD_FILE does not decrypt it"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence(project: Path, fault: Callable[[Path], object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        fault(project)


def test_wrong_input_starts_nothing(runs: Runs) -> None:
    code, output = runs.run("playbook.yml", "--inventory", "inventories/none")
    assert code == ExitCode.BAD_INPUT
    assert output.startswith("Nothing has been started. inventories/none: is not an inventory")
    assert not runs.reports.exists()


def test_extra_vars_keep_their_types() -> None:
    assert parse_extra_vars(['{"a": [1]}', "b=c=d", "a=2"]) == {"a": "2", "b": "c=d"}


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (["0123456789"], "x0123456789y", "x[MASKED]y"),
        (["0123456789", "01234567890123"], "01234567890123", "[MASKED]"),
        (["-----BEGIN KEY-----\nabcdefghij\nklmnopqrst\n"], "+  abcdefghij\\nklmnopqrst", "+  [MASKED]\\n[MASKED]"),
        (["short"], "short", "short"),
        ([], "text", "text"),
        (["a+b(c)*d"], "a+b(c)*d", "[MASKED]"),
    ],
)
def test_masking(secrets: list[str], text: str, shown: str) -> None:
    assert Masker(secrets).text(text) == shown
    assert Masker(secrets).value({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


ENDS_IN_ORDER = """
import pathlib, signal, sys, time
def end(*_):
    time.sleep(0.5)  # as long as Ansible takes to end
    pathlib.Path("ended").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
pathlib.Path("ready").touch()
signal.pause()
"""


def test_the_shell_of_a_job_waits_for_the_end_of_a_canceled_run(tmp_path: Path) -> None:
    """As GitLab Runner starts a script: in a pipeline, in a shell that exits after it got a signal."""
    (tmp_path / "run.py").write_text(ENDS_IN_ORDER)
    script = f"trap exit 1 TERM\n: | eval $'set -e\\n. {REPOSITORY}/ci/prepare.sh\\npython3 run.py'\n"
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        start_new_session=True,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    until((tmp_path / "ready").exists, 60, pause=0.05)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) != 0
    assert (tmp_path / "ended").exists()
