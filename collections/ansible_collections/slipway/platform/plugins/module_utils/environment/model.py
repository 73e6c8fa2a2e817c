"""Data of the environment checks: environment, host, setting, fault. No Ansible."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SECRET_NAME = re.compile(r"(token|passwords?|passphrase|secret|secret_key|private_key)$")
LONGEST_VALUE = 80


@dataclass(frozen=True, order=True)
class Origin:
    """Where a value is set, or should be: file and line."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, order=True)
class Fault:
    origin: Origin
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.message}"


@dataclass(frozen=True)
class Setting:
    """A variable with its resolved value. `error` is set instead where it cannot be resolved."""

    name: str
    value: Any
    origin: Origin
    error: str = ""


@dataclass(frozen=True)
class Definition:
    """One child_origin of the inventory that sets a variable. `scope` is a group's or a host's name."""

    name: str
    scope: str
    origin: Origin
    words: frozenset[str] = frozenset()
    """Names that its expression uses."""


@dataclass(frozen=True)
class Host:
    name: str
    groups: tuple[str, ...]
    origin: Origin
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Role:
    name: str
    options: Mapping[str, Mapping[str, Any]]
    wired: frozenset[str] = frozenset()
    """Options that a play sets; an inventory must not set them."""
    groups: frozenset[str] = frozenset()
    """Groups whose hosts the role runs on."""


@dataclass(frozen=True)
class Environment:
    folder: str
    """Name of the inventory's folder."""
    path: str
    """Its path as shown in messages."""
    hosts: tuple[Host, ...]
    settings: Mapping[str, Setting]
    """Values that all hosts share."""
    definitions: tuple[Definition, ...]
    group_origins: Mapping[str, Origin]
    """Where the inventory declares each group."""
    roles: tuple[Role, ...]
    platform_options: Mapping[str, Mapping[str, Any]]
    known_groups: frozenset[str]
    """Groups that plays use."""
    unreadable: tuple[Fault, ...] = ()
    siblings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values of other environments that must be unique, by name and folder, unrendered."""

    @property
    def words(self) -> set[str]:
        """Names that the inventory's own expressions use."""
        return {word for definition in self.definitions for word in definition.words}

    def members(self, group: str) -> list[Host]:
        return [host for host in self.hosts if group in host.groups]

    def value(self, name: str, default: Any = None) -> Any:
        """A shared value, or the role's default, or `default` where it is missing or broken."""
        setting = self.settings.get(name)
        if setting is not None:
            return default if setting.error else setting.value
        for role in self.roles:
            if "default" in role.options.get(name, {}):
                return role.options[name]["default"]
        return default

    def group_value(self, group: str, name: str) -> Any:
        """The value that the hosts of a group get, or the role's default."""
        for host in self.members(group):
            if (setting := host.settings.get(name)) is not None:
                return None if setting.error else setting.value
        return self.value(name)

    def group_value_origin(self, group: str, *names: str) -> Origin:
        """Where the first of these variables is set; the group's own file where none is."""
        for name in names:
            for settings in (*(host.settings for host in self.members(group)), self.settings):
                if name in settings:
                    return settings[name].origin
        return Origin(f"{self.path}/group_vars/{group}.yml")

    def text(self, name: str) -> str:
        """A shared value if it is a string, else an empty one; its type is a fault that `specs` reports."""
        value = self.value(name)
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> list[str]:
        value = self.value(name)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def value_origin(self, name: str, file: str = "group_vars/all/platform.yml") -> Origin:
        """Where a shared value is set; the file that should set it where it is not."""
        setting = self.settings.get(name)
        return setting.origin if setting is not None else Origin(f"{self.path}/{file}")

    def fault(self, name: str, message: str) -> Fault:
        return Fault(self.value_origin(name), message)


def show(value: Any, name: str = "") -> str:
    """A value for a message: shortened, secrets hidden."""
    if SECRET_NAME.search(name):
        return "(a secret)"
    if isinstance(value, str) and "PRIVATE KEY" in value:
        return "(a private key)"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def suggestion(name: str, known: Iterable[str]) -> str:
    """The closest known name, as the remedy of a message."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return f"did you mean {close[0]}?" if close else "remove it"


def listed(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values) or "none"


Check = Callable[[Environment], Iterator[Fault]]


def report(faults: Iterable[Fault], path: str) -> str:
    """All faults as one text, by file and line."""
    ordered = sorted(set(faults))
    count = "1 fault" if len(ordered) == 1 else f"{len(ordered)} faults"
    return "\n".join([f"{count} in {path}; nothing has been changed.", *(f"- {fault}" for fault in ordered)])
