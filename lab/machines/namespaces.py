"""Network namespaces and their links, routes and sysctls: a thin layer over `ip`.

Commands are plain text for `ip -batch`, so tests can check them without root.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab.machines.commands import CommandError, run

log = logging.getLogger(__name__)

FOLDER = Path("/run/netns")
_lock = threading.Lock()


def path(name: str) -> Path:
    return FOLDER / name


def existing() -> set[str]:
    """Names of the existing namespaces (without plain files that no namespace is mounted on)."""
    if not FOLDER.is_dir():
        return set()
    root = FOLDER.parent.stat().st_dev
    return {entry.name for entry in FOLDER.iterdir() if _device(entry) not in (root, None)}


def _device(entry: Path) -> int | None:
    """None when it was removed meanwhile, by another lab."""
    try:
        return entry.stat().st_dev
    except FileNotFoundError:
        return None


def ensure(name: str) -> bool:
    """Create the namespace unless it exists; True when it was created."""
    with _lock:
        if name in existing():
            return False
        path(name).unlink(missing_ok=True)
        run(["ip", "netns", "add", name])
        return True


def delete(name: str) -> None:
    """Remove the name; the namespace itself exists until its last process ends."""
    if not path(name).exists():
        return
    try:
        run(["ip", "netns", "delete", name])
    except CommandError:
        # The mount may be gone already, which leaves a plain file.
        path(name).unlink(missing_ok=True)


def adopt(name: str, pid: int) -> None:
    """Restore the name of a namespace that a process is in."""
    path(name).unlink(missing_ok=True)
    run(["ip", "netns", "attach", name, str(pid)])


def batch(name: str | None, lines: Iterable[str], family: str = "") -> None:
    """Run `ip` commands in the namespace (None: the machine's), up to the first that fails.

    `family` is `-6` where `ip` does not derive it from the address (`route flush`).
    """
    text = "\n".join(lines)
    if not text:
        return
    where = [*(["-n", name] if name else []), *([family] if family else [])]
    try:
        run(["ip", *where, "-batch", "-"], stdin=text + "\n")
    except CommandError as error:
        number = error.output.rpartition("Command failed -:")[2].strip()
        line = text.splitlines()[int(number) - 1] if number.isdecimal() else text.splitlines()[0]
        reason = error.output.strip().splitlines()[0] if error.output.strip() else "no output"
        raise CommandError(["ip", *where, *line.split()], reason, error.returncode) from error


def query(name: str | None, *arguments: str) -> list[dict[str, Any]]:
    """Output of an `ip -json` command."""
    where = ["-n", name] if name else []
    answer = run(["ip", *where, "-json", *arguments])
    found: list[dict[str, Any]] = json.loads(answer) if answer.strip() else []
    return found


def links(name: str | None) -> set[str]:
    return {link["ifname"] for link in query(name, "link", "show") if "ifname" in link}


def clear_link(namespace: str | None, link: str) -> None:
    """Delete a link (None: in the machine's namespace) if it exists.

    A namespace ends some time after its name is removed, and its ends of links with it: a link may disappear between
    the check and the command.
    """
    if link not in links(namespace):
        return
    try:
        batch(namespace, [f"link delete {link}"])
    except CommandError:
        if link in links(namespace):
            raise
        log.debug("link %s disappeared from %s by itself", link, namespace or "the machine")


def inside[T](name: str, action: Callable[[], T]) -> T:
    """Run `action` in the namespace and return its result.

    It runs in a new thread, which ends afterwards: a worker thread that could not leave the namespace would use the
    wrong network later.
    """

    def enter() -> T:
        descriptor = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.setns(descriptor, os.CLONE_NEWNET)
        finally:
            os.close(descriptor)
        return action()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"in-{name}") as pool:
        return pool.submit(enter).result()


def write_sysctls(name: str, values: dict[str, str]) -> None:
    """Set `net.*` values of a namespace; /proc/sys/net belongs to the namespace of the thread that opens it."""

    def write() -> None:
        for key, value in values.items():
            Path("/proc/sys", *key.split("/")).write_text(value)

    inside(name, write)
