"""Every variable of the inventory against the argument specs of the roles and of check.meta.yml."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from .model import EXTRA_VARIABLES, SECRET_NAME, Environment, Fault, Origin, Role, Setting, listed, suggestion
from .renamed import RENAMED
from .values import value_faults as value_faults

SHARED = "platform_"
FOREIGN = ("ansible_", "hcloud_", "molecule_")
"""Prefixes of Ansible, of the dynamic inventory, and of the inventory that Molecule adds to a run."""

# Holds what create_secrets generates; it is encrypted, so faults name the file without a line.
SECRETS_FILE = "group_vars/all/vault.yml"
DEFAULTS_FILE = "group_vars/all/defaults.yml"
"""Shared by the environments; platform.yml may override its values."""
GROUP_VARS = "/group_vars/"


def faults(environment: Environment) -> Iterator[Fault]:
    yield from environment.unreadable
    yield from unresolved(environment)
    yield from duplicates(environment)
    yield from overridden(environment)
    yield from unknown(environment)
    yield from misplaced(environment)
    yield from wired(environment)
    yield from values(environment)
    yield from missing(environment)


def every_setting(environment: Environment) -> Iterator[Setting]:
    seen = set()
    for settings in (environment.settings, *(host.settings for host in environment.hosts)):
        for setting in settings.values():
            key = (setting.name, setting.origin, repr(setting.value), setting.error)
            if key not in seen:
                seen.add(key)
                yield setting


def owner(environment: Environment, name: str) -> Role | None:
    """The role that has the option, else the one whose prefix a variable carries; the longest name wins."""
    owners = [role for role in environment.roles if name in role.options]
    owners = owners or [role for role in environment.roles if name.startswith(f"{role.name}_")]
    return max(owners, key=lambda role: len(role.name), default=None)


def unresolved(environment: Environment) -> Iterator[Fault]:
    """Only the root cause: a value that uses a broken or missing one is not reported itself."""
    words = {(definition.name, definition.origin): definition.words for definition in environment.definitions}
    broken = [
        (setting, words.get((setting.name, setting.origin), frozenset()) - {setting.name})
        for setting in every_setting(environment)
        if setting.error
    ]
    names = {setting.name for setting, _ in broken}
    needed = {name for name, option in environment.platform_options.items() if option.get("required")}
    causes = (needed | {*required_secrets(environment)}) - {*environment.settings}
    causes |= {setting.name for setting, used in broken if not used & (causes | names)}
    # Values that use each other in a circle have no other cause.
    explained = set(causes)
    while more := {setting.name for setting, used in broken if used & explained} - explained:
        explained |= more
    for setting, _ in broken:
        name = setting.name
        if name in causes or name not in explained:
            # Ansible's message may contain the value.
            reason = "" if SECRET_NAME.search(name) or "secret" in name else f" ({setting.error})"
            yield Fault(setting.origin, f"{name}: cannot be resolved{reason}", "Correct its expression.")


def duplicates(environment: Environment) -> Iterator[Fault]:
    origins_by_name: dict[tuple[str, str], list[Origin]] = defaultdict(list)
    for definition in environment.definitions:
        if not definition.origin.file.endswith(DEFAULTS_FILE):
            origins_by_name[definition.name, definition.scope].append(definition.origin)
    for (name, scope), origins in origins_by_name.items():
        for origin in sorted(origins)[1:]:
            yield Fault(origin, f"{name}: set for {scope} in {sorted(origins)[0]} too", "Keep one of the two.")


def overridden(environment: Environment) -> Iterator[Fault]:
    """Ansible reads group_vars/all/ after the groups in the hosts' file, so that a value for one group is lost."""
    everywhere = {d.name: d.origin for d in environment.definitions if d.scope == "all" and GROUP_VARS in d.origin.file}
    for definition in environment.definitions:
        other = everywhere.get(definition.name)
        grouped = definition.scope in environment.group_origins and GROUP_VARS not in definition.origin.file
        if other is not None and grouped:
            yield Fault(
                definition.origin,
                f"{definition.name}: the value for {definition.scope} has no effect, because {other} overrides it",
                f"Set it in {environment.path}/group_vars/{definition.scope}.yml.",
            )


def unknown(environment: Environment) -> Iterator[Fault]:
    known_names = {*environment.platform_options, *environment.inputs}
    for role in environment.roles:
        known_names |= set(role.options)
    for definition in environment.definitions:
        name, origin = definition.name, definition.origin
        if name.startswith(FOREIGN) or name in known_names:
            continue
        owning_role = owner(environment, name)
        if name in RENAMED:
            yield Fault(origin, f"{name}: is no longer known", f"Rename it to {RENAMED[name]}.")
        elif name.startswith(SHARED):
            yield Fault(
                origin,
                f"{name}: is no shared value of the platform",
                suggestion(name, environment.platform_options),
            )
        elif owning_role is not None:
            yield Fault(
                origin, f"{name}: is no input of the role {owning_role.name}", suggestion(name, owning_role.options)
            )
        elif name not in environment.words:
            yield Fault(origin, f"{name}: is read by nothing", suggestion(name, known_names))


def misplaced(environment: Environment) -> Iterator[Fault]:
    for definition in environment.definitions:
        if definition.name.startswith(SHARED) and definition.scope not in ("all", EXTRA_VARIABLES):
            yield Fault(
                definition.origin,
                f"{definition.name}: is set for {definition.scope} only, but applies to the whole environment",
                f"Set it in {environment.path}/group_vars/all/platform.yml.",
            )


def wired(environment: Environment) -> Iterator[Fault]:
    members = {host.name: host.groups for host in environment.hosts}
    for definition in environment.definitions:
        role = owner(environment, definition.name)
        scope = definition.scope
        groups = members.get(scope, None if scope in ("all", EXTRA_VARIABLES) else ("all", scope))
        if role is None or not role.is_wired(definition.name, groups):
            continue
        if scope == EXTRA_VARIABLES:
            problem = f"{definition.name}: would replace on every host what playbooks/{role.name}.yml sets"
        else:
            problem = f"{definition.name}: has no effect here, because playbooks/{role.name}.yml sets it"
        yield Fault(definition.origin, problem, "Remove it.")


def values(environment: Environment) -> Iterator[Fault]:
    """A value whose expression uses a faulty one is not reported itself."""
    words = {(definition.name, definition.origin): definition.words for definition in environment.definitions}
    shared = {**environment.platform_options, **environment.run_options}
    found: list[tuple[Setting, list[Fault]]] = []
    for setting in every_setting(environment):
        role = owner(environment, setting.name)
        option = shared.get(setting.name) or (role.options.get(setting.name) if role is not None else None)
        if option is not None and not setting.error:
            found.append((setting, list(value_faults(setting, option))))
    faulty = {setting.name for setting, faults_found in found if faults_found}
    for setting, faults_found in found:
        if not words.get((setting.name, setting.origin), frozenset()) & (faulty - {setting.name}):
            yield from faults_found


def missing(environment: Environment) -> Iterator[Fault]:
    secrets = set(required_secrets(environment))
    origin = Origin(f"{environment.path}/group_vars/all/platform.yml")
    stores = uses_object_storage(environment)
    for name, option in environment.platform_options.items():
        unused = name.startswith("platform_object_storage_") and not stores
        needed = option.get("required") or "default" in option
        if needed and name not in environment.settings and name not in secrets and not unused:
            yield Fault(origin, f"{name}: is not set", f"Add it ({_first_sentence(option)}).", absent=True)
    for role in environment.roles:
        hosts = environment.hosts_of(role)
        for name, option in role.options.items():
            if not option.get("required") or name in secrets:
                continue
            without = [
                host.name for host in hosts if name not in host.settings and not role.is_wired(name, host.groups)
            ]
            if without:
                remedy = f"Add it ({_first_sentence(option)})."
                yield Fault(origin, f"{name}: is not set for {listed(without)}", remedy, absent=True)


def uses_object_storage(environment: Environment) -> bool:
    """Whether something stores backups: a database, a store of our own, or a bucket that is configured."""
    hosts = environment.members("postgresql") or environment.members("object_storage")
    return bool(hosts) or "object_storage_owner_access_key" in environment.settings


def _first_sentence(option: Mapping[str, Any]) -> str:
    description = option.get("description", "")
    text = description[0] if isinstance(description, list) and description else description
    return str(text).split(". ")[0].rstrip(".")


def required_secrets(environment: Environment) -> Iterator[str]:
    """Required secrets: the shared ones, and those of roles that are enabled on a host of this environment."""
    for name, option in environment.platform_options.items():
        if name.startswith(("platform_ca_", "platform_escrow_")) and option.get("required"):
            yield name
    for role in environment.roles:
        if not environment.hosts_of(role):
            continue
        for name, option in role.options.items():
            if option.get("required") and not role.is_wired(name) and SECRET_NAME.search(name):
                yield name
