"""Run a list of `ceph` commands over one connection to the cluster, in one process.

`Cluster` sends this file into a container of the Ceph image and reads its output. It therefore runs on that image's
Python (3.9 or newer), takes its request from stdin so that no secret is in argv, and imports nothing of the platform.
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
    """No connection to a monitor; the text gives the reason."""


class Denied(Unreachable):
    """The monitors answer and reject the key."""


class Rejected(Exception):
    """A command that cannot be sent: an errno and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def memory_file(text: str) -> int:
    """Descriptor of an in-memory file that holds the text: Ceph reads keys from files only."""
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


class CommandRunner:
    """Commands as `ceph` sends them, over one connection. Command descriptions are read once for each daemon type."""

    def __init__(self, library: Any, cluster: Any, *, manager_wait: bool = True) -> None:
        self._library, self._cluster, self._manager_wait = library, cluster, manager_wait
        self._descriptions: dict[Any, dict[str, Any]] = {}
        self._manager_active: bool | None = None

    def run(self, command: dict[str, Any]) -> dict[str, Any]:
        """Code (an errno, 0 is success), output and Ceph's own message."""
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
        except Rejected as error:
            return {"code": error.code, "output": "", "message": str(error)}
        except self._library.ArgumentError as error:
            return {"code": errno.EINVAL, "output": "", "message": str(error)}
        except RuntimeError as error:
            return {"code": errno.ETIMEDOUT, "output": "", "message": str(error)}
        return {"code": abs(code), "output": output.decode(errors="replace"), "message": message}

    def _validated(self, target: Any, arguments: list[str]) -> dict[str, Any]:
        """The command as fields, validated against its own description only: against all 500 it takes 70 ms."""
        if target not in self._descriptions:
            code, output, message = self._library.json_command(
                self._cluster, target=target, prefix="get_command_descriptions"
            )
            if code:
                raise Rejected(abs(code), message or f"{target[0]} lists no commands")
            self._descriptions[target] = json.loads(output.decode())
        own = {
            name: entry
            for name, entry in self._descriptions[target].items()
            if signature_matches(entry["sig"], arguments)
        }
        signatures = self._library.parse_json_funcsigs(json.dumps(own), "cli")
        valid = self._library.validate_command(signatures, arguments) if own else {}
        if not valid:
            raise Rejected(errno.EINVAL, f"no valid command: {' '.join(arguments)}")
        return dict(valid)

    def _namespaces(self, pool: str) -> dict[str, Any]:
        """As `rbd namespace ls --format json`, without one more process for each pool."""
        rados, rbd = import_module("rados"), import_module("rbd")
        try:
            with self._cluster.open_ioctx(pool) as images:
                names = rbd.RBD().namespace_list(images)
        except (rados.Error, rbd.Error) as error:
            return {"code": abs(getattr(error, "errno", None) or errno.EIO), "output": "", "message": str(error)}
        return {"code": 0, "output": json.dumps([{"name": name} for name in names]), "message": ""}

    def _without_manager(self, valid: dict[str, Any]) -> bool:
        """Whether the command needs a manager while none is active; a read-only caller does not wait for one."""
        if self._manager_wait or tuple(valid.get("target", ()))[:1] != ("mon-mgr",):
            return False
        if self._manager_active is None:
            answer = self.run({"args": ["mgr", "stat"], "json": True})
            self._manager_active = not answer["code"] and bool(json.loads(answer["output"]).get("available"))
        return not self._manager_active


def signature_matches(signature: list[Any], arguments: list[str]) -> bool:
    """Whether the leading words of a command's description are those of `arguments`."""
    words = list(takewhile(lambda part: isinstance(part, str), signature))
    return arguments[: len(words)] == words


def read_admin_keyring(rados: Any, library: Any, request: dict[str, Any]) -> str:
    """The keyring of client.admin, read with the key of the monitor in this container."""
    own = sorted(MON_KEYRINGS.glob("*/keyring"))
    if not own:
        raise Unreachable("neither the host nor the container holds a valid keyring")
    cluster = connect(rados, "mon.", str(own[0]), request)
    try:
        answer = CommandRunner(library, cluster).run({"args": ["auth", "get", "client.admin"]})
    finally:
        cluster.shutdown()
    if answer["code"]:
        raise Unreachable(answer["message"])
    return str(answer["output"])


def connect_as_admin(rados: Any, library: Any, request: dict[str, Any]) -> tuple[Any, int]:
    """A connection as client.admin, and its keyring. The host's copy may be older than the last rotation."""
    if request.get("keyring"):
        keyring = memory_file(request["keyring"])
        try:
            return connect(rados, "client.admin", f"/proc/self/fd/{keyring}", request), keyring
        except Denied:
            os.close(keyring)
    keyring = memory_file(read_admin_keyring(rados, library, request))
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


def execute(request: dict[str, Any], answers: list[dict[str, Any]]) -> None:
    """Append one answer for each command; after a timeout the answers so far remain."""
    # Both modules exist in the container only.
    ceph_argparse, rados = import_module("ceph_argparse"), import_module("rados")
    cluster, keyring = connect_as_admin(rados, ceph_argparse, request)
    if request.get("tool"):
        answers.append(run_tool(keyring, request))
        return
    runner = CommandRunner(ceph_argparse, cluster, manager_wait=request.get("manager_wait", True))
    for command in request["commands"]:
        answers.append(runner.run(command))
        if answers[-1]["code"] and request.get("stop", True):
            break
    cluster.shutdown()


def raise_timeout(number: int, frame: Any) -> None:
    raise TimeoutError("timed out")


def main() -> None:
    request = json.loads(sys.stdin.read())
    # A timeout outside of the container does not stop a process in it, so the process has its own.
    signal.signal(signal.SIGALRM, raise_timeout)
    signal.alarm(request["connect_seconds"] + request["seconds"])
    # ceph_argparse prints its help to stdout for an invalid command; only the answer belongs there.
    output, sys.stdout = sys.stdout, sys.stderr
    answers: list[dict[str, Any]] = []
    result: dict[str, Any] = {"answers": answers}
    try:
        execute(request, answers)
    except Unreachable as error:
        result = {"unreachable": str(error)}
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        answers.append({"code": errno.ETIMEDOUT, "output": "", "message": str(error)})
    output.write(json.dumps(result))
    output.flush()
    os._exit(0)  # a command that hangs holds a thread that would keep this process alive


if __name__ == "__main__":
    main()
