"""Output of programs as a stream of blocks: compressed by zstd, encrypted by age, hashed on the way."""

from __future__ import annotations

import hashlib
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from io import BufferedReader
from types import TracebackType
from typing import IO, cast

from ansible_collections.slipway.platform.plugins.module_utils.output import error_line
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import SnapshotError

BLOCK_BYTES = 1 << 20
COMMAND_SECONDS = 600
STALL_SECONDS = 900
"""A stream without input and output for so long has stopped: rbd waits for ever for a cluster without a quorum."""
POLL_SECONDS = 10


class ProgramError(SnapshotError):
    """A program of a stream failed."""

    def __init__(self, program: str, exit_code: int, line: str) -> None:
        super().__init__(f"{program} failed ({exit_code}): {line}")
        self.permanent = (program, exit_code) != ("tar", 1)
        """tar exits with 1 if a file changed or was removed while it was read, which a repetition cures."""


def run_command(arguments: Sequence[str], data: str | None = None) -> tuple[int, str, str]:
    """Exit code, output and messages of a program, which gets `data`. Raises SnapshotError if it does not end."""
    try:
        done = subprocess.run(
            arguments,
            input=data,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise SnapshotError(f"{' '.join(arguments)} did not end within {COMMAND_SECONDS} s") from error
    return done.returncode, done.stdout, done.stderr


def encryption(recipient: str) -> list[list[str]]:
    """The programs that compress and encrypt for the recipient, who alone can decrypt."""
    return [["zstd", "--quiet", "--stdout", "-3"], ["age", "--encrypt", "--recipient", recipient]]


def decryption(identity_path: str) -> list[list[str]]:
    """The programs that undo `encryption`, with the private key in a file."""
    return [["age", "--decrypt", "--identity", identity_path], ["zstd", "--quiet", "--decompress", "--stdout"]]


def stream(commands: Sequence[Sequence[str]], source: Iterable[bytes] | None = None) -> Iterator[bytes]:
    """The output of the last command, each fed by the one before, the first by `source`.

    Raises SnapshotError after the last block if a program failed, so that the blocks are not taken for complete, and
    after STALL_SECONDS in which nothing moved.
    """
    with ExitStack() as files:
        # Files, since a pipe that nothing reads would stop a program with many messages.
        errors = [files.enter_context(tempfile.TemporaryFile()) for _ in commands]
        programs: list[subprocess.Popen[bytes]] = []
        given: int | IO[bytes] | None = subprocess.DEVNULL if source is None else subprocess.PIPE
        for command, file in zip(commands, errors, strict=True):
            programs.append(subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=file))
            if len(programs) > 1:
                cast(IO[bytes], given).close()  # so that the program before ends when this one does
            given = programs[-1].stdout
        feed = _Feed(programs[0], source if source is not None else ())
        feeder = threading.Thread(target=feed.run, daemon=True)
        if source is not None:
            feeder.start()
        output, complete = cast(BufferedReader, given), False
        try:
            while block := _next_block(output, feed, commands):
                yield block
            complete = True
        finally:
            output.close()
            for program in programs:
                if not complete:
                    program.kill()
                program.wait(COMMAND_SECONDS)
            if source is not None:
                feeder.join()
        if feed.failure is not None:
            raise feed.failure
        failed = [
            ProgramError(command[0], program.returncode, _error_line(file))
            for command, program, file in zip(commands, programs, errors, strict=True)
            if program.returncode != 0
        ]
        if failed:
            raise failed[-1]  # the programs before it failed because their reader ended


def _next_block(output: BufferedReader, feed: _Feed, commands: Sequence[Sequence[str]]) -> bytes:
    waited_since = time.monotonic()
    while not select.select([output], [], [], POLL_SECONDS)[0]:
        # A program without output, such as rbd import, still takes what it is fed.
        if time.monotonic() - max(waited_since, feed.wrote_at) > STALL_SECONDS:
            programs = ", ".join(command[0] for command in commands)
            raise SnapshotError(f"{programs}: neither read nor wrote anything for {STALL_SECONDS} s")
    return output.read1(BLOCK_BYTES)


def _error_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    return error_line(errors.read().decode(errors="replace"))


class _Feed:
    """Writes the source to a program; its error is raised again by the reader of the stream."""

    def __init__(self, program: subprocess.Popen[bytes], source: Iterable[bytes]) -> None:
        self._program, self._source = program, source
        self.failure: BaseException | None = None
        self.wrote_at = 0.0

    def __enter__(self) -> _Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        # A program that ended early is reported by its own exit status.
        self.failure = None if isinstance(error, BrokenPipeError) else error
        return True

    def run(self) -> None:
        assert self._program.stdin is not None
        with self, closing(self._program.stdin) as pipe:
            for block in self._source:
                pipe.write(block)
                self.wrote_at = time.monotonic()


class Counted:
    """Blocks that pass unchanged, with their size and digest."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = blocks
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self._digest.update(block)
            self.size_bytes += len(block)
            yield block

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()
