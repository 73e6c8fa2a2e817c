"""The log of a job: masked, sent in parts, sent again from where the server lost it."""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable

from .client import Client

MASK = b"[MASKED]"
SHORTEST_SECRET = 8
"""GitLab masks no shorter values."""
KEEP_ALIVE_SECONDS = 30.0


class Masker:
    """Replaces secrets in a stream; holds back what may be the beginning of one."""

    def __init__(self, values: Iterable[str], prefixes: Iterable[str] = ()) -> None:
        secrets = {value.encode() for value in values if value}
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._prefixes = [prefix.encode() for prefix in prefixes]
        self._tokens = [re.compile(re.escape(prefix) + rb"[\w.=-]*") for prefix in self._prefixes]
        self._held = b""

    def feed(self, content: bytes, *, final: bool = False) -> bytes:
        buffer = self._held + content
        for secret in self._secrets:
            buffer = buffer.replace(secret, MASK)
        cut = len(buffer) if final else self._open_end(buffer)
        done, self._held = buffer[:cut], buffer[cut:]
        for token in self._tokens:
            done = token.sub(MASK, done)
        return done

    def _open_end(self, buffer: bytes) -> int:
        """Where that begins at the end of the buffer which may be continued to a secret."""
        start = len(buffer)
        for text in (*self._secrets, *self._prefixes):
            sizes = range(min(len(text) - 1, len(buffer)), 0, -1)
            start = min(start, next((len(buffer) - size for size in sizes if buffer.endswith(text[:size])), start))
        for token in self._tokens:
            start = min([start, *(found.start() for found in token.finditer(buffer) if found.end() == len(buffer))])
        return start


class Trace:
    """`status` becomes the server's word to end the job: canceled, canceling, failed or gone."""

    def __init__(self, client: Client, job_id: int, token: str, masker: Masker, limit_kb: int = 4096) -> None:
        self._client, self._path, self._token = client, f"jobs/{job_id}", token
        self._masker, self._limit = masker, limit_kb * 1024
        self._lock = threading.Lock()
        self._content = bytearray()
        self._truncated = False
        self._sent = 0
        self._interval = 3.0
        self._last_contact = time.monotonic()
        self._wake = threading.Event()
        self._ended = False
        self.on_status: Callable[[str], None] = lambda status: None
        self._thread = threading.Thread(target=self._send_regularly, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def write(self, content: bytes | str, *, final: bool = False) -> None:
        with self._lock:
            self._append(self._masker.feed(content.encode() if isinstance(content, str) else content, final=final))

    def _append(self, content: bytes) -> None:
        if self._truncated:
            return
        room = self._limit - len(self._content)
        self._content += content[:room]
        if len(content) > room:
            self._truncated = True
            self._content += f"\nJob's log exceeded limit of {self._limit} bytes.\n".encode()

    def line(self, text: str) -> None:
        self.write(text + "\n")

    def _send_regularly(self) -> None:
        while not self._ended:
            self._wake.wait(self._interval)
            if not self._ended:
                self._send()

    def _send(self) -> bool:
        """Send what is new; True when the server has the whole trace."""
        with self._lock:
            start, part = self._sent, bytes(self._content[self._sent :])
        if not part:
            if time.monotonic() - self._last_contact > KEEP_ALIVE_SECONDS:
                self._keep_alive()
            return True
        answer = self._client.call(
            "PATCH",
            f"{self._path}/trace?debug_trace=false",
            part,
            {
                "Content-Type": "text/plain",
                "Content-Range": f"{start}-{start + len(part) - 1}",
                "JOB-TOKEN": self._token,
            },
        )
        if answer.status == 202:
            self._sent = start + len(part)
        elif answer.status == 416:
            self._sent = int(answer.header("Range").partition("-")[2] or 0)
        self._observe(answer.status, answer.header("Job-Status"), answer.header("X-GitLab-Trace-Update-Interval"))
        return answer.status == 202

    def _keep_alive(self) -> None:
        answer = self._client.call("PUT", self._path, {"token": self._token, "state": "running"})
        self._observe(answer.status, answer.header("Job-Status"), answer.header("X-GitLab-Trace-Update-Interval"))

    def _observe(self, status: int, job_status: str, interval: str) -> None:
        if status:
            self._last_contact = time.monotonic()
        if interval.isdecimal():
            self._interval = float(interval)
        if job_status in ("canceled", "canceling", "failed"):
            self.on_status(job_status)
        elif status in (403, 404):
            self.on_status("gone")

    def finish(self, state: str, reason: str, exit_code: int | None) -> None:
        """Report the end until the server has it, with the whole trace. Returns early when it no longer wants it."""
        self.write(b"", final=True)
        self._ended = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        gone = threading.Event()
        self.on_status = lambda status: gone.set() if status in ("gone", "canceled", "failed") else None
        pause = 1.0
        while not gone.is_set():
            complete = self._send()
            if complete and self._report(state, reason, exit_code):
                return
            time.sleep(pause)
            pause = min(self._interval, pause * 2)

    def _report(self, state: str, reason: str, exit_code: int | None) -> bool:
        content = bytes(self._content)
        answer = self._client.call(
            "PUT",
            self._path,
            {
                "token": self._token,
                "state": state,
                "failure_reason": reason,
                "exit_code": exit_code,
                "output": {"checksum": f"crc32:{zlib.crc32(content):08x}", "bytesize": len(content)},
            },
        )
        if answer.status == 412:
            self._sent = 0
        if answer.status in (403, 404):
            self._observe(answer.status, "", "")
        return answer.status == 200
