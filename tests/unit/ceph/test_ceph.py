"""Commands of a cluster: in which container they run, what is sent to it, and how its answers are read."""

from __future__ import annotations

import contextlib
import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph, ceph_commands
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster, NoQuorum, NotBootstrapped

FSID = "6f2c5f0e-c0de-11f0-9c3c-0242ac120002"
OTHER = "aaaaaaaa-c0de-11f0-9c3c-0242ac120002"
KEYRING = "[client.admin]\n\tkey = AQ==\n"


class Host:
    """run_command of a host: podman lists its containers, everything else returns the given answers."""

    def __init__(self, names: str, *answers: dict[str, Any] | tuple[int, str, str]) -> None:
        self.names, self.answers = names, list(answers)
        self.commands: list[list[str]] = []
        self.requests: list[dict[str, Any]] = []

    def __call__(self, command: list[str], data: str | None = None) -> tuple[int, str, str]:
        self.commands.append(command)
        if command[:2] == ["podman", "ps"]:
            return 0, self.names, ""
        self.requests.append(json.loads(data or "{}"))
        answer = self.answers.pop(0)
        return answer if isinstance(answer, tuple) else (0, json.dumps(answer), "")


def answers(*outputs: str) -> dict[str, Any]:
    return {"answers": [{"code": 0, "output": output, "message": ""} for output in outputs]}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ceph, "ETC", tmp_path / "etc")
    monkeypatch.setattr(ceph, "DATA", tmp_path / "lib")
    (tmp_path / "etc").mkdir()
    (tmp_path / "lib" / FSID / "config").mkdir(parents=True)
    return tmp_path


def test_the_containers_of_a_cluster() -> None:
    listing = f"ceph-{OTHER}-mon-h1\nceph-{FSID}-osd-0\nceph-{FSID}-mon-h1\nceph-{FSID}-mgr-h1-abcdef\nceph-{FSID}\n"
    assert ceph.containers_of(listing, FSID) == {
        "mgr": f"ceph-{FSID}-mgr-h1-abcdef",
        "mon": f"ceph-{FSID}-mon-h1",
        "osd": f"ceph-{FSID}-osd-0",
    }


def test_commands_run_in_the_monitor_if_one_runs() -> None:
    host = Host(f"ceph-{FSID}-osd-0\nceph-{FSID}-mon-h1", answers("pools\n"), answers("[1]"))
    cluster = Cluster(host, FSID)
    assert cluster.run(["osd", "pool", "ls"]) == "pools\n"
    assert cluster.json(["osd", "ls"]) == [1]
    assert [command[:2] for command in host.commands] == [["podman", "ps"], ["timeout", "80"], ["timeout", "80"]]
    assert host.commands[1][2:8] == ["podman", "exec", "--interactive", f"ceph-{FSID}-mon-h1", "python3", "-c"]
    assert host.commands[1][8] == Path(ceph_commands.__file__).read_text()
    assert [request["commands"][0]["json"] for request in host.requests] == [False, True]


def test_secrets_are_on_stdin_only(folders: Path) -> None:
    (folders / "etc/ceph.client.admin.keyring").write_text(KEYRING)
    (folders / "etc/ceph.conf").write_text(f"[global]\n\tfsid = {FSID}\n")
    host = Host(f"ceph-{FSID}-mon-h1", answers(""))
    Cluster(host, FSID).run(["config-key", "set", "a"], input="S3CR3T")
    assert host.requests[0]["keyring"] == KEYRING
    assert host.requests[0]["commands"] == [{"args": ["config-key", "set", "a"], "input": "S3CR3T", "json": False}]
    assert "S3CR3T" not in " ".join(host.commands[1])
    assert KEYRING not in " ".join(host.commands[1])


def test_mon_host_is_that_of_the_host(folders: Path) -> None:
    """A container has the configuration from its start, which may list the first monitor only."""
    monitors = "[v2:10.0.1.51:3300/0,v1:10.0.1.51:6789/0] [v2:10.0.1.52:3300/0,v1:10.0.1.52:6789/0]"
    (folders / "etc/ceph.conf").write_text(f"[global]\n\tfsid = {FSID}\n\tmon_host = {monitors}\n")
    host = Host(f"ceph-{FSID}-mon-h1", answers(""))
    Cluster(host, FSID).run(["status"])
    assert host.requests[0]["mon_host"] == monitors


def test_several_commands_need_one_process() -> None:
    host = Host(f"ceph-{FSID}-mon-h1", answers("[0]", '{"a": 1}'))
    assert Cluster(host, FSID).batch([["osd", "ls"], ["status"]]) == [[0], {"a": 1}]
    assert len(host.requests) == 1


def test_prefetched_answers_are_returned_from_memory() -> None:
    refused = {"code": errno.ENOENT, "output": "", "message": "no such key"}
    first = {"answers": [*answers("[0]", '{"a": 1}')["answers"], refused]}
    host = Host(f"ceph-{FSID}-mon-h1", first, answers("[7]"))
    cluster = Cluster(host, FSID)
    cluster.prefetch([["osd", "ls"], ["status"]], texts=[["config-key", "get", "x"]])
    assert [command["json"] for command in host.requests[0]["commands"]] == [True, True, False]
    assert host.requests[0]["stop"] is False
    assert cluster.batch([["status"], ["osd", "ls"]]) == [{"a": 1}, [0]]
    assert cluster.execute([["config-key", "get", "x"]], strict=False) == [refused]
    with pytest.raises(CephError, match="no such key"):
        cluster.run(["config-key", "get", "x"])
    assert len(host.requests) == 1
    assert cluster.json(["osd", "tree"]) == [7], "what was not prefetched is executed"


def test_a_keyring_of_another_cluster_is_not_used(folders: Path) -> None:
    (folders / "etc/ceph.client.admin.keyring").write_text(KEYRING)
    (folders / "etc/ceph.conf").write_text(f"[global]\n\tfsid = {OTHER}\n")
    with pytest.raises(NotBootstrapped, match=f"no daemon of the cluster {FSID} runs on this host"):
        Cluster(Host(f"ceph-{OTHER}-mon-h1"), FSID).run(["status"])


def test_without_a_daemon_the_shell_is_used(folders: Path) -> None:
    (folders / "lib" / FSID / "config/ceph.client.admin.keyring").write_text(KEYRING)
    (folders / "lib" / FSID / "config/ceph.conf").write_text(f"fsid = {FSID}")
    host = Host("", answers("ok"))
    assert Cluster(host, FSID, cephadm="/opt/cephadm").run(["status"]) == "ok"
    assert host.commands[1][2:7] == ["/opt/cephadm", "shell", "--fsid", FSID, "--"]


def test_another_daemon_serves_when_the_host_has_the_key(folders: Path) -> None:
    host = Host(f"ceph-{FSID}-osd-0", answers("ok"))
    with pytest.raises(NotBootstrapped):
        Cluster(host, FSID).run(["status"])
    (folders / "lib" / FSID / "config/ceph.client.admin.keyring").write_text(KEYRING)
    assert Cluster(host, FSID).run(["status"]) == "ok"
    assert f"ceph-{FSID}-osd-0" in host.commands[-1]


def test_an_error_has_the_message_of_ceph() -> None:
    error = {"code": errno.ENOENT, "output": "", "message": "unrecognized pool 'x'"}
    host = Host(f"ceph-{FSID}-mon-h1", {"answers": [error]}, {"answers": [error, error]})
    cluster = Cluster(host, FSID)
    with pytest.raises(CephError) as caught:
        cluster.run(["osd", "pool", "get", "x", "size"])
    assert (caught.value.code, caught.value.message) == (errno.ENOENT, "unrecognized pool 'x'")
    assert str(caught.value) == "ceph osd pool get x size: unrecognized pool 'x' (ENOENT)"
    assert cluster.execute([["a"], ["b"]], strict=False) == [error, error]
    assert [request["stop"] for request in host.requests] == [True, False]


def test_no_quorum_is_an_error_of_its_own() -> None:
    host = Host(f"ceph-{FSID}-mon-h1", {"unreachable": "[errno 110] RADOS timed out"})
    with pytest.raises(NoQuorum, match=r"do not answer: \[errno 110\] RADOS timed out"):
        Cluster(host, FSID).run(["status"])


def test_a_replaced_container_is_found_again() -> None:
    host = Host(f"ceph-{FSID}-mon-h1", (125, "", "Error: no such container\n"), answers("ok"))
    cluster = Cluster(host, FSID)
    with pytest.raises(CephError, match=r"podman exec --interactive ceph-.* failed: Error: no such container"):
        cluster.run(["status"])
    assert cluster.run(["status"]) == "ok"
    assert sum(command[:2] == ["podman", "ps"] for command in host.commands) == 2


def test_invalid_json_is_an_error() -> None:
    with pytest.raises(CephError, match="invalid JSON: 'oops'"):
        Cluster(Host(f"ceph-{FSID}-mon-h1", answers("oops")), FSID).json(["status"])


@pytest.mark.parametrize("sentence", ["No services reported\n", "No daemons reported"])
def test_an_empty_list_of_the_orchestrator(sentence: str) -> None:
    assert Cluster(Host(f"ceph-{FSID}-mon-h1", answers(sentence)), FSID).json(["orch", "ls", "mds", "--export"]) == []


def test_another_program_of_the_image() -> None:
    host = Host(f"ceph-{FSID}-mon-h1", answers("[]"), {"answers": [{"code": 22, "output": "", "message": "no"}]})
    cluster = Cluster(host, FSID)
    assert cluster.tool(["radosgw-admin", "user", "list"]) == "[]"
    assert host.requests[0]["tool"] == ["radosgw-admin", "user", "list"]
    with pytest.raises(CephError, match="radosgw-admin user info: no"):
        cluster.tool(["radosgw-admin", "user", "info"])


# --- what runs inside the container ----------------------------------------------------------------------------------


DESCRIPTIONS: dict[str, Any] = {
    f"cmd-{words}": {"sig": words.split("-")}
    for words in ("status", "missing", "bad", "hang", "a", "b", "version", "refused", "mgr-stat", "orch-ls", "auth-get")
} | {
    "cmd-config-get": {"sig": ["config", "get", {"name": "who", "type": "CephString"}]},
    "cmd-config-set": {"sig": ["config", "set", {"name": "who", "type": "CephString"}]},
}
"""As the monitors list their commands: words, then what a command takes."""


class Library:
    """ceph_argparse, as far as it is used."""

    class ArgumentError(Exception):
        pass

    def __init__(self, *, manager: bool = True) -> None:
        self.sent: list[dict[str, Any]] = []
        self.validated_against: list[list[str]] = []
        self.described = 0
        self.manager = manager

    def find_cmd_target(self, arguments: list[str]) -> tuple[str, str]:
        return ("osd", "0") if arguments[0] == "tell" else ("mon", "")

    def parse_json_funcsigs(self, text: str, consumer: str) -> dict[str, Any]:
        return dict(json.loads(text))

    def validate_command(self, signatures: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
        self.validated_against.append(sorted(signatures))
        if arguments == ["bad"]:
            raise self.ArgumentError("bad is not good")
        manager = {"target": ("mon-mgr", "")} if arguments[0] == "orch" else {}
        return {} if arguments[-1] == "refused" else {"prefix": " ".join(arguments)} | manager

    def json_command(self, cluster: Any, **given: Any) -> tuple[int, bytes, str]:
        if given.get("prefix") == "get_command_descriptions":
            self.described += 1
            return 0, json.dumps(DESCRIPTIONS).encode(), ""
        self.sent.append(given)
        if given["argdict"]["prefix"] == "mgr stat":
            return 0, json.dumps({"available": self.manager}).encode(), ""
        if given["argdict"]["prefix"] == "hang":
            raise RuntimeError("timed out")
        return (-2, b"", "no such thing") if given["argdict"]["prefix"] == "missing" else (0, b"out", "")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["status"], (0, "out", "")),
        (["missing"], (errno.ENOENT, "", "no such thing")),
        (["unknown"], (errno.EINVAL, "", "no valid command: unknown")),
        (["refused"], (errno.EINVAL, "", "no valid command: refused")),
        (["bad"], (errno.EINVAL, "", "bad is not good")),
        (["hang"], (errno.ETIMEDOUT, "", "timed out")),
    ],
)
def test_one_command(args: list[str], expected: tuple[int, str, str]) -> None:
    answer = ceph_commands.CommandRunner(Library(), None).run({"args": args, "json": True})
    assert (answer["code"], answer["output"], answer["message"]) == expected


def test_commands_are_described_once_for_each_daemon_type() -> None:
    library = Library()
    runner = ceph_commands.CommandRunner(library, None)
    for args in (["a"], ["b"], ["tell", "osd.0", "version"]):
        runner.run({"args": args, "input": "x"})
    assert library.described == 2
    assert library.sent[-1] == {"target": ("osd", "0"), "argdict": {"prefix": "version"}, "inbuf": b"x"}


def test_a_command_is_validated_against_its_own_description() -> None:
    library = Library()
    ceph_commands.CommandRunner(library, None).run({"args": ["config", "get", "mon"]})
    assert library.validated_against == [["cmd-config-get"]]


@pytest.mark.parametrize(("manager", "wait", "code"), [(True, False, 0), (False, True, 0), (False, False, errno.ENXIO)])
def test_a_read_only_caller_does_not_wait_for_a_manager(manager: bool, wait: bool, code: int) -> None:
    library = Library(manager=manager)
    runner = ceph_commands.CommandRunner(library, None, manager_wait=wait)
    assert [runner.run({"args": args})["code"] for args in (["status"], ["orch", "ls"], ["orch", "ls"])] == [
        0,
        code,
        code,
    ]
    prefixes = [sent["argdict"]["prefix"] for sent in library.sent]
    assert prefixes.count("mgr stat") == (0 if wait else 1)
    assert ("orch ls" in prefixes) == (code == 0)


def test_namespaces_are_listed_over_the_same_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pools:
        def open_ioctx(self, pool: str) -> Any:
            if pool != "rbd":
                raise NoPool(errno.ENOENT)
            return contextlib.nullcontext(pool)

    class NoPool(Exception):
        def __init__(self, number: int) -> None:
            super().__init__("no such pool")
            self.errno = number

    rados = SimpleNamespace(Error=NoPool)
    rbd = SimpleNamespace(Error=OSError, RBD=lambda: SimpleNamespace(namespace_list=lambda pool: ["one", "two"]))
    monkeypatch.setattr(ceph_commands, "import_module", lambda name: {"rados": rados, "rbd": rbd}[name])
    runner = ceph_commands.CommandRunner(Library(), Pools())
    answer = runner.run({"args": ["rbd", "namespace", "ls", "rbd"]})
    assert json.loads(answer["output"]) == [{"name": "one"}, {"name": "two"}]
    assert runner.run({"args": ["rbd", "namespace", "ls", "gone"]})["code"] == errno.ENOENT


class Rados:
    """Test double of rados: rejects the given keyrings."""

    class Error(Exception):
        def __init__(self, number: int) -> None:
            super().__init__(f"[errno {number}] no")
            self.errno = number

    def __init__(self, **refused: int) -> None:
        self.refused = refused
        self.connected: list[tuple[str, str]] = []

    def Rados(self, name: str, conffile: str, conf: dict[str, str]) -> Any:
        outer, text = self, Path(conf["keyring"]).read_text()

        class Connection:
            def connect(self, timeout: int) -> None:
                outer.connected.append((name, text))
                if text in outer.refused:
                    raise outer.Error(outer.refused[text])

            def shutdown(self) -> None:
                pass

        return Connection()


@pytest.fixture
def monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ceph-h1").mkdir()
    (tmp_path / "ceph-h1/keyring").write_text("of-mon")
    monkeypatch.setattr(ceph_commands, "MON_KEYRINGS", tmp_path)


REQUEST = {"connect_seconds": 1, "seconds": 2}


@pytest.mark.usefixtures("monitor")
def test_the_keyring_of_the_host_is_used_first() -> None:
    rados = Rados()
    ceph_commands.connect_as_admin(rados, Library(), REQUEST | {"keyring": "of-host"})
    assert rados.connected == [("client.admin", "of-host")]


@pytest.mark.usefixtures("monitor")
def test_a_monitor_reads_the_admin_keyring_if_the_host_has_none_or_an_old_one() -> None:
    rados = Rados(old=errno.EACCES)
    for request in (REQUEST, REQUEST | {"keyring": "old"}):
        rados.connected.clear()
        ceph_commands.connect_as_admin(rados, Library(), request)
        assert rados.connected[-2:] == [("mon.", "of-mon"), ("client.admin", "out")]


@pytest.mark.usefixtures("monitor")
def test_without_quorum_no_other_keyring_is_tried() -> None:
    rados = Rados(old=errno.ETIMEDOUT)
    with pytest.raises(ceph_commands.Unreachable, match="errno 110"):
        ceph_commands.connect_as_admin(rados, Library(), REQUEST | {"keyring": "old"})
    assert rados.connected == [("client.admin", "old")]


def test_no_keyring_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceph_commands, "MON_KEYRINGS", tmp_path / "nothing")
    with pytest.raises(ceph_commands.Unreachable, match="neither the host nor the container"):
        ceph_commands.connect_as_admin(Rados(), Library(), REQUEST)
