"""Checks against the cloud API: locations, images, server types, stock and the project's limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from .model import Environment, Fault, Host, Setting, listed, suggestion

Json = dict[str, Any]

COLLECTIONS = ("locations", "server_types", "images", "servers", "volumes")
"""Collections of the API that these checks read."""

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
            "platform_network_zone",
            f"platform_network_zone: {zone} does not exist",
            f"Choose one of {listed(sorted(zones))}.",
        )
    for location in environment.texts(name):
        if location not in known:
            hint = suggestion(location, known)
            remedy = hint if hint.endswith("?") else f"Choose from {listed(known)}."
            yield environment.fault(name, f"{name}: {location} does not exist at Hetzner", remedy)
        elif zone in zones and known[location]["network_zone"] != zone:
            yield environment.fault(
                name,
                f"{name}: {location} lies in {known[location]['network_zone']} and not in platform_network_zone {zone}",
                "A private network cannot reach there.",
            )


def images(environment: Environment, cloud: Mapping[str, list[Json]]) -> Iterator[Fault]:
    known = {image["name"] for image in cloud["images"] if image.get("architecture", ARCHITECTURE) == ARCHITECTURE}
    existing_images = {server["name"]: (server.get("image") or {}).get("name") for server in cloud["servers"]}
    for setting in _settings(environment, "provision_image"):
        # A withdrawn image stays valid for servers that were created from it.
        if all(existing_images.get(host.name) == setting.value for host in _hosts_with(environment, setting)):
            continue
        if isinstance(setting.value, str) and setting.value not in known:
            yield Fault(
                setting.origin,
                f"provision_image: {setting.value} is not offered by the cloud for {ARCHITECTURE}",
                "Choose another one.",
            )


def server_types(environment: Environment, cloud: Mapping[str, list[Json]], now: datetime) -> Iterator[Fault]:
    known = {server_type["name"]: server_type for server_type in cloud["server_types"]}
    existing_types = {server["name"]: server["server_type"]["name"] for server in cloud["servers"]}
    wanted_locations = environment.texts("platform_locations")
    for setting in _settings(environment, "provision_server_types"):
        if not isinstance(setting.value, list):
            continue
        # A withdrawn type stays valid for servers that already have it.
        current_types = {existing_types.get(host.name) for host in _hosts_with(environment, setting)}
        names = [name for name in setting.value if isinstance(name, str)]
        for name in names:
            if name not in known and name not in current_types:
                hint = suggestion(name, known)
                remedy = hint if hint.endswith("?") else "See `hcloud server-type list`."
                yield Fault(setting.origin, f"provision_server_types: {name} does not exist at Hetzner", remedy)
            elif name in known and known[name]["architecture"] != ARCHITECTURE:
                yield Fault(
                    setting.origin,
                    f"provision_server_types: {name} is {known[name]['architecture']}",
                    f"The platform is built for {ARCHITECTURE}, so choose such a type.",
                )
        usable = [name for name in names if name in known and known[name]["architecture"] == ARCHITECTURE]
        sold = {name: [at for at in wanted_locations if _sold(known[name], at, now)] for name in usable}
        new_hosts = [host.name for host in _hosts_with(environment, setting) if host.name not in existing_types]
        for name in usable:
            needed = name not in current_types or (new_hosts and not any(sold.values()))
            if not sold[name] and wanted_locations and needed:
                yield Fault(
                    setting.origin,
                    f"provision_server_types: {name} is not sold in {listed(wanted_locations)} "
                    f"(sold in {listed(_sold_at(known[name], now))})",
                    "Choose another type or add such a location.",
                )
        if (
            new_hosts
            and any(sold.values())
            and not any(_available(known[name], at) for name in usable for at in sold[name])
        ):
            yield Fault(
                setting.origin,
                f"{listed(new_hosts)} cannot be created now: {listed(name for name in usable if sold[name])} "
                f"is sold out in {listed(wanted_locations)}",
                "Add another type or location, or run again later.",
            )


def quota(environment: Environment, cloud: Mapping[str, list[Json]]) -> Iterator[Fault]:
    """The API does not return a project's limits, so they are compared only where the inventory declares them."""
    existing = {server["name"] for server in cloud["servers"]}
    new_hosts = [
        host for host in environment.hosts if host.name not in existing and "provision_private_ip" in host.settings
    ]
    limit = environment.value("check_servers_limit")
    if isinstance(limit, int) and len(existing) + len(new_hosts) > limit:
        yield environment.fault(
            "check_servers_limit",
            f"the project has {len(existing)} servers and needs {len(new_hosts)} more, but its limit is "
            f"{limit} (check_servers_limit)",
            "Ask Hetzner for a higher one, or remove servers.",
        )
    existing_volumes = {volume["name"] for volume in cloud["volumes"]}
    new_volumes_gb = 0
    for host in environment.hosts:
        setting = host.settings.get("provision_volumes")
        for volume in setting.value if setting is not None and isinstance(setting.value, list) else ():
            if isinstance(volume, dict) and f"{host.name}-{volume.get('name')}" not in existing_volumes:
                new_volumes_gb += volume["size_gb"] if isinstance(volume.get("size_gb"), int) else 0
    limit = environment.value("check_volumes_limit_gb")
    existing_volumes_gb = sum(volume["size"] for volume in cloud["volumes"])
    if isinstance(limit, int) and existing_volumes_gb + new_volumes_gb > limit:
        yield environment.fault(
            "check_volumes_limit_gb",
            f"the project's volumes have {existing_volumes_gb} GB and need {new_volumes_gb} more, but their "
            f"limit is {limit} (check_volumes_limit_gb)",
            "Ask Hetzner for a higher one, or remove volumes.",
        )


def _settings(environment: Environment, name: str) -> Iterator[Setting]:
    seen = set()
    for host in environment.hosts:
        setting = host.settings.get(name)
        if setting is not None and not setting.error and (key := (setting.origin, repr(setting.value))) not in seen:
            seen.add(key)
            yield setting


def _hosts_with(environment: Environment, setting: Setting) -> Iterator[Host]:
    """Hosts that get this value from this origin."""
    for host in environment.hosts:
        found = host.settings.get(setting.name)
        if found is not None and found.origin == setting.origin and found.value == setting.value:
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
