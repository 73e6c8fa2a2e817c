"""Promotion, rollback and the tags that both read, on real git repositories."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ci import comment, promotion, releases, rollback
from ci.gitlab import GitlabError, Project
from ci.releases import Release, fetch_releases, last_passed, parse_tags, tag_name

A, B, D = "a" * 40, "b" * 40, "d" * 40
RELEASES = [Release("prod", "1", A), Release("prod", "2", B), Release("stage", "3", D)]


def test_tags_are_read_and_others_skipped() -> None:
    lines = [f"{B} passed/prod/2", f"{A} passed/prod/1", f"{D} passed/review/x/3", f"{D} v1.0", f"{D} passed/prod"]
    assert parse_tags(lines) == [Release("prod", "1", A), Release("prod", "2", B), Release("review/x", "3", D)]
    assert [release.tag for release in parse_tags(lines[:1])] == ["passed/prod/2"]


def test_tags_sort_by_time() -> None:
    east = datetime(2026, 11, 30, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert tag_name("prod", east) == "passed/prod/20261129T233000Z"
    assert tag_name("prod", east) < tag_name("prod", datetime(2026, 11, 29, 23, 31, tzinfo=UTC))


@pytest.mark.parametrize(
    ("environment", "head", "tag"),
    [("prod", B, "passed/prod/1"), ("prod", D, "passed/prod/2"), ("stage", A, "passed/stage/3"), ("stage", D, None)],
)
def test_the_last_commit_that_passed(environment: str, head: str, tag: str | None) -> None:
    found = last_passed(RELEASES, environment, but=head)
    assert (found and found.tag) == tag


@pytest.mark.parametrize(
    ("commit", "environment", "message"),
    [
        (D, "stage", None),
        (A, "prod", None),
        (A, "stage", "aaaaaaaa: has not passed in stage, the last one that passed is dddddddd (passed/stage/3)."),
        (A, "dev", "aaaaaaaa: has not passed in dev, none passed yet."),
    ],
)
def test_only_a_commit_that_passed_is_promoted(commit: str, environment: str, message: str | None) -> None:
    refused = promotion.refusal(commit, environment, RELEASES)
    assert refused is None if message is None else (refused or "").startswith(message)


@pytest.mark.parametrize(
    ("now", "then", "names"),
    [
        ({"rke2_version": "v1.36.3+rke2r1"}, {"rke2_version": "v1.36.3+rke2r1"}, []),
        ({"rke2_version": "v1.36.3+rke2r1"}, {"rke2_version": "v1.35.9+rke2r1"}, ["RKE2"]),
        ({"rke2_version": "v1.9.0+rke2r1"}, {"rke2_version": "v1.10.0+rke2r1"}, []),
        ({"postgresql_version": "18"}, {"postgresql_version": "17"}, ["PostgreSQL"]),
        ({"ceph_version": "20.2.4"}, {"ceph_version": "19.2.7"}, ["Ceph"]),
        ({"ceph_version": "20.2.4", "rke2_version": "v2"}, {}, []),
    ],
)
def test_versions_that_cannot_go_back(now: dict[str, str], then: dict[str, str], names: list[str]) -> None:
    assert [message.partition(":")[0] for message in rollback.refusals(now, then)] == names


def test_a_refusal_names_the_runbook() -> None:
    [message] = rollback.refusals({"postgresql_version": "18"}, {"postgresql_version": "17"})
    assert "postgresql_version is 18, 17 before" in message and "docs/runbooks/restore_postgresql.md" in message


def git(repository: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    command = ["git", "-C", str(repository), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Origin:
    """A project on a server, and a job's clone of it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.clone = folder / "origin", folder / "clone"
        self.path.mkdir()
        git(self.path, "init", "--quiet", "--initial-branch", "main")

    def commit(self, platform: str, tag: str | None = None, *, annotated: bool = False) -> str:
        group_vars = self.path / "inventories/test/group_vars"
        group_vars.mkdir(parents=True, exist_ok=True)
        (group_vars / "platform.yml").write_text(platform)
        (group_vars / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n00\n")
        (self.path / "inventories/test/hosts.yml").write_text(
            "all: { hosts: { one: { ansible_connection: local } } }\n"
        )
        (self.path / "ansible.cfg").write_text("[defaults]\n")
        (self.path / "site.yml").write_text(
            f"- name: {tag or 'head'}\n  hosts: one\n  gather_facts: false\n  tasks:\n"
            "    - name: Print the version\n      ansible.builtin.debug: { msg: done }\n"
        )
        git(self.path, "add", "--all")
        git(self.path, "commit", "--quiet", "--allow-empty", "--message", tag or "head")
        if tag:
            git(self.path, "tag", *(["--annotate", "--message", tag] if annotated else []), tag)
        return git(self.path, "rev-parse", "HEAD")

    def make_clone(self) -> None:
        """As a job gets it: one commit, no tags."""
        command = ["git", "clone", "--quiet", "--depth", "1", "--no-tags", f"file://{self.path}", str(self.clone)]
        subprocess.run(command, check=True)


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


def test_releases_are_fetched_into_a_shallow_clone(origin: Origin) -> None:
    first = origin.commit("rke2_version: v1\n", "passed/prod/1")
    second = origin.commit("rke2_version: v2\n", "passed/prod/2", annotated=True)
    origin.make_clone()
    assert fetch_releases(origin.clone) == [Release("prod", "1", first), Release("prod", "2", second)]


def run_rollback(origin: Origin) -> int:
    return rollback.main(["--environment", "prod", "--inventory", "inventories/test"], origin.clone)


def test_a_rollback_is_refused_where_a_version_cannot_go_back(
    origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    origin.commit("postgresql_version: '17'\nceph_version: '{{ x }}'\n", "passed/prod/1")
    origin.commit("postgresql_version: '18'\nceph_version: '20'\n")
    origin.make_clone()
    assert run_rollback(origin) == rollback.REFUSED
    output = capsys.readouterr().err
    assert output.startswith("Nothing has been changed: passed/prod/1 is not applied.\nPostgreSQL: ")
    assert "Ceph" not in output
    assert git(origin.clone, "worktree", "list").count("\n") == 0


def test_a_rollback_without_an_earlier_release(origin: Origin, capsys: pytest.CaptureFixture[str]) -> None:
    origin.commit("rke2_version: v1\n", "passed/prod/1")
    origin.make_clone()
    assert run_rollback(origin) == rollback.REFUSED
    assert "prod: no other commit has passed" in capsys.readouterr().err


def test_a_rollback_applies_the_last_commit_that_passed(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    origin.commit("rke2_version: v1.36.1\n", "passed/prod/1")
    expected = origin.commit("rke2_version: v1.36.3\n", "passed/prod/2")
    origin.commit("rke2_version: v1.36.3\n")
    origin.make_clone()
    runs: list[tuple[list[str], str, str]] = []

    def main(arguments: list[str]) -> int:
        checkout = Path(arguments[arguments.index("--project") + 1])
        runs.append((arguments, git(checkout, "rev-parse", "HEAD"), (checkout / "site.yml").read_text()))
        return 3

    monkeypatch.setattr(rollback.run_playbook, "main", main)
    monkeypatch.setenv("CI_COMMIT_SHA", "head")
    assert run_rollback(origin) == 3
    [(arguments, commit, playbook)] = runs
    assert arguments[:3] == ["site.yml", "--inventory", "inventories/test"]
    assert (commit, playbook.partition("\n")[0]) == (expected, "- name: passed/prod/2")
    assert git(origin.clone, "worktree", "list").count("\n") == 0


class Handler(BaseHTTPRequestHandler):
    """GitLab's answers; keeps what it was asked."""

    calls: ClassVar[list[tuple[str, str, dict[str, Any]]]] = []
    notes: ClassVar[list[dict[str, Any]]] = []
    status = 200

    def answer(self) -> None:
        assert self.headers["PRIVATE-TOKEN"] == "token"
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        self.calls.append((self.command, self.path, body))
        first_page = "page=1" in self.path.partition("per_page")[2]
        found: Any = self.notes if first_page else [] if self.command == "GET" else {"id": 7}
        content = json.dumps(found).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


@pytest.fixture
def gitlab() -> Iterator[dict[str, str]]:
    Handler.calls, Handler.notes, Handler.status = [], [], 200
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {
            "CI_API_V4_URL": f"http://127.0.0.1:{server.server_port}/api/v4",
            "CI_PROJECT_ID": "5",
            "SLIPWAY_API_TOKEN": "token",
            "CI_COMMIT_SHA": A,
            "CI_MERGE_REQUEST_IID": "3",
        }
        server.shutdown()


def test_a_commit_that_passed_gets_its_tag(gitlab: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in gitlab.items():
        monkeypatch.setenv(name, value)
    assert releases.main(["stage"]) == 0
    [(method, path, body)] = Handler.calls
    assert (method, path, body["ref"]) == ("POST", "/api/v4/projects/5/repository/tags", A)
    assert re.fullmatch(r"passed/stage/\d{8}T\d{6}Z", body["tag_name"])
    Handler.status = 403
    assert releases.main(["stage"]) == 1


def test_a_summary_is_written_once_and_then_replaced(gitlab: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "dry-run-stage.md").write_text("**stage**")
    assert comment.write_comment(tmp_path / "dry-run-stage.md", gitlab) == "merge request 3: comment 7 written"
    method, path, body = Handler.calls[-1]
    assert (method, path) == ("POST", "/api/v4/projects/5/merge_requests/3/notes")
    Handler.notes = [{"id": 4, "body": "other"}, {"id": 5, "body": body["body"]}]
    assert comment.write_comment(tmp_path / "dry-run-stage.md", gitlab) == "merge request 3: comment 5 replaced"
    assert Handler.calls[-1][:2] == ("PUT", "/api/v4/projects/5/merge_requests/3/notes/5")


def test_no_comment_without_a_merge_request(tmp_path: Path) -> None:
    assert "no merge request" in comment.write_comment(tmp_path / "a.md", {})


def test_a_rejected_call_names_the_remedy(gitlab: dict[str, str]) -> None:
    Handler.status = 401
    with pytest.raises(GitlabError, match=r"401 .* Check the scope of SLIPWAY_API_TOKEN"):
        Project(gitlab).call("POST", "repository/tags", ref=A)
    with pytest.raises(GitlabError, match="SLIPWAY_API_TOKEN: not set"):
        Project(gitlab | {"SLIPWAY_API_TOKEN": ""})
    with pytest.raises(GitlabError, match="no answer"):
        Project(gitlab | {"CI_API_V4_URL": "http://127.0.0.1:1"}).call("GET", "x")


SMOKE = Path(rollback.__file__).with_name("smoke.sh")


def smoke(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SMOKE)], env={"PATH": "/usr/bin:/bin"} | environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [(200, 0, "200 in"), (404, 0, "404 in"), (502, 1, "no answer below 500 within 0 s: 50")],
)
def test_smoke(gitlab: dict[str, str], status: int, code: int, text: str, handler: Callable[[int], None]) -> None:
    handler(status)
    url = gitlab["CI_API_V4_URL"]
    result = smoke({"SMOKE_URLS": f"{url}/a {url}/b", "SMOKE_SECONDS": "0"})
    assert result.returncode == code, result.stderr
    assert (result.stdout + result.stderr).count(text) == 2


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the answer to requests without a token."""

    def answer(self: Handler) -> None:
        self.send_response(Handler.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    monkeypatch.setattr(Handler, "do_GET", answer)
    return lambda status: setattr(Handler, "status", status)


def test_smoke_reports_what_does_not_answer() -> None:
    result = smoke({"SMOKE_URLS": "https://127.0.0.1:1/", "SMOKE_SECONDS": "0"})
    assert result.returncode == 1 and "https://127.0.0.1:1/: no answer" in result.stderr
    result = smoke({})
    assert result.returncode == 4 and result.stderr.startswith("SMOKE_URLS: is not set.")
