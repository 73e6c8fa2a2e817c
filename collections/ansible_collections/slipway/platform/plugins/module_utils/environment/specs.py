"""Every variable of the inventory against the argument specs of the roles and of check.meta.yml."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .model import SECRET_NAME, Environment, Fault, Origin, Role, Setting, listed, show, suggestion
from .renamed import RENAMED

SHARED = "platform_"
FOREIGN = ("ansible_", "hcloud_")
"""Prefixes of Ansible and of the dynamic inventory."""

# Holds what create_secrets generates; it is encrypted, so faults name the file without a line.
SECRETS_FILE = "group_vars/all/vault.yml"


def faults(environment: Environment) -> Iterator[Fault]:
    yield from environment.unreadable
    yield from unresolved(environment)
    yield from duplicates(environment)
    yield from unknown(environment)
    yield from misplaced(environment)
    yield from wired(environment)
    yield from shared_values(environment)
    yield from role_values(environment)
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
    """The role whose prefix a variable carries; the longest name wins."""
    owners = [role for role in environment.roles if name.startswith(f"{role.name}_")]
    return max(owners, key=lambda role: len(role.name), default=None)


def unresolved(environment: Environment) -> Iterator[Fault]:
    """Only the root cause: a value that uses a broken or missing one is not reported itself."""
    broken = [setting for setting in every_setting(environment) if setting.error]
    needed = {name for name, option in environment.platform_options.items() if option.get("required")}
    culprits = {setting.name for setting in broken} | (needed | {*required_secrets(environment)}) - {
        *environment.settings
    }
    words = {(definition.name, definition.origin): definition.words for definition in environment.definitions}
    for setting in broken:
        if not words.get((setting.name, setting.origin), frozenset()) & (culprits - {setting.name}):
            yield Fault(setting.origin, f"{setting.name} cannot be resolved ({setting.error}); correct its expression.")


def duplicates(environment: Environment) -> Iterator[Fault]:
    origins_by_name: dict[tuple[str, str], list[Origin]] = defaultdict(list)
    for definition in environment.definitions:
        origins_by_name[definition.name, definition.scope].append(definition.origin)
    for (name, scope), origins in origins_by_name.items():
        for origin in sorted(origins)[1:]:
            yield Fault(origin, f"{name} is set for {scope} in {sorted(origins)[0]} already; keep one of the two.")


def unknown(environment: Environment) -> Iterator[Fault]:
    known_names = set(environment.platform_options)
    for role in environment.roles:
        known_names |= set(role.options)
    for definition in environment.definitions:
        name, origin = definition.name, definition.origin
        if name.startswith(FOREIGN) or name in known_names:
            continue
        owning_role = owner(environment, name)
        if name in RENAMED:
            yield Fault(origin, f"{name} is no longer known; rename it to {RENAMED[name]}.")
        elif name.startswith(SHARED):
            hint = suggestion(name, environment.platform_options)
            yield Fault(origin, f"{name} is no shared value of the platform; {hint}{_ending(hint)}")
        elif owning_role is not None:
            hint = suggestion(name, owning_role.options)
            yield Fault(origin, f"{name} is no input of the role {owning_role.name}; {hint}{_ending(hint)}")
        elif name not in environment.words:
            hint = suggestion(name, known_names)
            yield Fault(origin, f"{name} is read by nothing; {hint}{_ending(hint)}")


def _ending(hint: str) -> str:
    return "" if hint.endswith("?") else "."


def misplaced(environment: Environment) -> Iterator[Fault]:
    for definition in environment.definitions:
        if definition.name.startswith(SHARED) and definition.scope != "all":
            yield Fault(
                definition.origin,
                f"{definition.name} is set for {definition.scope} only, but applies to the whole environment; "
                f"set it in {environment.path}/group_vars/all/platform.yml.",
            )


def wired(environment: Environment) -> Iterator[Fault]:
    for role in environment.roles:
        for definition in environment.definitions:
            if definition.name in role.wired:
                yield Fault(
                    definition.origin,
                    f"{definition.name} has no effect here, because playbooks/{role.name}.yml sets it; remove it.",
                )


def shared_values(environment: Environment) -> Iterator[Fault]:
    for name, option in environment.platform_options.items():
        setting = environment.settings.get(name)
        if setting is not None and not setting.error:
            yield from value_faults(setting, option)


def role_values(environment: Environment) -> Iterator[Fault]:
    for setting in every_setting(environment):
        role = owner(environment, setting.name)
        if role is not None and setting.name in role.options and not setting.error:
            yield from value_faults(setting, role.options[setting.name])


def value_faults(setting: Setting, option: Mapping[str, Any]) -> Iterator[Fault]:
    """Type, choices and nested keys of one value."""
    name, value, kind = setting.name, setting.value, option.get("type", "str")
    if value is None:
        if option.get("required") or "default" in option:
            yield Fault(setting.origin, f"{name} is empty; give it a value or remove the line.")
        return
    choices = option.get("choices")
    if choices and value not in choices:
        closest = suggestion(str(value), map(str, choices))
        hint = f" ({closest})" if closest.endswith("?") else ""
        yield Fault(setting.origin, f"{name} is {show(value, name)}; choose one of {listed(choices)}{hint}.")
        return
    if kind in ("list", "dict") and not isinstance(value, list if kind == "list" else dict):
        yield Fault(setting.origin, f"{name} is {show(value, name)}; write it as a {kind}.")
        return
    if kind == "str" and isinstance(value, list | dict):
        yield Fault(setting.origin, f"{name} is {show(value, name)}; write it as one string.")
        return
    stripped = {key: part for key, part in option.items() if key not in ("required", "default")}
    result = ArgumentSpecValidator({name: stripped}).validate({name: value})
    for message in result.error_messages:
        # Ansible's message contains the value, which must not appear for a secret.
        problem = f"is not of the type {kind}" if SECRET_NAME.search(name) else f"is {show(value, name)}: {message}"
        yield Fault(setting.origin, f"{name} {problem}; correct it as `ansible-doc -t role` describes.")


def missing(environment: Environment) -> Iterator[Fault]:
    secrets = set(required_secrets(environment))
    for name, option in environment.platform_options.items():
        if option.get("required") and name not in environment.settings and name not in secrets:
            yield Fault(
                Origin(f"{environment.path}/group_vars/all/platform.yml"),
                f"{name} is not set; add it ({_first_sentence(option)}).",
            )
    for role in environment.roles:
        hosts = [host for host in environment.hosts if role.groups & set(host.groups)]
        for name, option in role.options.items():
            if not option.get("required") or name in role.wired or name in secrets:
                continue
            without = [host.name for host in hosts if name not in host.settings]
            if without:
                yield Fault(
                    Origin(f"{environment.path}/group_vars/all/platform.yml"),
                    f"{name} is not set for {listed(without)}; add it ({_first_sentence(option)}).",
                )


def _first_sentence(option: Mapping[str, Any]) -> str:
    description = option.get("description", "")
    text = description[0] if isinstance(description, list) and description else description
    return str(text).split(". ")[0].rstrip(".")


def required_secrets(environment: Environment) -> Iterator[str]:
    """Required secrets: the shared ones, and those of roles that have hosts in this environment."""
    for name, option in environment.platform_options.items():
        if name.startswith(("platform_ca_", "platform_escrow_")) and option.get("required"):
            yield name
    for role in environment.roles:
        if not any(role.groups & set(host.groups) for host in environment.hosts):
            continue
        for name, option in role.options.items():
            if option.get("required") and name not in role.wired and SECRET_NAME.search(name):
                yield name
