"""Label selectors as query text and as objects, and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Labels = Mapping[str, str]
Test = Callable[[Labels], bool]


class SelectorError(Exception):
    """The selector is malformed."""


_SET = re.compile(r"^(?P<key>[^\s!=,()]+)\s+(?P<word>in|notin)\s*\((?P<values>[^)]*)\)$")
_PART = re.compile(r",(?![^(]*\))")


def parse_labels(text: str) -> Test:
    """`a=b,c!=d,e in (f,g),!h,i` as a predicate of labels."""
    tests = [_requirement(part.strip()) for part in _PART.split(text) if part.strip()]
    return lambda labels: all(test(labels) for test in tests)


def _requirement(part: str) -> Test:
    if match := _SET.match(part):
        key, values = match["key"], {value.strip() for value in match["values"].split(",")}
        if match["word"] == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: labels.get(key) not in values
    for operator in ("!=", "==", "="):
        if operator in part:
            name, _, wanted = (word.strip() for word in part.partition(operator))
            if operator == "!=":
                return lambda labels: labels.get(name) != wanted
            return lambda labels: labels.get(name) == wanted
    if part.startswith("!"):
        absent = part[1:].strip()
        return lambda labels: absent not in labels
    if re.fullmatch(r"[A-Za-z0-9._/-]+", part):
        return lambda labels: part in labels
    raise SelectorError(f"unable to parse requirement: {part!r}")


def match_object(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    """Whether a LabelSelector object matches; an absent one matches nothing, an empty one everything."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for item in selector.get("matchExpressions") or []:
        key, operator, values = item["key"], item["operator"], item.get("values") or []
        fits = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not fits.get(operator, False):
            return False
    return True


FIELD_DEFAULTS = {"spec.unschedulable": "false"}


def parse_fields(text: str) -> Callable[[Mapping[str, Any]], bool]:
    """`metadata.name=x,status.phase!=Running`: any path into the object, compared as text."""
    tests: list[tuple[list[str], str, bool]] = []
    for part in text.split(","):
        if not part.strip():
            continue
        match = re.match(r"^([^!=]+)(!=|==|=)(.*)$", part.strip())
        if not match:
            raise SelectorError(f"invalid field selector: {part!r}")
        tests.append((match[1].strip().split("."), match[3].strip(), match[2] != "!="))

    def test(item: Mapping[str, Any]) -> bool:
        for path, wanted, equal in tests:
            value: Any = item
            for word in path:
                value = value.get(word) if isinstance(value, Mapping) else None
            actual = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            actual = actual or FIELD_DEFAULTS.get(".".join(path), "")
            if (actual == wanted) != equal:
                return False
        return True

    return test
