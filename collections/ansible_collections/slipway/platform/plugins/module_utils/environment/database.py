"""Databases, their roles and who may come."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_network
from typing import Any

from ..postgresql import ACCESS, NAME, RESERVED_DATABASES, RESERVED_ROLES, group_of
from .model import Environment, Fault, Host, Place, listed, show
from .secrets import FEWEST_DIFFERENT, SHORTEST_SECRET
from .specs import SECRETS_FILE

GROUP = "postgresql"
VOLUME = "data"
DISTRO_VERSIONS = {"debian-12": "15", "debian-13": "17"}


def faults(environment: Environment) -> Iterator[Fault]:
    hosts = environment.members(GROUP)
    if not hosts:
        return
    yield from standbys(environment, hosts)
    yield from volume(environment, hosts)
    yield from version(environment, hosts)
    yield from renewal(environment)
    databases = entries(environment, "postgresql_databases")
    roles = entries(environment, "postgresql_roles")
    yield from names(environment, databases, roles)
    yield from ranges(environment, roles)
    yield from passwords(environment, roles)


def standbys(environment: Environment, hosts: list[Host]) -> Iterator[Fault]:
    """One host takes the writes, the others follow it."""
    place = environment.group_places.get(GROUP, hosts[-1].place)
    following = [
        host.name
        for host in hosts
        if (setting := host.settings.get("postgresql_standby")) is not None and setting.value is True
    ]
    leading = [host.name for host in hosts if host.name not in following]
    if len(leading) != 1:
        yield Fault(
            place,
            f"group {GROUP} has {len(hosts)} hosts, and {listed(leading) if leading else 'none'} of them would take "
            "the writes; give postgresql_standby: true to all but one, because two would be two databases that know "
            "nothing of each other.",
        )
    if following and not environment.settings.get("postgresql_standby_password"):
        yield Fault(
            Place(f"{environment.path}/{SECRETS_FILE}"),
            f"postgresql_standby_password is missing, by which {listed(following)} would follow; make it with "
            f"ansible-playbook playbooks/operations/create_secrets.yml -i {environment.path}.",
        )
    if not following and environment.tuned(GROUP, "postgresql_synchronous") is True:
        yield Fault(
            environment.tuned_place(GROUP, "postgresql_synchronous"),
            f"postgresql_synchronous is true, but group {GROUP} has no host with postgresql_standby: true; name one, "
            "or nothing is waited for.",
        )


def entries(environment: Environment, name: str) -> list[dict[str, Any]]:
    """The entries of a list that have a name; what has none is a fault of its type."""
    value = environment.tuned(GROUP, name)
    return [entry for entry in value or () if isinstance(entry, dict) and isinstance(entry.get("name"), str)]


def volume(environment: Environment, hosts: list[Host]) -> Iterator[Fault]:
    for host in hosts:
        setting = host.settings.get("provision_volumes")
        value = setting.value if setting is not None else None
        if setting is not None and (setting.error or not isinstance(value, list)):
            continue
        if not any(isinstance(entry, dict) and entry.get("name") == VOLUME for entry in value or ()):
            yield Fault(
                setting.place if setting else Place(f"{environment.path}/hosts.yml"),
                f"host {host.name} has no volume called {VOLUME} in provision_volumes; its data must outlive the "
                "server.",
            )


def version(environment: Environment, hosts: list[Host]) -> Iterator[Fault]:
    if environment.tuned(GROUP, "postgresql_source") != "distro":
        return
    wanted = environment.tuned(GROUP, "postgresql_version")
    for image in {str(host.settings["provision_image"].value) for host in hosts if "provision_image" in host.settings}:
        there = DISTRO_VERSIONS.get(image)
        if there is not None and wanted != there:
            yield Fault(
                environment.tuned_place(GROUP, "postgresql_version", "postgresql_source"),
                f"postgresql_version is {show(wanted)}, but {image} itself has {there}; set that, or postgresql_source "
                "to pgdg.",
            )


def renewal(environment: Environment) -> Iterator[Fault]:
    renew, valid = "postgresql_certificate_renew_days", "postgresql_certificate_valid_days"
    before, days = environment.tuned(GROUP, renew), environment.tuned(GROUP, valid)
    if isinstance(before, int) and isinstance(days, int) and before >= days:
        yield Fault(
            environment.tuned_place(GROUP, renew, valid),
            f"{renew} is {before}, but a certificate is valid for {days} days ({valid}); make the first smaller, or "
            "every run renews it.",
        )


def names(environment: Environment, databases: list[Any], roles: list[Any]) -> Iterator[Fault]:
    databases_place = environment.tuned_place(GROUP, "postgresql_databases")
    roles_place = environment.tuned_place(GROUP, "postgresql_roles")
    made = {group_of(entry["name"], access) for entry in databases for access in ACCESS}
    known = {entry["name"] for entry in databases}
    for place, what, reserved, found in (
        (databases_place, "database", set(RESERVED_DATABASES), databases),
        (roles_place, "role", set(RESERVED_ROLES) | made, roles),
    ):
        seen: set[str] = set()
        for entry in found:
            name = entry["name"]
            if not NAME.fullmatch(name) or name.startswith("pg_"):
                yield Fault(
                    place,
                    f"{what} {show(name)} has no usable name; use lower-case letters, digits and underscores, a letter "
                    "first, not pg_ at the beginning, at most 63.",
                )
            elif name in reserved:
                yield Fault(place, f"{what} {name} would be one that the platform itself makes; choose another name.")
            elif name in seen:
                yield Fault(place, f"{what} {name} is declared twice; keep one of the two.")
            seen.add(name)
    for role in roles:
        if role.get("database") not in known:
            yield Fault(
                roles_place,
                f"role {role['name']} is for the database {show(role.get('database'))}, which postgresql_databases "
                f"does not declare; it has {listed(sorted(known))}.",
            )


def ranges(environment: Environment, roles: list[Any]) -> Iterator[Fault]:
    """Only hosts of this environment come: others would be those of another one, or the world."""
    place = environment.tuned_place(GROUP, "postgresql_roles")
    try:
        network = IPv4Network(environment.text("platform_network_cidr"))
    except ValueError:
        return
    for role in roles:
        for text in role.get("cidrs") or ():
            try:
                cidr = ip_network(str(text))
            except ValueError as error:
                yield Fault(
                    place, f"role {role['name']} may come from {show(text)}: {error}; write a range of addresses."
                )
                continue
            if not isinstance(cidr, IPv4Network) or not cidr.subnet_of(network):
                yield Fault(
                    place,
                    f"role {role['name']} may come from {cidr}, which lies outside platform_network_cidr {network}; "
                    "the database serves this environment alone.",
                )


def passwords(environment: Environment, roles: list[Any]) -> Iterator[Fault]:
    setting = environment.settings.get("postgresql_role_passwords")
    if setting is None or setting.error or not isinstance(setting.value, dict):
        return
    missing = sorted({role["name"] for role in roles} - set(setting.value))
    if missing:
        yield Fault(
            Place(f"{environment.path}/{SECRETS_FILE}"),
            f"postgresql_role_passwords has none for {listed(missing)}; make them with ansible-playbook "
            f"playbooks/operations/create_secrets.yml -i {environment.path}.",
        )
    for name, value in setting.value.items():
        text = value if isinstance(value, str) else ""
        if (
            len(text) < SHORTEST_SECRET
            or len(set(text)) < FEWEST_DIFFERENT
            or not (text.isascii() and text.isprintable())
        ):
            yield Fault(
                setting.place,
                f"the password of {name} in postgresql_role_passwords can be guessed or is not of printable ASCII; use "
                f"{SHORTEST_SECRET} random characters or more.",
            )
