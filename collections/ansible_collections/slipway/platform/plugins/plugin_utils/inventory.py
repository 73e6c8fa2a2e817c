"""Read an environment: definitions and their origins from the files, resolved values from Ansible."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible_collections.slipway.platform.plugins.module_utils.environment.model import (
    Definition,
    Environment,
    Fault,
    Host,
    Origin,
    Role,
    Setting,
)
from ansible_collections.slipway.platform.plugins.module_utils.environment.renamed import RENAMED

DYNAMIC_GROUP = "hcloud"
UNIQUE = ("ceph_fsid",)
"""Variables that must differ between environments."""
VAULT_HEADER = "$ANSIBLE_VAULT"
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class Files:
    """The definitions in the files of an inventory, unrendered."""

    definitions: list[Definition] = field(default_factory=list)
    hosts: dict[str, Origin] = field(default_factory=dict)
    groups: dict[str, Origin] = field(default_factory=dict)
    unreadable: list[Fault] = field(default_factory=list)


def read_environment(
    hostvars: Any,
    groups: Mapping[str, Sequence[str]],
    *,
    folder: Path,
    roles_dir: Path,
    playbooks_dir: Path,
    loader: Any,
    shown: str,
) -> Environment:
    """`hostvars` and `groups` are Ansible's; `shown` is the folder's path for messages."""
    files = read_files(folder, shown, loader)
    files.definitions += renamed_extra_vars(hostvars["localhost"], files.definitions)
    plays = list(read_plays(playbooks_dir))
    hosts = []
    for name in sorted({host for members in groups.values() for host in members} - {"localhost"}):
        memberships = tuple(group for group, members in groups.items() if name in members and group != DYNAMIC_GROUP)
        if name not in files.hosts and not set(memberships) - {"all", "ungrouped"}:
            continue
        settings = read_settings(hostvars[name], files.definitions, (name, *memberships))
        hosts.append(Host(name, memberships, files.hosts.get(name, Origin(f"{shown}/hosts.yml")), settings))
    meta = playbooks_dir / "check.meta.yml"
    shared = _load(meta)["argument_specs"]["check"]["options"] if meta.exists() else {}
    return Environment(
        folder=folder.name,
        path=shown,
        hosts=tuple(hosts),
        settings=read_settings(hostvars["localhost"], files.definitions, ("all",)),
        definitions=tuple(files.definitions),
        group_origins=files.groups,
        roles=tuple(read_roles(roles_dir, plays)),
        platform_options=shared,
        known_groups=frozenset(group for play in plays for group in play.groups),
        unreadable=tuple(files.unreadable),
        siblings={name: read_siblings(folder, name) for name in UNIQUE},
    )


def renamed_extra_vars(variables: Any, definitions: Iterable[Definition]) -> list[Definition]:
    """Renamed options that are set outside of the files, by --extra-vars."""
    defined = {definition.name for definition in definitions}
    return [
        Definition(name, "all", Origin("--extra-vars")) for name in RENAMED if name in variables and name not in defined
    ]


def read_siblings(folder: Path, name: str) -> dict[str, str]:
    """A plain value as the other inventories beside this one set it, by their folders."""
    found = {}
    for path in sorted(folder.parent.glob("*/group_vars/**/*.yml")):
        other = path.relative_to(folder.parent).parts[0]
        if other != folder.name and (match := re.search(rf"^{name}: *[\"']?([^\s\"'#{{]+)", path.read_text(), re.M)):
            found[other] = match[1]
    return found


# Values


def read_settings(variables: Any, definitions: Iterable[Definition], scopes: Sequence[str]) -> dict[str, Setting]:
    """The values of one host. The most specific definition applies, as in Ansible."""
    rank = {scope: position for position, scope in enumerate(reversed([s for s in scopes if s != "all"]), 1)} | {
        "all": 0
    }
    if scopes[0] != "all":
        rank[scopes[0]] = len(scopes) + 1
    found: dict[str, Definition] = {}
    for definition in definitions:
        if definition.scope in rank and (
            definition.name not in found or rank[definition.scope] >= rank[found[definition.name].scope]
        ):
            found[definition.name] = definition
    return {name: _setting(variables, definition) for name, definition in found.items() if name in variables}


def _setting(variables: Any, definition: Definition) -> Setting:
    try:
        value = _plain(variables[definition.name])
    except AnsibleError as error:
        return Setting(definition.name, None, definition.origin, _first_line(error))
    return Setting(definition.name, value, definition.origin)


def _plain(value: Any) -> Any:
    """Convert Ansible's tagged and lazy values to plain ones, which renders them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Sequence):
        return [_plain(part) for part in value]
    return value


def _first_line(error: AnsibleError) -> str:
    if (undefined := re.search(r"'[^']+' is undefined", str(error))) is not None:
        return undefined[0]
    return str(error).strip().splitlines()[0].partition(" Use -vvv")[0].rstrip(". ")


# Files


def read_files(folder: Path, shown: str, loader: Any) -> Files:
    files = Files()
    for path in sorted(folder.glob("*.yml")):
        if not path.name.endswith("hcloud.yml"):
            _read_hosts_file(path, f"{shown}/{path.name}", files)
    for kind in ("group_vars", "host_vars"):
        for path in sorted((folder / kind).rglob("*.yml")):
            relative = path.relative_to(folder)
            scope = relative.parts[1].removesuffix(".yml")
            _read_variables_file(path, f"{shown}/{relative}", scope, files, loader)
    return files


def static_hosts(folder: Path) -> set[str]:
    """Names of the hosts that the static files of an inventory declare."""
    files = Files()
    for path in sorted(folder.glob("*.yml")):
        if not path.name.endswith("hcloud.yml"):
            _read_hosts_file(path, str(path), files)
    return set(files.hosts)


def _compose(path: Path, shown: str, files: Files) -> yaml.MappingNode | None:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = mark.line + 1 if (mark := getattr(error, "problem_mark", None)) else 0
        problem = getattr(error, "problem", None) or "it is not UTF-8"
        files.unreadable.append(Fault(Origin(shown, line), f"the file is no valid YAML ({problem}); correct it."))
        return None
    if node is None:
        return None
    if not isinstance(node, yaml.MappingNode):
        files.unreadable.append(Fault(Origin(shown, 1), "the file holds no mapping; write `name: value`."))
        return None
    return node


def _words(node: yaml.Node) -> Iterator[str]:
    """Names that the expressions in a value use."""
    if isinstance(node, yaml.ScalarNode):
        if "{{" in node.value or "{%" in node.value:
            yield from WORD.findall(node.value)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _words(child)
    elif isinstance(node, yaml.MappingNode):
        for _, child in node.value:
            yield from _words(child)


def _entries(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), value, key.start_mark.line + 1


def _read_variables_file(path: Path, shown: str, scope: str, files: Files, loader: Any) -> None:
    with path.open(encoding="utf-8", errors="replace") as file:
        encrypted = file.read(len(VAULT_HEADER)) == VAULT_HEADER
    if encrypted:
        names: Iterable[str] = (loader.load_from_file(str(path)) or {}).keys()
        files.definitions += [Definition(str(name), scope, Origin(shown)) for name in names]
        return
    node = _compose(path, shown, files)
    files.definitions += [
        Definition(name, scope, Origin(shown, line), frozenset(_words(value))) for name, value, line in _entries(node)
    ]


def _read_hosts_file(path: Path, shown: str, files: Files) -> None:
    for group, node, line in _entries(_compose(path, shown, files)):
        _read_group(group, node, Origin(shown, line), files)


def _read_group(group: str, node: yaml.Node, origin: Origin, files: Files) -> None:
    if group != "all":
        files.groups.setdefault(group, origin)
    for key, value, _ in _entries(node):
        for name, child, line in _entries(value):
            child_origin = Origin(origin.file, line)
            if key == "children":
                _read_group(name, child, child_origin, files)
            elif key == "vars":
                files.definitions.append(Definition(name, group, child_origin, frozenset(_words(child))))
            elif key == "hosts":
                files.hosts.setdefault(name, child_origin)
                for variable, expression, at in _entries(child):
                    variable_origin = Origin(origin.file, at)
                    files.definitions.append(Definition(variable, name, variable_origin, frozenset(_words(expression))))


# Roles and plays


@dataclass(frozen=True)
class Play:
    groups: frozenset[str]
    roles: Mapping[str, frozenset[str]]
    """Role → options that the play sets."""


def read_plays(playbooks_dir: Path) -> Iterator[Play]:
    for path in sorted(playbooks_dir.glob("*.yml")):
        if path.name.endswith(".meta.yml"):
            continue
        for play in _load(path) or []:
            if "hosts" not in play:
                continue
            pattern = play["hosts"] if isinstance(play["hosts"], str) else ":".join(play["hosts"])
            wired = frozenset(play.get("vars") or {})
            groups = {part.lstrip("&") for part in re.split(r"[:,]", pattern) if not part.startswith("!")}
            roles: dict[str, frozenset[str]] = {}
            for entry in play.get("roles") or []:
                name = entry if isinstance(entry, str) else entry.get("role", entry.get("name"))
                roles[name] = wired | frozenset({} if isinstance(entry, str) else entry.get("vars") or {})
            for task in _with_included_tasks(play.get("tasks") or [], path.parent):
                for action in ("ansible.builtin.import_role", "ansible.builtin.include_role"):
                    # Other entry points of a role have inputs of their own.
                    if action in task and "tasks_from" not in task[action]:
                        roles[task[action]["name"]] = wired | frozenset(task.get("vars") or {})
            yield Play(frozenset(groups), roles)


def _with_included_tasks(tasks: Iterable[Mapping[str, Any]], folder: Path) -> Iterator[Mapping[str, Any]]:
    """Tasks of a play, and those of the files that it includes."""
    for task in tasks:
        yield task
        included = task.get("ansible.builtin.include_tasks")
        if isinstance(included, str):
            yield from _with_included_tasks(_load(folder / included) or [], folder)


def read_roles(roles_dir: Path, plays: Sequence[Play]) -> Iterator[Role]:
    for path in sorted(roles_dir.glob("*/meta/argument_specs.yml")):
        name = path.parts[-3]
        users = [play for play in plays if name in play.roles]
        options = _load(path)["argument_specs"]["main"].get("options", {})
        yield Role(
            name=name,
            options=options,
            wired=frozenset(option for play in users for option in play.roles[name] if option in options),
            groups=frozenset(group for play in users for group in play.groups),
        )


class _Loader(yaml.SafeLoader):
    """Loads Ansible's own tags as plain values."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")


def _load(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
