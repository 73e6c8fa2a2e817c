"""Run commands of a Ceph cluster on one of its hosts, inside a container of one of its daemons."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils import ceph_commands
from ansible_collections.slipway.platform.plugins.module_utils.output import error_line

ETC = Path("/etc/ceph")
DATA = Path("/var/lib/ceph")
# Every daemon's container holds the client programs; a monitor's can also read every key.
KINDS = ("mon", "mgr", "crash", "osd", "mds", "rgw")


PERMANENT = (errno.EPERM, errno.EACCES)
"""Errors that do not pass by themselves. EINVAL and ENOENT do: without an active manager its commands are unknown."""


class CephError(Exception):
    """A command that Ceph rejected: its errno and its own message."""

    def __init__(self, code: int, message: str, command: list[str] | None = None) -> None:
        self.code, self.message, self.command = code, message, command or []
        self.permanent = code in PERMANENT
        name = errno.errorcode.get(code, str(code))
        super().__init__(f"{' '.join(self.command)}: {message} ({name})" if self.command else f"{message} ({name})")


class NotBootstrapped(CephError):
    """This host has no daemon of a cluster with this fsid, so no command can be run here."""


class NoQuorum(CephError):
    """No monitor answers: they have no quorum, or none of them is reachable."""


def containers_of(listing: str, fsid: str) -> dict[str, str]:
    """Daemon type → name of its running container, from the output of `podman ps`."""
    found: dict[str, str] = {}
    for name in sorted(listing.split()):
        parts = re.match(rf"ceph-{re.escape(fsid)}-([a-z]+)[.-]", name)
        if parts is not None:
            found.setdefault(parts.group(1), name)
    return found


class Cluster:
    """The cluster `fsid` as one of its hosts reaches it.

    `run_command` is AnsibleModule.run_command or its like: (arguments, data=…) → (code, output, errors).
    """

    def __init__(
        self,
        run_command: Callable[..., tuple[int, str, str]],
        fsid: str,
        *,
        timeout_seconds: int = 60,
        connect_seconds: int = 10,
        cephadm: str = "cephadm",
    ) -> None:
        self.fsid = fsid
        self._run_command = run_command
        self._seconds = timeout_seconds
        self._connect_seconds = connect_seconds
        self._cephadm = cephadm
        self._exec_prefix: list[str] | None = None
        self._prefetched: dict[tuple[str, ...], dict[str, Any]] = {}

    def prefetch(self, commands: list[list[str]], *, texts: Sequence[list[str]] = ()) -> None:
        """Run all in one process, `commands` as JSON, `texts` as text; `execute` then returns them from memory."""
        wanted = [(args, True) for args in commands] + [(args, False) for args in texts]
        request = {
            "commands": [{"args": args, "json": json_wanted} for args, json_wanted in wanted],
            "stop": False,
            "manager_wait": False,
        }
        for (args, json_wanted), answer in zip(wanted, self._send(request), strict=False):
            self._prefetched[*args, str(json_wanted)] = answer

    def run(self, args: list[str], input: str | None = None) -> str:
        """What `ceph <args>` prints; `input` is what -i would read."""
        return str(self.execute([args], inputs=[input] if input else None)[0]["output"])

    def json(self, args: list[str], input: str | None = None) -> Any:
        """The answer of `ceph <args> --format json`, parsed."""
        return self.parsed(args, self.execute([args], inputs=[input] if input else None, json_wanted=True)[0]["output"])

    def batch(self, commands: list[list[str]]) -> list[Any]:
        """The parsed output of several commands, run in one process; the first error is raised."""
        answers = self.execute(commands, json_wanted=True)
        return [self.parsed(args, answer["output"]) for args, answer in zip(commands, answers, strict=True)]

    def execute(
        self,
        commands: list[list[str]],
        *,
        inputs: list[str | None] | None = None,
        json_wanted: bool = False,
        strict: bool = True,
        manager_wait: bool = True,
    ) -> list[dict[str, Any]]:
        """Answers as {code, output, message}, one for each command; `strict` raises the first error instead.

        Commands of the managers wait for an active one, unless `manager_wait` is false: then they fail at once.
        """
        keys = [(*args, str(json_wanted)) for args in commands]
        if not inputs and all(key in self._prefetched for key in keys):
            return self._checked(commands, [self._prefetched[key] for key in keys], strict=strict)
        data = inputs or [None] * len(commands)
        request = {
            "commands": [
                {"args": args, "input": text, "json": json_wanted} for args, text in zip(commands, data, strict=True)
            ],
            "stop": strict,
            "manager_wait": manager_wait,
        }
        answers = self._send(request)
        if len(answers) < len(commands) and not strict:
            answers += [answers[-1]] * (len(commands) - len(answers))
        return self._checked(commands, answers, strict=strict)

    @staticmethod
    def _checked(commands: list[list[str]], answers: list[dict[str, Any]], *, strict: bool) -> list[dict[str, Any]]:
        for args, answer in zip(commands, answers, strict=False):  # after an error there are no more answers
            if strict and answer["code"]:
                raise CephError(answer["code"], answer["message"], ["ceph", *args])
        return answers

    @staticmethod
    def parsed(args: list[str], output: str) -> Any:
        """The JSON output of a command."""
        if args[:1] == ["orch"] and output.startswith("No "):
            return []  # the orchestrator prints a sentence for an empty list, even with --format json
        try:
            return json.loads(output)
        except ValueError as error:
            raise CephError(errno.EPROTO, f"invalid JSON: {output[:200]!r}", ["ceph", *args]) from error

    def tool(self, command: list[str], input: str | None = None) -> str:
        """Output of another program of the image, run as client.admin: ["radosgw-admin", "user", "list"]."""
        answer = self._send({"tool": command, "input": input})[0]
        if answer["code"]:
            raise CephError(answer["code"], answer["message"], command)
        return str(answer["output"])

    def _send(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        request |= {
            "keyring": self._keyring(),
            "mon_host": self._mon_host(),
            "connect_seconds": self._connect_seconds,
            "seconds": self._seconds,
        }
        prefix = self._exec_prefix = self._exec_prefix or self._find_exec_prefix(request["keyring"])
        limit = ["timeout", str(self._connect_seconds + self._seconds + 10)]
        loader = ceph_commands.__loader__
        source = loader.get_source(ceph_commands.__name__)  # type: ignore[union-attr]
        code, output, errors = self._run_command([*limit, *prefix, "python3", "-c", source], data=json.dumps(request))
        if code != 0:
            self._exec_prefix = None  # the container may have been replaced
            reason = f"{' '.join(prefix[:4])} failed: {error_line(errors)}"
            raise CephError(errno.ETIMEDOUT if code == 124 else errno.EIO, reason)
        result = json.loads(output)
        if "unreachable" in result:
            raise NoQuorum(errno.ETIMEDOUT, f"the monitors of {self.fsid} do not answer: {result['unreachable']}")
        return list(result["answers"])

    def _find_exec_prefix(self, keyring: str) -> list[str]:
        code, output, _ = self._run_command(["podman", "ps", "--format", "{{.Names}}"])
        if code == 0:
            containers = containers_of(output, self.fsid)
            for kind in KINDS if keyring else KINDS[:1]:
                if kind in containers:
                    return ["podman", "exec", "--interactive", containers[kind]]
        if keyring and self._configured():
            return [self._cephadm, "shell", "--fsid", self.fsid, "--"]
        raise NotBootstrapped(errno.ENOENT, f"no daemon of the cluster {self.fsid} runs on this host")

    def _keyring(self) -> str:
        for path in (ETC / "ceph.client.admin.keyring", DATA / self.fsid / "config/ceph.client.admin.keyring"):
            if path.is_file() and (path.parent != ETC or self._configured()):
                return path.read_text()
        return ""

    def _configured(self) -> bool:
        """Whether the configuration on this host is that of our cluster."""
        return bool(self._configuration())

    def _configuration(self) -> str:
        for path in (ETC / "ceph.conf", DATA / self.fsid / "config/ceph.conf"):
            if path.is_file() and self.fsid in (text := path.read_text()):
                return text
        return ""

    def _mon_host(self) -> str:
        """mon_host of this host's ceph.conf: a container's copy is from its start and may lack newer monitors."""
        line = re.search(r"^\s*mon_host\s*=\s*(.+?)\s*$", self._configuration(), re.M)
        return line[1] if line else ""


def orchestrator_log(cluster: Cluster) -> str:
    """The newest lines of the orchestrator's log, for a message; the error if it cannot be read."""
    try:
        return cluster.run(["log", "last", "15", "info", "cephadm"]).strip()
    except CephError as error:
        return str(error)
