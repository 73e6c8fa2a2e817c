"""PostgreSQL: primary and standbys, volume, version, certificate, databases, roles and their passwords."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_network
from typing import Any

from ..postgresql import ACCESS, RESERVED_DATABASES, RESERVED_ROLES, group_of
from .model import Environment, Fault, Host, Origin, listed, show
from .specs import SECRETS_FILE

GROUP = "postgresql"
VOLUME = "data"
CONTAINED = """
adminpack amcheck autoinc bloom btree_gin btree_gist citext cube dblink dict_int dict_xsyn earthdistance file_fdw
fuzzystrmatch hstore insert_username intagg intarray isn lo ltree moddatetime old_snapshot pageinspect pg_buffercache
pg_freespacemap pg_logicalinspect pg_prewarm pg_stat_statements pg_surgery pg_trgm pg_visibility pg_walinspect
pgcrypto pgrowlocks pgstattuple plpgsql postgres_fdw refint seg sslinfo tablefunc tcn tsm_system_rows
tsm_system_time unaccent uuid-ossp xml2
"""
CONTAINED_EXTENSIONS = frozenset(CONTAINED.split())
"""Extensions of Debian's server package, which contains those of PostgreSQL 15 to 18 but for the languages."""
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
    yield from extensions(environment, databases)
    yield from ranges(environment, roles)
    yield from passwords(environment, roles)


def standbys(environment: Environment, hosts: list[Host]) -> Iterator[Fault]:
    """Exactly one host is the primary, all others are standbys."""
    origin = environment.group_origins.get(GROUP, hosts[-1].origin)
    standby_names = [
        host.name
        for host in hosts
        if (setting := host.settings.get("postgresql_standby")) is not None and setting.value is True
    ]
    primary_names = [host.name for host in hosts if host.name not in standby_names]
    if len(primary_names) != 1:
        yield Fault(
            origin,
            f"group {GROUP}: has {len(hosts)} hosts and {len(primary_names)} primaries ({listed(primary_names)})",
            "Set postgresql_standby: true on all hosts but one.",
        )
    if standby_names and not environment.is_set("postgresql_standby_password"):
        yield Fault(
            Origin(f"{environment.path}/{SECRETS_FILE}"),
            f"postgresql_standby_password: is missing, which {listed(standby_names)} needs for replication",
            f"Create it with ansible-playbook playbooks/operations/create_secrets.yml -i {environment.path}.",
            absent=True,
        )
    if not standby_names and environment.group_value(GROUP, "postgresql_synchronous") is True:
        yield Fault(
            environment.group_value_origin(GROUP, "postgresql_synchronous"),
            f"postgresql_synchronous: true, but group {GROUP} has no host with postgresql_standby: true",
            "Declare one, or set it to false.",
        )


def entries(environment: Environment, name: str) -> list[dict[str, Any]]:
    """The entries of a list that have a name; `specs` reports those without."""
    value = environment.group_value(GROUP, name)
    listed_entries = value if isinstance(value, list) else []
    return [entry for entry in listed_entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)]


def volume(environment: Environment, hosts: list[Host]) -> Iterator[Fault]:
    for host in hosts:
        setting = host.settings.get("provision_volumes")
        value = setting.value if setting is not None else None
        if setting is not None and (setting.error or not isinstance(value, list)):
            continue
        if not any(isinstance(entry, dict) and entry.get("name") == VOLUME for entry in value or ()):
            yield Fault(
                setting.origin if setting else Origin(f"{environment.path}/hosts.yml"),
                f"host {host.name}: has no volume called {VOLUME} in provision_volumes",
                "Its data must outlive the server.",
            )


def version(environment: Environment, hosts: list[Host]) -> Iterator[Fault]:
    if environment.group_value(GROUP, "postgresql_source") != "distro":
        return
    wanted = environment.group_value(GROUP, "postgresql_version")
    for image in {str(host.settings["provision_image"].value) for host in hosts if "provision_image" in host.settings}:
        packaged = DISTRO_VERSIONS.get(image)
        if packaged is not None and wanted != packaged:
            yield Fault(
                environment.group_value_origin(GROUP, "postgresql_version", "postgresql_source"),
                f"postgresql_version: {show(wanted)}, but {image} itself has {packaged}",
                "Set that, or postgresql_source to pgdg.",
            )


def extensions(environment: Environment, databases: list[dict[str, Any]]) -> Iterator[Fault]:
    """Extensions that no package contains which the role would install."""
    if environment.group_value(GROUP, "postgresql_extra_packages"):
        return
    for database in databases:
        declared = database.get("extensions")
        for name in declared if isinstance(declared, list) else ():
            if isinstance(name, str) and name not in CONTAINED_EXTENSIONS:
                yield Fault(
                    environment.group_value_origin(GROUP, "postgresql_databases"),
                    f"postgresql_databases: {database['name']} has the extension {show(name)}, which PostgreSQL itself "
                    "does not contain, and postgresql_extra_packages is empty",
                    "Set it to the package of the extension, like postgresql-{{ postgresql_version }}-pgvector.",
                )


def renewal(environment: Environment) -> Iterator[Fault]:
    renew, valid = "postgresql_certificate_renew_days", "postgresql_certificate_valid_days"
    before, days = environment.group_value(GROUP, renew), environment.group_value(GROUP, valid)
    if isinstance(before, int) and isinstance(days, int) and before >= days:
        yield Fault(
            environment.group_value_origin(GROUP, renew, valid),
            f"{renew}: {before}, but a certificate is valid for {days} days ({valid})",
            "Make the first smaller, or every run renews it.",
        )


def names(environment: Environment, databases: list[Any], roles: list[Any]) -> Iterator[Fault]:
    databases_origin = environment.group_value_origin(GROUP, "postgresql_databases")
    roles_origin = environment.group_value_origin(GROUP, "postgresql_roles")
    group_roles = {group_of(entry["name"], access) for entry in databases for access in ACCESS}
    known = {entry["name"] for entry in databases}
    for origin, kind, reserved, declared in (
        (databases_origin, "database", set(RESERVED_DATABASES), databases),
        (roles_origin, "role", set(RESERVED_ROLES) | group_roles, roles),
    ):
        for entry in declared:
            name = entry["name"]
            if name in reserved:
                yield Fault(
                    origin,
                    f"postgresql_{kind}s: {name} is reserved, because the platform itself creates it",
                    "Choose another name.",
                )
    for role in roles:
        if role.get("database") not in known:
            yield Fault(
                roles_origin,
                f"postgresql_roles: {role['name']} is for the database {show(role.get('database'))}, which "
                "postgresql_databases does not declare",
                f"It has {listed(sorted(known))}.",
            )


def ranges(environment: Environment, roles: list[Any]) -> Iterator[Fault]:
    """Roles may connect only from the environment's own network."""
    origin = environment.group_value_origin(GROUP, "postgresql_roles")
    try:
        network = IPv4Network(environment.text("platform_network_cidr"))
    except ValueError:
        return
    for role in roles:
        for text in role["cidrs"] if isinstance(role.get("cidrs"), list) else ():
            try:
                cidr = ip_network(str(text))
            except ValueError:
                continue
            if not isinstance(cidr, IPv4Network) or not cidr.subnet_of(network):
                yield Fault(
                    origin,
                    f"postgresql_roles: {role['name']} may connect from {cidr}, outside of platform_network_cidr "
                    f"{network}",
                    "The database serves this environment alone.",
                )


def passwords(environment: Environment, roles: list[Any]) -> Iterator[Fault]:
    setting = environment.settings.get("postgresql_role_passwords")
    if setting is None or setting.error or not isinstance(setting.value, dict):
        return
    missing = sorted({role["name"] for role in roles} - set(setting.value))
    if missing:
        yield Fault(
            Origin(f"{environment.path}/{SECRETS_FILE}"),
            f"postgresql_role_passwords: has none for {listed(missing)}",
            f"Create them with ansible-playbook playbooks/operations/create_secrets.yml -i {environment.path}.",
            absent=True,
        )
