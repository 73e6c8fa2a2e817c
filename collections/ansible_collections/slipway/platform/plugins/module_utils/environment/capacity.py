"""What only the cloud knows: whether it sells what is wanted, where it is wanted, and enough of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from .model import Environment, Fault, Host, Setting, listed, suggestion

Json = dict[str, Any]

QUESTIONS = ("locations", "server_types", "images", "servers", "volumes")
"""Collections of the API that the checks below look at."""

ARCHITECTURE = "x86"
"""RKE2 is installed for amd64."""


def faults(environment: Environment, cloud: Mapping[str, list[Json]], now: datetime | None = None) -> Iterator[Fault]:
    moment = now or datetime.now(UTC)
    yield from locations(environment, cloud)
    yield from images(environment, cloud)
    yield from server_types(environment, cloud, moment)
    yield from quota(environment, cloud)


def locations(environment: Environment, cloud: Mapping[str, list[Json]]) -> Iterator[Fault]:
    name = "platform_locations"
    known = {location["name"]: location for location in cloud["locations"]}
    zone = environment.text("platform_network_zone")
    zones = {location["network_zone"] for location in known.values()}
    if zone and zone not in zones:
        yield environment.fault(
            "platform_network_zone", f"platform_network_zone is {zone}; choose one of {listed(sorted(zones))}."
        )
    for location in environment.texts(name):
        if location not in known:
            hint = suggestion(location, known)
            close = hint if hint.endswith("?") else f"choose from {listed(known)}."
            yield environment.fault(name, f"{name} holds {location}, which Hetzner does not have; {close}")
        elif zone in zones and known[location]["network_zone"] != zone:
            yield environment.fault(
                name,
                f"{name} holds {location}, which lies in {known[location]['network_zone']} and not in "
                f"platform_network_zone {zone}; a private network cannot reach there.",
            )


def images(environment: Environment, cloud: Mapping[str, list[Json]]) -> Iterator[Fault]:
    known = {image["name"] for image in cloud["images"] if image.get("architecture", ARCHITECTURE) == ARCHITECTURE}
    there = {server["name"]: (server.get("image") or {}).get("name") for server in cloud["servers"]}
    for setting in _settings(environment, "provision_image"):
        # An image that has been withdrawn is right for servers that were made from it.
        if all(there.get(host.name) == setting.value for host in _with(environment, setting)):
            continue
        if isinstance(setting.value, str) and setting.value not in known:
            yield Fault(
                setting.place, f"provision_image is {setting.value}, which the cloud does not offer for {ARCHITECTURE}."
            )


def server_types(environment: Environment, cloud: Mapping[str, list[Json]], now: datetime) -> Iterator[Fault]:
    known = {server_type["name"]: server_type for server_type in cloud["server_types"]}
    there = {server["name"]: server["server_type"]["name"] for server in cloud["servers"]}
    wanted_at = environment.texts("platform_locations")
    for setting in _settings(environment, "provision_server_types"):
        if not isinstance(setting.value, list):
            continue
        # A type no longer sold is right for the servers that are of it: to leave it out would mean to change them.
        worn = {there.get(host.name) for host in _with(environment, setting)}
        names = [name for name in setting.value if isinstance(name, str)]
        for name in names:
            if name not in known and name not in worn:
                hint = suggestion(name, known)
                close = hint if hint.endswith("?") else "look at `hcloud server-type list`."
                yield Fault(setting.place, f"provision_server_types holds {name}, which Hetzner does not have; {close}")
            elif name in known and known[name]["architecture"] != ARCHITECTURE:
                yield Fault(
                    setting.place,
                    f"provision_server_types holds {name}, which is {known[name]['architecture']}; the platform is "
                    f"built for {ARCHITECTURE}, so choose such a type.",
                )
        usable = [name for name in names if name in known and known[name]["architecture"] == ARCHITECTURE]
        sold = {name: [at for at in wanted_at if _sold(known[name], at, now)] for name in usable}
        coming = [host.name for host in _with(environment, setting) if host.name not in there]
        for name in usable:
            needed = name not in worn or (coming and not any(sold.values()))
            if not sold[name] and wanted_at and needed:
                yield Fault(
                    setting.place,
                    f"provision_server_types holds {name}, which is not sold in {listed(wanted_at)} "
                    f"(sold in {listed(_sold_at(known[name], now))}); choose another type or add such a location.",
                )
        if (
            coming
            and any(sold.values())
            and not any(_available(known[name], at) for name in usable for at in sold[name])
        ):
            yield Fault(
                setting.place,
                f"{listed(coming)} cannot be made now: {listed(name for name in usable if sold[name])} is sold out in "
                f"{listed(wanted_at)}; add another type or location, or run again later.",
            )


def quota(environment: Environment, cloud: Mapping[str, list[Json]]) -> Iterator[Fault]:
    """The API does not tell a project's limits; who knows them writes them down."""
    there = {server["name"] for server in cloud["servers"]}
    coming = [host for host in environment.hosts if host.name not in there and "provision_private_ip" in host.settings]
    limit = environment.value("check_servers_limit")
    if isinstance(limit, int) and len(there) + len(coming) > limit:
        yield environment.fault(
            "check_servers_limit",
            f"the project has {len(there)} servers and needs {len(coming)} more, but its limit is {limit} "
            "(check_servers_limit); ask Hetzner for a higher one, or remove servers.",
        )
    volumes_there = {volume["name"] for volume in cloud["volumes"]}
    grows = 0
    for host in environment.hosts:
        setting = host.settings.get("provision_volumes")
        for volume in setting.value if setting is not None and isinstance(setting.value, list) else ():
            if isinstance(volume, dict) and f"{host.name}-{volume.get('name')}" not in volumes_there:
                grows += volume["size_gb"] if isinstance(volume.get("size_gb"), int) else 0
    limit = environment.value("check_volumes_limit_gb")
    total = sum(volume["size"] for volume in cloud["volumes"])
    if isinstance(limit, int) and total + grows > limit:
        yield environment.fault(
            "check_volumes_limit_gb",
            f"the project's volumes have {total} GB and need {grows} more, but their limit is {limit} "
            "(check_volumes_limit_gb); ask Hetzner for a higher one, or remove volumes.",
        )


def _settings(environment: Environment, name: str) -> Iterator[Setting]:
    seen = set()
    for host in environment.hosts:
        setting = host.settings.get(name)
        if setting is not None and not setting.error and (key := (setting.place, repr(setting.value))) not in seen:
            seen.add(key)
            yield setting


def _with(environment: Environment, setting: Setting) -> Iterator[Host]:
    """Hosts that get exactly this value from exactly there."""
    for host in environment.hosts:
        found = host.settings.get(setting.name)
        if found is not None and found.place == setting.place and found.value == setting.value:
            yield host


def _offers(server_type: Json) -> dict[str, Json]:
    return {offer["name"]: offer for offer in server_type["locations"]}


def _sold(server_type: Json, location: str, now: datetime) -> bool:
    offer = _offers(server_type).get(location)
    if offer is None:
        return False
    deprecation = offer.get("deprecation") or server_type.get("deprecation")
    return not (deprecation and datetime.fromisoformat(deprecation["unavailable_after"]) <= now)


def _sold_at(server_type: Json, now: datetime) -> list[str]:
    return [name for name in _offers(server_type) if _sold(server_type, name, now)]


def _available(server_type: Json, location: str) -> bool:
    return bool(_offers(server_type)[location].get("available", True))
