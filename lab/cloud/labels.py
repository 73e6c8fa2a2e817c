"""Labels, and the selector language: `k`, `!k`, `k=v`, `k==v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

Selector = Callable[[Mapping[str, str]], bool]

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_REQUIREMENT = re.compile(
    r"\s*(?:"
    r"(?P<absent>!)\s*(?P<absent_key>[^\s,=!()]+)"
    r"|(?P<set_key>[^\s,=!()]+)\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<key>[^\s,=!()]+)\s*(?:(?P<op>==|=|!=)\s*(?P<value>[^\s,=!()]*))?"
    r")\s*(?P<end>,|$)"
)


def faults(labels: Mapping[str, str]) -> Iterator[str]:
    """Faults of a map of labels, one sentence each."""
    for key, value in labels.items():
        if not _valid_key(key):
            yield f"label key {key!r} is not valid"
        elif key.partition("/")[0] == "hetzner.cloud" and "/" in key:
            yield f"label key {key!r} uses the reserved prefix hetzner.cloud/"
        if value and not _NAME.fullmatch(value):
            yield f"label value {value!r} of key {key!r} is not valid"


def _valid_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= 253 and all(_DNS_LABEL.fullmatch(part) for part in prefix.split("."))):
        return False
    return bool(_NAME.fullmatch(name))


def unequal_keys(selector: str) -> list[str]:
    """The keys that a selector compares by `!=`."""
    return [match["key"] for match in _REQUIREMENT.finditer(selector) if match["op"] == "!="]


@lru_cache(maxsize=256)
def parse(text: str) -> Selector:
    """The predicate of a selector. Raises ValueError with one sentence when the selector is invalid."""
    requirements: list[Selector] = []
    position = 0
    while True:
        match = _REQUIREMENT.match(text, position)
        if match is None:
            raise ValueError(f"label selector {text!r} is invalid at {text[position:]!r}")
        requirements.append(_requirement(text, match))
        position = match.end()
        if match["end"] != ",":
            return lambda labels: all(matches(labels) for matches in requirements)


def _requirement(text: str, match: re.Match[str]) -> Selector:
    key = match["absent_key"] or match["set_key"] or match["key"]
    if not _valid_key(key):
        raise ValueError(f"label selector {text!r} has the invalid key {key!r}")
    values = [value.strip() for value in (match["values"] if match["set"] else match["value"] or "").split(",")]
    for value in values:
        if value and not _NAME.fullmatch(value):
            raise ValueError(f"label selector {text!r} has the invalid value {value!r}")
    if match["absent"]:
        return lambda labels: key not in labels
    if match["set"] == "in":
        return lambda labels: labels.get(key) in values
    if match["set"] == "notin":
        return lambda labels: labels.get(key) not in values
    if match["op"] == "!=":
        return lambda labels: labels.get(key) != values[0]
    if match["op"]:
        return lambda labels: labels.get(key) == values[0]
    return lambda labels: key in labels
