"""Shorten the output of a program without losing its first error."""

from __future__ import annotations

import re

ERROR = re.compile(
    r"^E:|error\b|\b(?:fatal|panic|failed|failures?|cannot|can't|could not|unable to|denied|refused|rejected|invalid)\b"
    r"|\bno such\b",
    re.IGNORECASE,
)
NO_OUTPUT = "no output"


def error_line(output: str) -> str:
    """The first line that names an error, else the last one. Indented lines are context: of a traceback, of a log."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    if not lines:
        return NO_OUTPUT
    return next((line for line in lines if not line[0].isspace() and ERROR.search(line)), lines[-1]).strip()


def shortened(output: str, limit: int = 1000) -> str:
    """The output, or its first error and as many of its last lines as the limit has characters for."""
    text = output.strip()
    if not text:
        return NO_OUTPUT
    if len(text) <= limit:
        return text
    first = error_line(text)[:limit]
    end = text[len(text) - max(limit - len(first), 0) :]
    end = end.partition("\n")[2].strip("\n") if "\n" in end else end
    return first if not end or end.startswith(first) else f"{first}\n…\n{end}"
