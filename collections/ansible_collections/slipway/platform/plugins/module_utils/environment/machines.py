"""Hosts, names, groups and quorum."""

from __future__ import annotations

from collections.abc import Iterator

from .formats import LABEL
from .model import EXTRA_VARIABLES, Environment, Fault, Host, Origin, listed, show, suggestion

LONGEST_NAME = 64
"""Of a volume at Hetzner, which begins with the server's name."""
SPREAD_LIMIT = 10
"""Most servers in one placement group at Hetzner."""


def faults(environment: Environment) -> Iterator[Fault]:
    yield from environment_name(environment)
    yield from host_names(environment)
    yield from groups(environment)
    yield from quorum(environment)
    yield from machine_inputs(environment)


def environment_name(environment: Environment) -> Iterator[Fault]:
    name = environment.text("platform_environment")
    if name and name != environment.folder:
        yield environment.fault(
            "platform_environment",
            f"platform_environment: {show(name)} is not the name of the inventory's folder, {show(environment.folder)}",
            "Make them the same, or a run meant for one environment would change the other.",
        )


def host_names(environment: Environment) -> Iterator[Fault]:
    prefix = f"{environment.folder}-"
    for host in environment.hosts:
        if not LABEL.fullmatch(host.name):
            yield Fault(
                host.origin,
                f"host {host.name}: is no valid server name",
                "Use at most 63 lower-case letters, digits, inner dashes.",
            )
        elif not host.name.startswith(prefix):
            yield Fault(
                host.origin,
                f"host {host.name}: does not begin with {prefix}",
                "Rename it.",
            )


def groups(environment: Environment) -> Iterator[Fault]:
    services = environment.known_groups - {"all", "ungrouped", "localhost"}
    for group, origin in environment.group_origins.items():
        if group not in environment.known_groups and not any(
            services & set(host.groups) for host in environment.members(group)
        ):
            yield Fault(origin, f"group {group}: is used by no play", suggestion(group, services))
    known = {
        *environment.group_origins,
        *(host.name for host in environment.hosts),
        "all",
        "ungrouped",
        EXTRA_VARIABLES,
    }
    for scope, origin in {definition.scope: definition.origin for definition in environment.definitions}.items():
        if scope not in known:
            yield Fault(Origin(origin.file), f"{scope}: is no group of this inventory", suggestion(scope, known))
    for host in environment.hosts:
        if not services & set(host.groups) and all(group in environment.known_groups for group in host.groups):
            yield Fault(
                host.origin,
                f"host {host.name}: is in no service's group",
                f"Add it to one of {listed(sorted(services))}.",
            )


def quorum(environment: Environment) -> Iterator[Fault]:
    hosts_file = Origin(f"{environment.path}/hosts.yml")
    servers = environment.members("rke2_server")
    if not servers:
        yield Fault(
            hosts_file, "group rke2_server: has no host", "Name one or three servers (three survive the loss of one)."
        )
    elif len(servers) % 2 == 0:
        yield Fault(
            environment.group_origins.get("rke2_server", hosts_file),
            f"group rke2_server: has {len(servers)} hosts",
            f"Make it {len(servers) - 1} or {len(servers) + 1}, because etcd with {len(servers)} members "
            f"survives no more losses than with {len(servers) - 1}.",
        )
    balancers = environment.members("load_balancer")
    if len(balancers) != 1:
        yield Fault(
            environment.group_origins.get("load_balancer", hosts_file),
            f"group load_balancer: has {len(balancers) or 'no'} hosts",
            "Name exactly one, the fixed address that servers join through.",
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
                yield Fault(file, f"{name}: is not set for the hosts of {group}", f"Add it ({what}).", absent=True)
        group_setting = host.settings.get("provision_placement_group")
        if group_setting is not None and isinstance(group_setting.value, str) and group_setting.value:
            spread[group_setting.value] = spread.get(group_setting.value, 0) + 1
            if spread[group_setting.value] == SPREAD_LIMIT + 1:
                yield Fault(
                    group_setting.origin,
                    f"placement group {group_setting.value} would have more than {SPREAD_LIMIT} hosts, which "
                    "Hetzner rejects",
                    "Give some of them another provision_placement_group.",
                )
        yield from volumes(host)


def volumes(host: Host) -> Iterator[Fault]:
    setting = host.settings.get("provision_volumes")
    if setting is None or not isinstance(setting.value, list):
        return
    for volume in setting.value:
        name = volume.get("name") if isinstance(volume, dict) else None
        if isinstance(name, str) and len(f"{host.name}-{name}") > LONGEST_NAME:
            yield Fault(
                setting.origin,
                f"provision_volumes: {show(name)} and the name of {host.name} have more than {LONGEST_NAME} characters",
                "Shorten one of them.",
            )
