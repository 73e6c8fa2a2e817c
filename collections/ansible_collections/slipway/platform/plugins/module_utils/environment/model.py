"""An environment as the checks see it, and a fault as a person reads it. Plain data, no Ansible."""

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
class Place:
    """Where a value is set, or should be."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, order=True)
class Fault:
    place: Place
    sentence: str

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"


@dataclass(frozen=True)
class Setting:
    """A variable with the value that a host really gets. `error` is set instead where it cannot be resolved."""

    name: str
    value: Any
    place: Place
    error: str = ""


@dataclass(frozen=True)
class Definition:
    """One spot of the inventory that sets a variable. `scope` is a group's or a host's name."""

    name: str
    scope: str
    place: Place
    words: frozenset[str] = frozenset()
    """Names that its expression mentions."""


@dataclass(frozen=True)
class Host:
    name: str
    groups: tuple[str, ...]
    place: Place
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Role:
    name: str
    options: Mapping[str, Mapping[str, Any]]
    wired: frozenset[str] = frozenset()
    """Options that a play hands over; an inventory must not set them."""
    groups: frozenset[str] = frozenset()
    """Groups whose hosts the role runs on."""


@dataclass(frozen=True)
class Environment:
    folder: str
    """Name of the inventory's folder."""
    path: str
    """The folder as a person would type it."""
    hosts: tuple[Host, ...]
    settings: Mapping[str, Setting]
    """What every host has in common."""
    definitions: tuple[Definition, ...]
    group_places: Mapping[str, Place]
    """Where each group of the inventory is named."""
    roles: tuple[Role, ...]
    platform_options: Mapping[str, Mapping[str, Any]]
    known_groups: frozenset[str]
    """Groups that some play works on."""
    unreadable: tuple[Fault, ...] = ()
    siblings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What other environments say where no two may say the same: values by name and folder, as they are written."""

    @property
    def words(self) -> set[str]:
        """Names that the inventory's own expressions mention."""
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

    def tuned(self, group: str, name: str) -> Any:
        """The value that the hosts of a group get, or the role's default."""
        for host in self.members(group):
            if (setting := host.settings.get(name)) is not None:
                return None if setting.error else setting.value
        return self.value(name)

    def tuned_place(self, group: str, *names: str) -> Place:
        """Where the first of these that is set at all is set; where tuning of the group belongs, if none is."""
        for name in names:
            for settings in (*(host.settings for host in self.members(group)), self.settings):
                if name in settings:
                    return settings[name].place
        return Place(f"{self.path}/group_vars/{group}.yml")

    def text(self, name: str) -> str:
        """A shared value if it is a text, else nothing: its type is somebody else's fault."""
        value = self.value(name)
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> list[str]:
        value = self.value(name)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def place(self, name: str, file: str = "group_vars/all/platform.yml") -> Place:
        """Where a shared value is set; where it belongs, if it is not."""
        setting = self.settings.get(name)
        return setting.place if setting is not None else Place(f"{self.path}/{file}")

    def fault(self, name: str, sentence: str) -> Fault:
        return Fault(self.place(name), sentence)


def show(value: Any, name: str = "") -> str:
    """A value as a sentence shows it: short, and never a secret one."""
    if SECRET_NAME.search(name):
        return "(a secret)"
    if isinstance(value, str) and "PRIVATE KEY" in value:
        return "(a private key)"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def suggestion(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant, as the second half of a sentence."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return f"did you mean {close[0]}?" if close else "remove it"


def listed(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values) or "none"


Check = Callable[[Environment], Iterator[Fault]]


def report(faults: Iterable[Fault], path: str) -> str:
    """All faults as one text, by file and line."""
    ordered = sorted(set(faults))
    many = "1 fault" if len(ordered) == 1 else f"{len(ordered)} faults"
    return "\n".join([f"{many} in {path}; nothing has been changed.", *(f"- {fault}" for fault in ordered)])
