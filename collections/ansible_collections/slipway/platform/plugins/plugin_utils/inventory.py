"""Read an environment: Ansible's own inventory, loader and variables, with the origin of each definition."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible._internal._datatag._tags import Origin as Tag
from ansible.errors import AnsibleError
from ansible.inventory.helpers import sort_groups
from ansible.inventory.manager import InventoryManager
from ansible_collections.slipway.platform.plugins.module_utils.environment.model import (
    EXTRA_VARIABLES,
    Definition,
    Environment,
    Fault,
    Host,
    Origin,
    Role,
    Setting,
)

DYNAMIC_GROUP = "hcloud"
UNIQUE = ("ceph_fsid",)
"""Variables that must differ between environments."""
YAML = (".yml", ".yaml", ".json")
VAULT_HEADER = "$ANSIBLE_VAULT"
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
INPUT = re.compile(r"\bop_[a-z0-9_]+\b")
"""Inputs of operations and of a run."""
FOLDERS = ("group_vars", "host_vars")


@dataclass
class Files:
    """The definitions of an inventory, unrendered, as Ansible finds them."""

    folder: Path
    shown: str
    loader: Any
    others: Sequence[Path] = ()
    """Folders of further inventories of the run, with lower precedence."""
    secrets_read: bool = True
    """Whether encrypted files are read, whose password may be another one."""
    definitions: list[Definition] = field(default_factory=list)
    """In the order of precedence, the last one applies (`Definition.scope`: to which hosts)."""
    values: dict[str, list[Any]] = field(default_factory=dict)
    """Unrendered values of `UNIQUE`."""
    faults: list[Fault] = field(default_factory=list)
    locations: set[tuple[str, str, str, int | None]] = field(default_factory=set)

    def origin(self, tagged: Any) -> Origin | None:
        """Where Ansible read something; None for what is in no file. A line of an encrypted file helps nobody."""
        tag = Tag.get_tag(tagged)
        if tag is None or tag.path is None:
            return None
        return self.file_origin(tag.path, 0 if self.encrypted(tag.path) else tag.line_num or 0)

    def file_origin(self, path: str, line: int = 0) -> Origin:
        inside = Path(path).is_relative_to(self.folder)
        return Origin(f"{self.shown}/{Path(path).relative_to(self.folder)}" if inside else os.path.relpath(path), line)

    def encrypted(self, path: str) -> bool:
        try:
            with Path(path).open(encoding="utf-8", errors="replace") as file:
                return file.read(len(VAULT_HEADER)) == VAULT_HEADER
        except OSError:
            return False

    def is_new(self, name: Any, value: Any, scope: str) -> bool:
        """Whether the line was not read before: a further inventory of a run may link to files of the first."""
        tag = Tag.get_tag(name) or Tag.get_tag(value)
        if tag is None or tag.path is None:
            return True
        location = (str(name), scope, os.path.realpath(tag.path), tag.line_num)
        known = location in self.locations
        self.locations.add(location)
        return not known

    def add(self, variables: Mapping[Any, Any], scope: str) -> None:
        for name, value in variables.items():
            origin = self.origin(name) or self.origin(value)
            if scope == EXTRA_VARIABLES:
                origin = origin or Origin(EXTRA_VARIABLES)
            if origin is not None and self.is_new(name, value, scope):
                self.definitions.append(Definition(str(name), scope, origin, frozenset(_words(value))))
                if name in UNIQUE:
                    self.values.setdefault(str(name), []).append(value)

    def add_files(self, kind: str, scope: str) -> set[str]:
        """The files of a group or host; returns their paths."""
        folders = [str(folder / kind) for folder in (*self.others, self.folder)]
        paths = [path for folder in folders for path in self.loader.find_vars_files(folder, scope)]
        for path in paths:
            if not self.secrets_read and self.encrypted(path):
                continue
            try:
                content = self.loader.load_from_file(path, cache="all", unsafe=True, trusted_as_template=True)
            except AnsibleError as error:
                problem = f"{Path(path).name}: Ansible cannot read it ({_first_line(error)})"
                self.faults.append(Fault(self.file_origin(path), problem, "Correct the file."))
            else:
                self.add(content or {}, scope)
        return set(paths)


def read_environment(
    hostvars: Any,
    *,
    folder: Path,
    roles_dir: Path,
    playbooks_dir: Path,
    shown: str,
) -> Environment:
    """`hostvars` are Ansible's; `shown` is the folder's path for messages."""
    inventory, loader = hostvars._inventory, hostvars._loader
    files = read_files(inventory, loader, folder, shown)
    files.add(extra_variables(hostvars), EXTRA_VARIABLES)
    plays = list(read_plays(playbooks_dir))
    hosts = []
    for name, host in sorted(inventory.hosts.items()):
        groups = tuple(group.name for group in sort_groups(host.get_groups()) if group.name != DYNAMIC_GROUP)
        origin = files.origin(host.name)
        if name == "localhost" or (origin is None and not set(groups) - {"all", "ungrouped"}):
            continue
        settings = read_settings(hostvars[name], files.definitions, {name, *groups})
        hosts.append(Host(name, groups, origin or Origin(f"{shown}/hosts.yml"), settings))
    return Environment(
        folder=folder.name,
        path=shown,
        hosts=tuple(hosts),
        settings=read_settings(hostvars["localhost"], files.definitions, {"all"}),
        definitions=tuple(files.definitions),
        group_origins={
            name: origin for name, group in inventory.groups.items() if (origin := files.origin(group.name)) is not None
        },
        roles=tuple(read_roles(roles_dir, plays)),
        platform_options=read_options(playbooks_dir / "check.meta.yml", "check", roles_dir / "check"),
        run_options=dict(read_run_options(playbooks_dir, roles_dir / "check")),
        known_groups=frozenset(group for play in plays for group in play.groups),
        inputs=frozenset(read_inputs(playbooks_dir)),
        unreadable=tuple(files.faults),
        siblings=read_siblings(folder, loader),
    )


def extra_variables(hostvars: Any) -> dict[str, Any]:
    """What --extra-vars sets; Ansible adds variables of its own to it."""
    return {name: value for name, value in hostvars._variable_manager.extra_vars.items() if name not in MAGIC}


MAGIC = ("ansible_inventory_sources", "ansible_version")
"""Variables of Ansible beside those of the command line."""


def read_files(inventory: Any, loader: Any, folder: Path, shown: str) -> Files:
    """All definitions, in Ansible's order of precedence: files of `all` override a group's entry in the inventory."""
    others = [
        path if path.is_dir() else path.parent for source in inventory._sources if (path := Path(source)).exists()
    ]
    files = Files(folder, shown, loader, [other for other in others if other.resolve() != folder])
    groups = [group for group in sort_groups(inventory.groups.values()) if group.name != "all"]
    files.add(inventory.groups["all"].vars, "all")
    for group in groups:
        files.add(group.vars, group.name)
    # Files for names that the inventory does not have are faults, so they are read too.
    names = {kind: {path.stem for path in sorted((folder / kind).glob("[!.]*"))} for kind in FOLDERS}
    ordered = ["all", *(group.name for group in groups)]
    ordered += sorted(names["group_vars"] - set(ordered))
    found = set().union(*(files.add_files("group_vars", name) for name in ordered))
    for name, host in sorted(inventory.hosts.items()):
        files.add(host.vars, name)
        found |= files.add_files("host_vars", name)
    for name in sorted(names["host_vars"] - set(inventory.hosts)):
        found |= files.add_files("host_vars", name)
    for kind in FOLDERS:
        for path in sorted((folder / kind).rglob("*")):
            if path.is_file() and path.suffix in YAML and str(path) not in found and not path.name.startswith("."):
                remedy = "Name it <group>.yml, or put it into the folder of that name; not both."
                origin = files.file_origin(str(path))
                files.faults.append(Fault(origin, f"{path.name}: Ansible does not read this file", remedy))
    return files


def read_siblings(folder: Path, loader: Any) -> dict[str, dict[str, set[str]]]:
    """Values of `UNIQUE` that the inventories beside this one set, by name and folder. Expressions are left out."""
    found: dict[str, dict[str, set[str]]] = {name: {} for name in UNIQUE}
    for other in sorted(folder.parent.iterdir()):
        if other == folder or not (other / "group_vars").is_dir():
            continue
        files = Files(other, str(other), loader, secrets_read=False)
        for path in sorted((other / "group_vars").glob("[!.]*")):
            files.add_files("group_vars", path.stem)
        for name, values in files.values.items():
            texts = {str(value) for value in values if "{{" not in str(value)}
            if texts:
                found[name][other.name] = texts
    return found


# Values


def read_settings(variables: Any, definitions: Iterable[Definition], scopes: set[str]) -> dict[str, Setting]:
    """The values of one host; the origin is that of the last definition that applies to it."""
    applying = {
        definition.name: definition
        for definition in definitions
        if definition.scope in {*scopes, "all", EXTRA_VARIABLES}
    }
    return {name: _setting(variables, definition) for name, definition in applying.items() if name in variables}


def _setting(variables: Any, definition: Definition) -> Setting:
    try:
        value = _plain(variables[definition.name])
    except (AnsibleError, RecursionError) as error:
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


def _first_line(error: Exception) -> str:
    if (undefined := re.search(r"'[^']+' is undefined", str(error))) is not None:
        return undefined[0]
    return str(error).strip().splitlines()[0].partition(" Use -vvv")[0].rstrip(". ")


def _words(value: Any) -> Iterator[str]:
    """Names that the expressions in a value use."""
    if isinstance(value, str):
        if "{{" in value or "{%" in value:
            yield from WORD.findall(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _words(part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _words(part)


def static_inventory(folder: Path, loader: Any) -> InventoryManager:
    """Hosts and groups that the static files of an inventory declare."""
    extensions = (*YAML, ".ini", "")
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in extensions]
    sources = [str(path) for path in paths if not path.stem.endswith("hcloud") and not path.name.startswith(".")]
    return InventoryManager(loader=loader, sources=sources, parse=bool(sources))


# Roles and plays


@dataclass(frozen=True)
class Play:
    groups: frozenset[str]
    roles: Mapping[str, frozenset[str]]
    """Role → options that the play sets."""


def read_inputs(playbooks_dir: Path) -> Iterator[str]:
    """Inputs of operations and of a run: the names op_x in the plays."""
    for path in playbooks_dir.rglob("*.yml"):
        yield from INPUT.findall(path.read_text(encoding="utf-8"))


def read_plays(playbooks_dir: Path) -> Iterator[Play]:
    for path in sorted(playbooks_dir.glob("*.yml")):
        if path.name.endswith(".meta.yml"):
            continue
        for play in _load(path) or []:
            if "hosts" not in play:
                continue
            pattern = play["hosts"] if isinstance(play["hosts"], str) else ":".join(play["hosts"])
            # An operation may choose other hosts; the default counts.
            if (default := re.search(r"default\('([^']+)'\)", pattern)) is not None:
                pattern = default[1]
            wired = frozenset(play.get("vars") or {})
            groups = {
                part.lstrip("&").partition("[")[0] for part in re.split(r"[:,]", pattern) if not part.startswith("!")
            }
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
        options = read_options(path, "main", path.parents[1])
        wired: dict[frozenset[str], frozenset[str]] = {}
        for play in users:
            # A play that runs several roles sets the options of all of them.
            own = frozenset(option for option in play.roles[name] if option in options)
            wired[play.groups] = wired.get(play.groups, own) & own
        yield Role(
            name=name,
            options=options,
            wired=wired,
            groups=frozenset(group for play in users for group in play.groups),
        )


def read_run_options(playbooks_dir: Path, role: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Inputs of site.yml and its plays (op_x), as the plays' .meta.yml describe them."""
    for path in sorted(playbooks_dir.glob("*.meta.yml")):
        for entry_point in _load(path)["argument_specs"]:
            for name, option in read_options(path, entry_point, role).items():
                if INPUT.fullmatch(name):
                    yield name, option


def read_options(path: Path, entry_point: str, role: Path) -> dict[str, dict[str, Any]]:
    """Options of an argument spec, each with the format that the role's meta/formats.yml names for it."""
    options: dict[str, dict[str, Any]] = _load(path)["argument_specs"][entry_point].get("options") or {}
    table = role / "meta/formats.yml"
    formats: dict[str, Any] = (_load(table) if table.exists() else None) or {}
    return dict(_formatted(options, formats, ""))


def _formatted(
    options: Mapping[str, Any], formats: Mapping[str, Any], above: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, option in options.items():
        formatted = {**option, "format": formats.get(f"{above}{name}")}
        if "options" in option:
            formatted["options"] = dict(_formatted(option["options"], formats, f"{above}{name}."))
        yield name, formatted


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loads Ansible's own tags as plain values."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")


def _load(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
