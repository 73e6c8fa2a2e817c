"""Compare versions of Debian packages as dpkg does."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

from ansible.errors import AnsibleFilterError

VERSION = re.compile(r"^(?:(?P<epoch>\d+):)?(?P<upstream>[0-9A-Za-z.+~:-]+?)(?:-(?P<revision>[0-9A-Za-z.+~]+))?$")


def _weight(character: str) -> int:
    """Tilde before the end of the part, the end before letters, letters before the rest."""
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def _key(part: str) -> list[tuple[list[int], int]]:
    """Split into pairs of non-digits (closed by the weight of the end) and a number."""
    pairs = re.findall(r"(\D*)(\d*)", part)
    return [([*map(_weight, text), 0], int(number or 0)) for text, number in pairs if text or number]


def _compare(left: str, right: str) -> int:
    for a, b in zip_longest(_key(left), _key(right), fillvalue=([0], 0)):
        if a != b:
            return -1 if a < b else 1
    return 0


def _split(version: Any) -> tuple[int, str, str]:
    match = VERSION.match(version) if isinstance(version, str) else None
    if match is None:
        raise AnsibleFilterError(f"{version!r} is not a version of a Debian package")
    return int(match["epoch"] or 0), match["upstream"], match["revision"] or "0"


def debian_version_at_least(version: str, floor: str) -> bool:
    """Whether a package's version is at least the floor."""
    left, right = _split(version), _split(floor)
    if left[0] != right[0]:
        return left[0] > right[0]
    return (_compare(left[1], right[1]) or _compare(left[2], right[2])) >= 0


class FilterModule:
    """Filters for versions of Debian packages."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"debian_version_at_least": debian_version_at_least}
