"""Network namespaces, and what lies in them: thin words over `ip`.

Everything is plain text for `ip -batch`, so the plumbing of a host can be read and tested without a machine.
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
_making = threading.Lock()


def path(name: str) -> Path:
    return FOLDER / name


def existing() -> set[str]:
    """Names of the namespaces that are really there (a plain file without a namespace on it does not count)."""
    if not FOLDER.is_dir():
        return set()
    root = FOLDER.parent.stat().st_dev
    return {entry.name for entry in FOLDER.iterdir() if _device(entry) not in (root, None)}


def _device(entry: Path) -> int | None:
    """None when it vanished meanwhile: other labs come and go."""
    try:
        return entry.stat().st_dev
    except FileNotFoundError:
        return None


def ensure(name: str) -> bool:
    """Make the namespace unless it is there; True when it was made."""
    with _making:
        if name in existing():
            return False
        path(name).unlink(missing_ok=True)
        run(["ip", "netns", "add", name])
        return True


def delete(name: str) -> None:
    """Take the name away; the namespace itself ends with the last process in it."""
    if not path(name).exists():
        return
    try:
        run(["ip", "netns", "delete", name])
    except CommandError:
        # A name that is a plain file (its mount was taken by force) cannot be unmounted.
        path(name).unlink(missing_ok=True)


def adopt(name: str, pid: int) -> None:
    """Give a namespace that a process still holds its name back."""
    path(name).unlink(missing_ok=True)
    run(["ip", "netns", "attach", name, str(pid)])


def batch(name: str | None, lines: Iterable[str], family: str = "") -> None:
    """Run `ip` commands in the namespace (None: the machine's own), stopping at the first that fails.

    `family` is `-6` where `ip` would not guess it from the address (`route flush` does not).
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
    """Ask `ip -json` something."""
    where = ["-n", name] if name else []
    answer = run(["ip", *where, "-json", *arguments])
    found: list[dict[str, Any]] = json.loads(answer) if answer.strip() else []
    return found


def links(name: str | None) -> set[str]:
    return {link["ifname"] for link in query(name, "link", "show") if "ifname" in link}


def clear_link(namespace: str | None, link: str) -> None:
    """Take a link away (None: from the machine's own namespace) unless it is gone.

    A namespace ends some time after its last name, and takes its ends of links with it: between a look and a command
    a link may leave by itself.
    """
    if link not in links(namespace):
        return
    try:
        batch(namespace, [f"link delete {link}"])
    except CommandError:
        if link in links(namespace):
            raise
        log.debug("%s left %s by itself", link, namespace or "the machine")


def inside[T](name: str, action: Callable[[], T]) -> T:
    """Run `action` in the namespace and return its result.

    In a thread of its own that ends afterwards: a worker thread that failed to come back would send its later work
    into the wrong network.
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
    """Set `net.*` values of a namespace; /proc/sys/net shows the namespace of the thread that opens it."""

    def write() -> None:
        for key, value in values.items():
            Path("/proc/sys", *key.split("/")).write_text(value)

    inside(name, write)
