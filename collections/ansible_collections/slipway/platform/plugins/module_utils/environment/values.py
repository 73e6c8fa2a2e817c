"""One value against the spec of its option: type, choices, range, format, elements and nested options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from .formats import FORMATS, Problem
from .model import SECRET_NAME, Fault, Setting, listed, show, suggestion
from .structures import STRUCTURES, scalar

Option = Mapping[str, Any]
Finding = tuple[str, Any, Problem]
"""Path of the value (`option[0].name`), the value, and what is wrong with it."""

RANGE = re.compile(r"(-?\d+(?:\.\d+)?)(?:\.\.(-?\d+(?:\.\d+)?))?")


def value_faults(setting: Setting, option: Option) -> Iterator[Fault]:
    for path, value, (problem, remedy) in findings(setting.name, setting.value, option):
        hidden = SECRET_NAME.search(setting.name)
        shown = "(a secret)" if hidden else show(value, path.rpartition(".")[2])
        yield Fault(setting.origin, f"{path}: {shown} {problem}", remedy)


def findings(path: str, value: Any, option: Option) -> Iterator[Finding]:
    kind = option.get("type", "str")
    choices = option.get("choices")
    if value is None:
        yield path, value, ("is no value", "Give it one, or remove the line.")
    elif choices:
        if value not in choices:
            closest = suggestion(str(value), map(str, choices))
            hint = " Write it in quotes." if str(value) in choices else f" {closest}" if closest.endswith("?") else ""
            yield path, value, ("is not possible", f"Choose one of {listed(choices)}.{hint}")
    elif kind == "list":
        yield from list_findings(path, value, option)
    elif kind == "dict":
        yield from dict_findings(path, value, option)
    else:
        check = {"int": number, "float": number, "bool": switch}.get(kind, text)
        if (problem := check(value, option)) is not None:
            yield path, value, problem


def text(value: Any, option: Option) -> Problem | None:
    if not isinstance(value, str):
        # YAML reads 1.30 as the number 1.3.
        return "is no text", "Write it as one text, in quotes."
    form = option.get("format")
    form = form if isinstance(form, Mapping) else {"text": form}
    if not value.strip():
        # Where empty is the default, it means none.
        allowed = value == "" and (option.get("default") == "" or form.get("empty"))
        return None if allowed else ("is empty", "Give it a value, or remove the line.")
    check = FORMATS.get(form.get("text") or "")
    return check(value) if check is not None else None


def number(value: Any, option: Option) -> Problem | None:
    if option["type"] == "float":
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+(\.\d+)?", str(value)):
            return "is no number", "Write one like 1.5."
    elif isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
        return "is no whole number", "Write digits only."
    allowed = str(option.get("format") or "")
    for part in allowed.split("|") if allowed else ():
        if (limits := RANGE.fullmatch(part)) is not None:
            lowest, highest = float(limits[1]), float(limits[2] or limits[1])
            if lowest <= float(value) <= highest:
                return None
    words = allowed.replace("|", " or ").replace("..", " to ")
    return ("is out of range", f"Choose {words}.") if allowed else None


def switch(value: Any, option: Option) -> Problem | None:
    try:
        boolean(value)
    except TypeError:
        return "is neither true nor false", "Write true or false."
    return None


def list_findings(path: str, value: Any, option: Option) -> Iterator[Finding]:
    if not isinstance(value, list):
        yield path, value, ("is no list", "Write it as a list.")
        return
    form = option.get("format")
    form = form if isinstance(form, Mapping) else {"elements": form}
    least = form.get("least", 1 if option.get("required") else 0)
    if len(value) < least:
        yield path, value, ("has too few entries", f"Write {least} or more.")
    element = {"type": option.get("elements", "raw"), "format": form.get("elements")}
    element |= {key: option[key] for key in ("options", "choices") if key in option}
    seen: set[str] = set()
    for position, entry in enumerate(value):
        where = f"{path}[{position}]"
        broken = list(findings(where, entry, element))
        yield from broken
        name = entry.get("name", entry) if isinstance(entry, Mapping) else entry
        if repr(name) in seen and not broken:
            yield where, name, ("is listed twice", "Keep one of them.")
        seen.add(repr(name))
    if (structure := STRUCTURES.get(form.get("elements") or "")) is not None:
        yield from ((f"{path}{below}", found, problem) for below, found, problem in structure(value))


def dict_findings(path: str, value: Any, option: Option) -> Iterator[Finding]:
    if not isinstance(value, Mapping):
        yield path, value, ("is no dict", "Write it as a dict.")
        return
    options: Mapping[str, Option] = option.get("options") or {}
    for name in value if options else ():
        if name not in options:
            yield f"{path}.{name}", name, ("is no known key", suggestion(str(name), options))
    for name, nested in options.items():
        if name in value:
            yield from findings(f"{path}.{name}", value[name], nested)
        elif nested.get("required"):
            yield path, value, (f"has no {name}", f"Add {name}.")
    form = option.get("format")
    if isinstance(form, Mapping):
        for name, content in value.items():
            where = f"{path}.{name}"
            if (problem := text(str(name), {"format": form.get("keys")})) is not None:
                yield where, name, problem
            if form.get("values") == "scalar":
                if (problem := scalar(content)) is not None:
                    yield where, content, problem
            else:
                yield from findings(where, content, {"type": "str", "format": form.get("values")})
    elif (structure := STRUCTURES.get(form or "")) is not None:
        yield from ((f"{path}{below}", found, problem) for below, found, problem in structure(value))
