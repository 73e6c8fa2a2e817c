"""Objects that this tool makes itself, as series `<prefix><name>-<time><suffix>`; the newest are retained."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

STAMP = "%Y%m%dT%H%M%SZ"


def key_of(prefix: str, name: str, suffix: str, now: float) -> str:
    return f"{prefix}{name}-{datetime.fromtimestamp(now, UTC).strftime(STAMP)}{suffix}"


def expired(keys: Iterable[str], prefix: str, name: str, keep: int) -> list[str]:
    """The objects of a series beyond the newest `keep`, whose names sort by time."""
    pattern = re.compile(rf"{re.escape(prefix)}{re.escape(name)}-\d{{8}}T\d{{6}}Z\.")
    own = sorted((key for key in keys if pattern.match(key)), reverse=True)
    return own[keep:]
