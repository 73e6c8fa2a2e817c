"""Log lines in RKE2's format (logrus text), to standard error."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


class Fatal(Exception):
    """Ends the command with one message and exit code 1, as `logrus.Fatalf` does."""


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _write(level: str, message: str) -> None:
    text = json.dumps(message, ensure_ascii=False)
    print(f'time="{timestamp()}" level={level} msg={text}', file=sys.stderr, flush=True)


def info(message: str) -> None:
    _write("info", message)


def warning(message: str) -> None:
    _write("warning", message)


def error(message: str) -> None:
    _write("error", message)


def fatal(message: str) -> None:
    _write("fatal", message)
