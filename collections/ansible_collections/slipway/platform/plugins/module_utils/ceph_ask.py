"""Answer a list of questions over one connection to the cluster: what `ceph` does, several times for one start.

`Cluster` sends this file into a container of the Ceph image and reads its answer. So it runs on that image's Python
(3.9 or newer), takes its request from stdin, where secrets are seen by nobody, and imports nothing of the platform.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

CONFIG = "/etc/ceph/ceph.conf"
MON_KEYRINGS = Path("/var/lib/ceph/mon")


class Unreachable(Exception):
    """No monitor let us in; the text says why."""


class Denied(Unreachable):
    """The monitors answer, and the key is no longer good."""


class Refused(Exception):
    """A command that cannot be sent: an errno and a sentence."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def in_memory(text: str) -> int:
    """A descriptor of a file that holds text and never touches a disk: Ceph takes keys from files only."""
    descriptor = os.memfd_create("keyring")
    os.write(descriptor, text.encode())
    return descriptor


def connect(rados: Any, name: str, keyring: str, request: dict[str, Any]) -> Any:
    seconds = request["connect_seconds"]
    settings = {
        "keyring": keyring,
        "client_mount_timeout": str(seconds),
        "rados_mon_op_timeout": str(request["seconds"]),
        "log_to_stderr": "false",
    }
    if request.get("mon_host"):
        settings["mon_host"] = request["mon_host"]
    cluster = rados.Rados(name=name, conffile=CONFIG, conf=settings)
    try:
        cluster.connect(timeout=seconds)
    except rados.Error as error:
        denied = getattr(error, "errno", None) == errno.EACCES
        raise (Denied if denied else Unreachable)(str(error)) from error
    return cluster


class Questions:
    """Commands as `ceph` would send them, over one connection. What may be sent is read once a kind of daemon."""

    def __init__(self, library: Any, cluster: Any, *, manager_wait: bool = True) -> None:
        self._library, self._cluster, self._manager_wait = library, cluster, manager_wait
        self._descriptions: dict[Any, dict[str, Any]] = {}
        self._manager_active: bool | None = None

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Code (an errno, 0 is good), output and Ceph's own sentence."""
        arguments = list(command["args"])
        if arguments[:3] == ["rbd", "namespace", "ls"]:
            return self._namespaces(arguments[3])
        try:
            target = self._library.find_cmd_target(arguments)
            if arguments[0] == "tell":
                arguments = arguments[2:]
            valid = self._validated(target, arguments)
            if self._without_manager(valid):
                return {"code": errno.ENXIO, "output": "", "message": "no manager is active"}
            if command.get("json"):
                valid["format"] = "json"
            data = (command.get("input") or "").encode()
            code, output, message = self._library.json_command(self._cluster, target=target, argdict=valid, inbuf=data)
        except Refused as error:
            return {"code": error.code, "output": "", "message": str(error)}
        except self._library.ArgumentError as error:
            return {"code": errno.EINVAL, "output": "", "message": str(error)}
        except RuntimeError as error:
            return {"code": errno.ETIMEDOUT, "output": "", "message": str(error)}
        return {"code": abs(code), "output": output.decode(errors="replace"), "message": message}

    def _validated(self, target: Any, arguments: list[str]) -> dict[str, Any]:
        """The command as fields. Held against its own description alone: against all 500 it takes 70 ms."""
        if target not in self._descriptions:
            code, output, message = self._library.json_command(
                self._cluster, target=target, prefix="get_command_descriptions"
            )
            if code:
                raise Refused(abs(code), message or f"{target[0]} lists no commands")
            self._descriptions[target] = json.loads(output.decode())
        own = {name: entry for name, entry in self._descriptions[target].items() if begins(entry["sig"], arguments)}
        signatures = self._library.parse_json_funcsigs(json.dumps(own), "cli")
        valid = self._library.validate_command(signatures, arguments) if own else {}
        if not valid:
            raise Refused(errno.EINVAL, f"no valid command: {' '.join(arguments)}")
        return dict(valid)

    def _namespaces(self, pool: str) -> dict[str, Any]:
        """As `rbd namespace ls --format json`, for which a program would have to be started for each pool."""
        rados, rbd = import_module("rados"), import_module("rbd")
        try:
            with self._cluster.open_ioctx(pool) as images:
                names = rbd.RBD().namespace_list(images)
        except (rados.Error, rbd.Error) as error:
            return {"code": abs(getattr(error, "errno", None) or errno.EIO), "output": "", "message": str(error)}
        return {"code": 0, "output": json.dumps([{"name": name} for name in names]), "message": ""}

    def _without_manager(self, valid: dict[str, Any]) -> bool:
        """Whether this would wait for a manager that is not there, which nobody wants who only looks."""
        if self._manager_wait or tuple(valid.get("target", ()))[:1] != ("mon-mgr",):
            return False
        if self._manager_active is None:
            answer = self.ask({"args": ["mgr", "stat"], "json": True})
            self._manager_active = not answer["code"] and bool(json.loads(answer["output"]).get("available"))
        return not self._manager_active


def begins(signature: list[Any], arguments: list[str]) -> bool:
    """Whether the words that a command's description begins with are those of `arguments`."""
    words = list(takewhile(lambda part: isinstance(part, str), signature))
    return arguments[: len(words)] == words


def keyring_of_monitor(rados: Any, library: Any, request: dict[str, Any]) -> str:
    """The administrator's keyring as a monitor of this container may read it."""
    own = sorted(MON_KEYRINGS.glob("*/keyring"))
    if not own:
        raise Unreachable("neither the host nor the container holds a keyring that is good")
    cluster = connect(rados, "mon.", str(own[0]), request)
    try:
        answer = Questions(library, cluster).ask({"args": ["auth", "get", "client.admin"]})
    finally:
        cluster.shutdown()
    if answer["code"]:
        raise Unreachable(answer["message"])
    return str(answer["output"])


def sign_in(rados: Any, library: Any, request: dict[str, Any]) -> tuple[Any, int]:
    """A connection as the administrator, and his keyring. The host's copy may be older than the last rotation."""
    if request.get("keyring"):
        keyring = in_memory(request["keyring"])
        try:
            return connect(rados, "client.admin", f"/proc/self/fd/{keyring}", request), keyring
        except Denied:
            os.close(keyring)
    keyring = in_memory(keyring_of_monitor(rados, library, request))
    return connect(rados, "client.admin", f"/proc/self/fd/{keyring}", request), keyring


def run_tool(keyring: int, request: dict[str, Any]) -> dict[str, Any]:
    monitors = [f"--mon-host={request['mon_host']}"] if request.get("mon_host") else []
    done = subprocess.run(
        [*request["tool"], "--name=client.admin", f"--keyring=/proc/self/fd/{keyring}", *monitors],
        input=request.get("input") or "",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=request["seconds"],
        pass_fds=[keyring],
        check=False,
    )
    return {"code": done.returncode, "output": done.stdout, "message": done.stderr.strip()}


def answer(request: dict[str, Any], answers: list[dict[str, Any]]) -> None:
    """Fill in one answer after the other; what is there when time runs out stays."""
    # Both exist in the container only.
    ceph_argparse, rados = import_module("ceph_argparse"), import_module("rados")
    cluster, keyring = sign_in(rados, ceph_argparse, request)
    if request.get("tool"):
        answers.append(run_tool(keyring, request))
        return
    questions = Questions(ceph_argparse, cluster, manager_wait=request.get("manager_wait", True))
    for command in request["commands"]:
        answers.append(questions.ask(command))
        if answers[-1]["code"] and request.get("stop", True):
            break
    cluster.shutdown()


def expire(number: int, frame: Any) -> None:
    raise TimeoutError("no answer in time")


def main() -> None:
    request = json.loads(sys.stdin.read())
    # Nobody outside can end what runs in a container, so it ends itself.
    signal.signal(signal.SIGALRM, expire)
    signal.alarm(request["connect_seconds"] + request["seconds"])
    # ceph_argparse prints its help for a wrong command; only the answer may stand on stdout.
    output, sys.stdout = sys.stdout, sys.stderr
    answers: list[dict[str, Any]] = []
    result: dict[str, Any] = {"answers": answers}
    try:
        answer(request, answers)
    except Unreachable as error:
        result = {"unreachable": str(error)}
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        answers.append({"code": errno.ETIMEDOUT, "output": "", "message": str(error)})
    output.write(json.dumps(result))
    output.flush()
    os._exit(0)  # a command that never came back holds a thread that would keep this process


if __name__ == "__main__":
    main()
