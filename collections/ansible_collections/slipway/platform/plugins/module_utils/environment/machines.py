"""Hosts, names, groups and quorum."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .model import Environment, Fault, Origin, listed, show, suggestion

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DOMAIN = re.compile(rf"({LABEL.pattern}\.)+[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?")
USER = re.compile(r"[a-z_][-a-z0-9_]{0,30}")
ENVIRONMENT = re.compile(r"[a-z][a-z0-9]{0,15}")
SPREAD_LIMIT = 10
"""Most servers in one placement group at Hetzner."""


def faults(environment: Environment) -> Iterator[Fault]:
    yield from environment_name(environment)
    yield from host_names(environment)
    yield from groups(environment)
    yield from quorum(environment)
    yield from machine_inputs(environment)
    yield from domains(environment)


def environment_name(environment: Environment) -> Iterator[Fault]:
    name = environment.text("platform_environment")
    if not name:
        return
    if not ENVIRONMENT.fullmatch(name):
        yield environment.fault(
            "platform_environment",
            f"platform_environment is {show(name)}; use 1 to 16 lower-case letters and digits, a letter first "
            "(it is part of every server's name and label).",
        )
    elif name != environment.folder:
        yield environment.fault(
            "platform_environment",
            f"platform_environment is {show(name)}, but the inventory's folder is {show(environment.folder)}; "
            "make them the same, or a run meant for one environment would change the other.",
        )


def host_names(environment: Environment) -> Iterator[Fault]:
    prefix = f"{environment.folder}-"
    for host in environment.hosts:
        if not LABEL.fullmatch(host.name):
            yield Fault(
                host.origin,
                f"host {host.name} is no valid server name; use at most 63 lower-case letters, digits, inner dashes.",
            )
        elif not host.name.startswith(prefix):
            yield Fault(
                host.origin,
                f"host {host.name} does not begin with {prefix}; rename it.",
            )


def groups(environment: Environment) -> Iterator[Fault]:
    services = environment.known_groups - {"all", "ungrouped", "localhost"}
    for group, origin in environment.group_origins.items():
        if group not in environment.known_groups and not any(
            services & set(host.groups) for host in environment.members(group)
        ):
            hint = suggestion(group, services)
            ending = "" if hint.endswith("?") else "."
            yield Fault(origin, f"group {group} is used by no play; {hint}{ending}")
    known = {*environment.group_origins, *(host.name for host in environment.hosts), "all"}
    for scope, origin in {definition.scope: definition.origin for definition in environment.definitions}.items():
        if scope not in known:
            hint = suggestion(scope, known)
            ending = "" if hint.endswith("?") else "."
            yield Fault(Origin(origin.file), f"{scope} is no group of this inventory; {hint}{ending}")
    for host in environment.hosts:
        if not services & set(host.groups) and all(group in environment.known_groups for group in host.groups):
            yield Fault(
                host.origin, f"host {host.name} is in no service's group; add it to one of {listed(sorted(services))}."
            )


def quorum(environment: Environment) -> Iterator[Fault]:
    hosts_file = Origin(f"{environment.path}/hosts.yml")
    servers = environment.members("rke2_server")
    if not servers:
        yield Fault(
            hosts_file, "group rke2_server has no host; name one or three servers (three survive the loss of one)."
        )
    elif len(servers) % 2 == 0:
        yield Fault(
            environment.group_origins.get("rke2_server", hosts_file),
            f"group rke2_server has {len(servers)} hosts; make it {len(servers) - 1} or {len(servers) + 1}, because "
            f"etcd with {len(servers)} members survives no more losses than with {len(servers) - 1}.",
        )
    balancers = environment.members("load_balancer")
    if len(balancers) != 1:
        yield Fault(
            environment.group_origins.get("load_balancer", hosts_file),
            f"group load_balancer has {len(balancers) or 'no'} hosts; name exactly one, the fixed address that servers "
            "join through.",
        )


def machine_inputs(environment: Environment) -> Iterator[Fault]:
    """Settings without which creating a machine would fail halfway."""
    spread: dict[str, int] = {}
    for host in environment.hosts:
        if not environment.known_groups & set(host.groups) - {"all", "ungrouped"}:
            continue
        group = next((name for name in host.groups if name not in ("all", "ungrouped", "hcloud")), "all")
        file = environment.group_origins.get(group, Origin(f"{environment.path}/hosts.yml"))
        for name, what in (
            ("provision_server_types", "the server types to try, in order"),
            ("provision_image", "the system image, for example debian-13"),
        ):
            if name not in host.settings:
                yield Fault(file, f"{name} is not set for the hosts of {group}; add it ({what}).")
        types = host.settings.get("provision_server_types")
        if types is not None and types.value == []:
            yield Fault(types.origin, "provision_server_types is empty; name at least one server type.")
        group_setting = host.settings.get("provision_placement_group")
        if group_setting is not None and isinstance(group_setting.value, str) and group_setting.value:
            spread[group_setting.value] = spread.get(group_setting.value, 0) + 1
            if not LABEL.fullmatch(group_setting.value):
                yield Fault(
                    group_setting.origin,
                    f"provision_placement_group is {show(group_setting.value)}; use lower-case letters and digits.",
                )
            if spread[group_setting.value] == SPREAD_LIMIT + 1:
                yield Fault(
                    group_setting.origin,
                    f"placement group {group_setting.value} would have more than {SPREAD_LIMIT} hosts, which Hetzner "
                    "rejects; give some of them another provision_placement_group.",
                )
        yield from volumes(environment, host.name)


def volumes(environment: Environment, name: str) -> Iterator[Fault]:
    host = next(host for host in environment.hosts if host.name == name)
    setting = host.settings.get("provision_volumes")
    if setting is None or not isinstance(setting.value, list):
        return
    seen: set[str] = set()
    for volume in setting.value:
        if not isinstance(volume, dict) or not isinstance(volume.get("name"), str):
            continue
        size = volume.get("size_gb")
        if isinstance(size, int) and not 10 <= size <= 10240:
            yield Fault(
                setting.origin,
                f"volume {volume['name']} in provision_volumes has {size} GB; Hetzner's volumes have 10 to 10240.",
            )
        if not LABEL.fullmatch(volume["name"]) or len(f"{name}-{volume['name']}") > 64:
            yield Fault(
                setting.origin,
                f"volume {show(volume['name'])} in provision_volumes has no usable name; use lower-case letters, "
                "digits and dashes, at most 64 characters together with the server's name.",
            )
        if volume["name"] in seen:
            yield Fault(
                setting.origin, f"provision_volumes names {volume['name']} twice; give each volume its own name."
            )
        seen.add(volume["name"])


def domains(environment: Environment) -> Iterator[Fault]:
    wrong = ""
    for name in ("platform_domain", "platform_api_name"):
        value = environment.text(name)
        if value and not DOMAIN.fullmatch(value) and not (wrong and value.endswith(f".{wrong}")):
            wrong = wrong or value  # names within a wrong domain are no faults of their own
            yield environment.fault(
                name, f"{name} is {show(value)}; write a domain name, for example apps.example.com."
            )
    for value in environment.texts("platform_ingress_names"):
        if not (wrong and value.endswith(f".{wrong}")) and not DOMAIN.fullmatch(value.removeprefix("*.")):
            yield environment.fault(
                "platform_ingress_names",
                f"platform_ingress_names holds {show(value)}; write domain names, with * only as the whole first part.",
            )
    user = environment.text("platform_admin_user")
    if user and (not USER.fullmatch(user) or user == "root"):
        yield environment.fault(
            "platform_admin_user",
            f"platform_admin_user is {show(user)}; name an ordinary user (lower-case letters, digits), not root.",
        )
