"""Detects hosts that stop by themselves: one thread waits on the process file descriptors of all inits."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Init:
    """The first process of a running host; its descriptor stays valid when the kernel reuses the process id."""

    server_id: int
    pid: int
    descriptor: int

    @classmethod
    def of(cls, server_id: int, pid: int) -> Init | None:
        """None when the process has ended."""
        try:
            return cls(server_id, pid, os.pidfd_open(pid))
        except ProcessLookupError:
            return None

    def send(self, number: int) -> None:
        """Send a signal; a process that has ended is not an error."""
        try:
            signal.pidfd_send_signal(self.descriptor, number)
        except ProcessLookupError:
            log.debug("server %s has ended already", self.server_id)

    def alive(self) -> bool:
        return not self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Whether the process ended within this time."""
        with selectors.PollSelector() as selector:
            selector.register(self.descriptor, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def close(self) -> None:
        os.close(self.descriptor)


class Watcher:
    """Calls `ended`, in a new thread, once for each watched init that ends."""

    def __init__(self, ended: Callable[[Init], None]) -> None:
        self._ended = ended
        self._selector = selectors.EpollSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="watch-hosts", daemon=True)
        self._thread.start()

    def watch(self, init: Init) -> None:
        self._selector.register(init.descriptor, selectors.EVENT_READ, init)

    def unwatch(self, init: Init) -> bool:
        """Stop watching; False when its end was detected before."""
        try:
            self._selector.unregister(init.descriptor)
        except (KeyError, ValueError):
            return False
        return True

    def close(self) -> None:
        self._closing = True
        os.write(self._wake_write, b"x")
        self._thread.join()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _loop(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select():
                init = key.data
                if isinstance(init, Init) and self.unwatch(init):
                    threading.Thread(
                        target=self._ended, args=(init,), name=f"ended-{init.server_id}", daemon=True
                    ).start()
