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
EXTRA_VARIABLES = "--extra-vars"
"""Scope and origin of variables of the command line."""


@dataclass(frozen=True, order=True)
class Origin:
    """Where a value is set, or should be: file and line."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, order=True)
class Fault:
    """`problem` names the object and the value seen, `remedy` is a sentence."""

    origin: Origin
    problem: str
    remedy: str
    absent: bool = False
    """Whether something is missing there."""

    @property
    def message(self) -> str:
        return f"{self.problem}. {self.remedy}"

    def __str__(self) -> str:
        return f"{self.problem}, {'expected' if self.absent else 'set'} in {self.origin}. {self.remedy}"


@dataclass(frozen=True)
class Setting:
    """A variable with its resolved value. `error` is set instead where it cannot be resolved."""

    name: str
    value: Any
    origin: Origin
    error: str = ""


@dataclass(frozen=True)
class Definition:
    """One place that sets a variable. `scope` is a group's or a host's name, or EXTRA_VARIABLES."""

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
    wired: Mapping[frozenset[str], frozenset[str]] = field(default_factory=dict)
    """Groups of each play that runs the role → options that it sets; an inventory must not set them."""
    groups: frozenset[str] = frozenset()
    """Groups whose hosts the role runs on."""

    def is_wired(self, option: str, groups: Iterable[str] | None = None) -> bool:
        """Whether every play that runs the role on hosts of these groups sets an option. None: on any host."""
        plays = [names for played, names in self.wired.items() if groups is None or played & {*groups}]
        return bool(plays) and all(option in names for names in plays)


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
    run_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Inputs of a run (op_x)."""
    inputs: frozenset[str] = frozenset()
    """Names of all inputs, those of operations too."""
    siblings: Mapping[str, Mapping[str, set[str]]] = field(default_factory=dict)
    """Values of other environments that must be unique, by name and folder, unrendered."""

    @property
    def words(self) -> set[str]:
        """Names that the inventory's own expressions use."""
        return {word for definition in self.definitions for word in definition.words}

    def hosts_of(self, role: Role) -> list[Host]:
        """Hosts that the role changes; none where its option <role>_enabled is false."""
        switch = f"{role.name}_enabled"
        return [
            host
            for host in self.hosts
            if role.groups & {*host.groups}
            and (switch not in role.options or switch not in host.settings or host.settings[switch].value is not False)
        ]

    def members(self, group: str) -> list[Host]:
        return [host for host in self.hosts if group in host.groups]

    def value(self, name: str, default: Any = None) -> Any:
        """A shared value, or the spec's default unless it is an expression, or `default`."""
        setting = self.settings.get(name)
        if setting is not None:
            return default if setting.error else setting.value
        for options in (self.platform_options, *(role.options for role in self.roles)):
            declared = options.get(name, {}).get("default")
            if declared is not None and "{{" not in repr(declared):
                return declared
        return default

    def is_set(self, name: str) -> bool:
        """Whether a shared value is set and not empty; `specs` reports one that cannot be resolved."""
        setting = self.settings.get(name)
        return setting is not None and (bool(setting.error) or bool(setting.value))

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

    def fault(self, name: str, problem: str, remedy: str) -> Fault:
        return Fault(self.value_origin(name), problem, remedy)


def show(value: Any, name: str = "") -> str:
    """A value for a message: shortened, secrets hidden."""
    if SECRET_NAME.search(name):
        return "(a secret)"
    if isinstance(value, str) and "PRIVATE KEY" in value:
        return "(a private key)"
    text = json.dumps(_without_secrets(value), default=str, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: "(a secret)" if SECRET_NAME.search(str(name)) else _without_secrets(part)
            for name, part in value.items()
        }
    return [_without_secrets(part) for part in value] if isinstance(value, list) else value


def suggestion(name: str, known: Iterable[str]) -> str:
    """The closest known name, as the remedy of a message."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return f"Did you mean {close[0]}?" if close else "Remove it."


def listed(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values) or "none"


Check = Callable[[Environment], Iterator[Fault]]


def report(faults: Iterable[Fault], path: str) -> str:
    """All faults as one text, by file and line."""
    ordered = sorted(set(faults))
    count = "1 fault" if len(ordered) == 1 else f"{len(ordered)} faults"
    return "\n".join([f"{count} in {path}; nothing has been changed.", *(f"- {fault}" for fault in ordered)])
