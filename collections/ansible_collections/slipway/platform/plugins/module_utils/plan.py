"""The plan that converges a cloud project with an environment's inventory: pure functions, no API.

`make_plan` returns the changes, the refused changes, and undeclared objects. Nothing is destroyed, moved or stopped
unless it is confirmed by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

Json = dict[str, Any]

ENVIRONMENT_LABEL = "slipway_environment"
GROUP_LABEL = "slipway_group"
OWNER_LABEL = "managed-by"
OWNER = "slipway"

KINDS = ("servers", "volumes", "networks", "firewalls", "placement_groups", "ssh_keys")
"""Kinds of an environment's objects, in the order in which they can be deleted."""

TRANSIENT = frozenset({"initializing", "starting", "stopping", "deleting", "migrating", "rebuilding"})
"""Transitional states of a server, in which the API rejects actions."""

ALLOW_REPLACE = "op_provision_allow_replace"
ALLOW_RESTART = "op_provision_allow_restart"


@dataclass(frozen=True)
class Volume:
    name: str
    size_gb: int


@dataclass(frozen=True)
class Machine:
    """A server as the inventory declares it."""

    name: str
    group: str
    private_ip: str
    server_types: tuple[str, ...]
    image: str
    volumes: tuple[Volume, ...] = ()
    placement_group: str = ""
    groups: tuple[str, ...] = ()
    """All groups of the server, if it is in several; `group` is the main one."""


@dataclass(frozen=True)
class Opening:
    """An opening of the public firewalls, for one group of machines or (group empty) for all."""

    name: str
    protocol: str
    sources: tuple[str, ...]
    port: str | None = None
    group: str = ""


@dataclass(frozen=True)
class Desired:
    environment: str
    network_cidr: str
    subnet_cidr: str
    network_zone: str
    locations: tuple[str, ...]
    public_keys: tuple[str, ...]
    machines: tuple[Machine, ...]
    openings: tuple[Opening, ...] = ()

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Desired:
        """From the validated arguments of `slipway.platform.cloud_plan`."""
        return cls(
            environment=parameters["environment"],
            network_cidr=parameters["network_cidr"],
            subnet_cidr=parameters["subnet_cidr"],
            network_zone=parameters["network_zone"],
            locations=tuple(parameters["locations"]),
            public_keys=tuple(parameters["public_keys"]),
            machines=tuple(
                Machine(
                    name=machine["name"],
                    group=machine["group"],
                    private_ip=machine["private_ip"],
                    server_types=tuple(machine["server_types"]),
                    image=machine["image"],
                    volumes=tuple(Volume(volume["name"], volume["size_gb"]) for volume in machine["volumes"] or ()),
                    placement_group=machine["placement_group"] or "",
                    groups=tuple(machine["groups"] or ()),
                )
                for machine in parameters["machines"]
            ),
            openings=tuple(
                Opening(
                    name=opening["name"],
                    protocol=opening["protocol"],
                    port=opening["port"],
                    sources=tuple(opening["sources"]),
                    group=opening["group"] or "",
                )
                for opening in parameters["openings"] or ()
            ),
        )


@dataclass
class ServerPlan:
    """The changes of one server. Empty lists and False where there is none."""

    name: str
    group: str
    create: bool = False
    candidates: list[Json] = field(default_factory=list)
    """`server_type` and `location`, in order of preference."""
    labels: Json = field(default_factory=dict)
    firewalls: list[str] = field(default_factory=list)
    placement_group: str = ""
    image: str = ""
    private_ip: str = ""
    update_labels: bool = False
    update_firewalls: bool = False
    stop: bool = False
    """Whether it must be stopped for `resize_to` or `update_placement_group`."""
    resize_to: str = ""
    update_placement_group: bool = False
    attach: bool = False
    volumes: list[Json] = field(default_factory=list)
    """Volumes to create, attach or grow: `name`, `size_gb`."""
    start: bool = False

    @property
    def changes(self) -> list[str]:
        candidates: list[tuple[bool, str]] = [
            (self.create, f"create server {self.name}"),
            (self.update_labels, f"update the labels of server {self.name}"),
            (self.update_firewalls, f"apply firewall {', '.join(self.firewalls)} to server {self.name}"),
            (bool(self.resize_to), f"stop server {self.name} and resize it to {self.resize_to}"),
            (
                self.update_placement_group,
                f"stop server {self.name} and move it to placement group {self.placement_group}",
            ),
            (self.attach, f"attach server {self.name} to the private network at {self.private_ip}"),
            *((True, f"provision volume {v['name']} ({v['size_gb']} GB) of server {self.name}") for v in self.volumes),
            (self.start, f"start server {self.name}"),
        ]
        return [sentence for planned, sentence in candidates if planned]


@dataclass
class Plan:
    delete_servers: list[str] = field(default_factory=list)
    delete_volumes: list[str] = field(default_factory=list)
    delete_networks: list[str] = field(default_factory=list)
    network: str = ""
    create_network: bool = False
    create_subnet: bool = False
    network_labels: Json = field(default_factory=dict)
    ssh_keys: list[Json] = field(default_factory=list)
    """Keys to register: `name`, `public_key`."""
    ssh_key_names: list[str] = field(default_factory=list)
    """Registered keys that a new server gets."""
    firewalls: list[Json] = field(default_factory=list)
    """Firewalls to create or to update: `name`, `group`, `rules`, `labels`."""
    placement_groups: list[Json] = field(default_factory=list)
    servers: dict[str, ServerPlan] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    undeclared: list[str] = field(default_factory=list)

    @property
    def shared_changes(self) -> list[str]:
        changes = [
            *(f"delete server {name}" for name in self.delete_servers),
            *(f"delete volume {name} and its data" for name in self.delete_volumes),
            *(f"delete network {name}" for name in self.delete_networks),
            *(f"register SSH key {key['name']}" for key in self.ssh_keys),
        ]
        if self.create_network:
            changes.append(f"create network {self.network}")
        if self.create_subnet:
            changes.append(f"create the subnet of network {self.network}")
        changes += [f"set firewall {firewall['name']}" for firewall in self.firewalls]
        changes += [f"create placement group {group['name']}" for group in self.placement_groups]
        return changes

    @property
    def changes(self) -> list[str]:
        return self.shared_changes + [change for name in sorted(self.servers) for change in self.servers[name].changes]


def owned(thing: Mapping[str, Any], environment: str) -> bool:
    """Whether an object belongs to the environment, by its owner label alone."""
    return (thing.get("labels") or {}).get(ENVIRONMENT_LABEL) == environment


def labels(environment: str, group: str = "") -> Json:
    owner_labels = {ENVIRONMENT_LABEL: environment, OWNER_LABEL: OWNER}
    return owner_labels | {GROUP_LABEL: group} if group else owner_labels


def make_plan(
    desired: Desired,
    current: Mapping[str, list[Json]],
    *,
    allow_replace: Iterable[str] = (),
    allow_restart: Iterable[str] = (),
    hosts: Iterable[str] | None = None,
) -> Plan:
    """Compare `desired` with `current`, the complete project: all KINDS and `server_types`, as the API returns them.

    `hosts` are the machines that this run may change. Default: all.
    """
    return _Planner(
        desired,
        current,
        frozenset(allow_replace),
        frozenset(allow_restart),
        frozenset(machine.name for machine in desired.machines) if hosts is None else frozenset(hosts),
    ).run()


class _Planner:
    def __init__(
        self,
        desired: Desired,
        current: Mapping[str, list[Json]],
        allow_replace: frozenset[str],
        allow_restart: frozenset[str],
        hosts: frozenset[str],
    ) -> None:
        self.desired = desired
        self.current = current
        self.allow_replace = allow_replace
        self.allow_restart = allow_restart
        self.hosts = hosts
        self.environment = desired.environment
        self.by_name = {kind: {thing["name"]: thing for thing in current.get(kind, ())} for kind in KINDS}
        self.plan = Plan()

    def run(self) -> Plan:
        self.plan_names_allowed()
        self.plan_network()
        self.plan_ssh_keys()
        self.plan_firewalls()
        self.plan_placement_groups()
        for machine in self.desired.machines:
            self.plan.servers[machine.name] = self.plan_server(machine)
        self.plan_network_replacement()
        self.plan_one_of_a_group()
        self.plan_addresses_taken()
        self.plan_limit()
        self.plan_undeclared()
        return self.plan

    def plan_limit(self) -> None:
        """Deleted objects are created again in the same run, so none of a machine outside of --limit may be deleted."""
        for machine in self.desired.machines:
            if machine.name in self.hosts:
                continue
            own = {f"{machine.name}-{volume.name}" for volume in machine.volumes}
            deletions = [f"server {name}" for name in self.plan.delete_servers if name == machine.name]
            deletions += [f"volume {name}" for name in self.plan.delete_volumes if name in own]
            if deletions:
                self.refuse(
                    f"--limit excludes {machine.name}, so {' and '.join(deletions)} would be deleted and not created "
                    f"again; add {machine.name} to --limit, or run without it."
                )

    def refuse(self, sentence: str) -> None:
        self.plan.refused.append(sentence)

    def owned_object(self, kind: str, name: str, word: str) -> Json | None:
        """The object of that name if it belongs to the environment; refuses a foreign one."""
        thing = self.by_name[kind].get(name)
        if thing is not None and not owned(thing, self.environment):
            self.refuse(
                f"{word} {name} exists in this project without the label {ENVIRONMENT_LABEL}={self.environment}, so it "
                "does not belong to this environment; use a separate project, or set that label if the object is its "
                "own."
            )
            return None
        return thing

    def refuse_protected(self, word: str, thing: Json) -> None:
        """Before any deletion, because the API would reject this one halfway."""
        if (thing.get("protection") or {}).get("delete"):
            self.refuse(
                f"{word} {thing['name']} may be replaced, but is protected against deletion; "
                "disable the protection in the cloud console first."
            )

    def plan_names_allowed(self) -> None:
        known = {machine.name for machine in self.desired.machines}
        known |= {
            f"{machine.name}-{volume.name}" for machine in self.desired.machines for volume in machine.volumes
        } | {self.environment}
        for option, names in ((ALLOW_REPLACE, self.allow_replace), (ALLOW_RESTART, self.allow_restart)):
            for name in sorted(names - known):
                self.refuse(
                    f"{option} names {name}, which is no server, volume or network of {self.environment}; "
                    "correct the name or remove it."
                )

    # network

    def plan_network(self) -> None:
        plan, desired = self.plan, self.desired
        plan.network = self.environment
        plan.network_labels = labels(self.environment)
        network = self.owned_object("networks", self.environment, "Network")
        if network is None:
            plan.create_network = plan.create_subnet = self.environment not in self.by_name["networks"]
            return
        differences = []
        if network["ip_range"] != desired.network_cidr:
            differences.append(f"has the range {network['ip_range']} instead of {desired.network_cidr}")
        subnet = next((subnet for subnet in network["subnets"] if subnet["ip_range"] == desired.subnet_cidr), None)
        if subnet is not None and subnet["network_zone"] != desired.network_zone:
            differences.append(f"is in the zone {subnet['network_zone']} instead of {desired.network_zone}")
        if subnet is None and network["subnets"]:
            ranges = ", ".join(subnet["ip_range"] for subnet in network["subnets"])
            differences.append(f"has the subnet {ranges} instead of {desired.subnet_cidr}")
        if not differences:
            plan.create_subnet = subnet is None
        elif self.environment in self.allow_replace:
            self.refuse_protected("Network", network)
            plan.delete_networks.append(self.environment)
            plan.create_network = plan.create_subnet = True
        else:
            self.refuse(
                f"Network {self.environment} {' and '.join(differences)}; restore the old value, or replace the "
                "network "
                f'and every server in it: -e \'{{"{ALLOW_REPLACE}": ["{self.environment}", …]}}\'.'
            )

    def plan_network_replacement(self) -> None:
        """A network is deleted only together with every server in it."""
        if not self.plan.delete_networks:
            return
        network = self.by_name["networks"][self.environment]
        network_id = network["id"]
        if balancers := network.get("load_balancers"):
            ids = ", ".join(map(str, balancers))
            self.refuse(
                f"Network {self.environment} may be replaced, but load balancer {ids} (by id) would lose its address "
                "in it; detach or delete that load balancer first."
            )
        remaining = sorted(
            server["name"]
            for server in self.current["servers"]
            if any(attachment["network"] == network_id for attachment in server["private_net"])
            and server["name"] not in self.plan.delete_servers
        )
        if remaining:
            self.refuse(
                f"Network {self.environment} may be replaced, but {', '.join(remaining)} would lose the private "
                f"address in it; name every one of them in {ALLOW_REPLACE} too."
            )

    def plan_one_of_a_group(self) -> None:
        """Servers are changed in parallel, so changing several of a group would stop its service and lose a quorum."""
        if self.plan.delete_networks:  # then all are replaced, each confirmed by name
            return
        for group in sorted({machine.group for machine in self.desired.machines}):
            affected = [
                server.name
                for server in self.plan.servers.values()
                if server.group == group and (server.stop or server.name in self.plan.delete_servers)
            ]
            if len(affected) > 1:
                self.refuse(
                    f"{', '.join(affected)} of {group} would be stopped or replaced at the same time; confirm one of "
                    f"them at a time in {ALLOW_RESTART} or {ALLOW_REPLACE}, and the next one when it is healthy."
                )

    def plan_addresses_taken(self) -> None:
        """An address of another server would fail halfway, after the server was created."""
        network = self.by_name["networks"].get(self.environment)
        if network is None or self.plan.delete_networks:
            return
        servers_by_address = {
            attachment["ip"]: server["name"]
            for server in self.current["servers"]
            for attachment in server["private_net"]
            if attachment["network"] == network["id"] and server["name"] not in self.plan.delete_servers
        }
        for machine in self.desired.machines:
            address_owner = servers_by_address.get(machine.private_ip, machine.name)
            if address_owner != machine.name and self.plan.servers[machine.name].attach:
                self.refuse(
                    f"Server {machine.name} cannot have the private address {machine.private_ip}: {address_owner} has "
                    "it; choose another address, or detach that server from the network."
                )

    # shared objects

    def plan_ssh_keys(self) -> None:
        registered = {_key_body(key["public_key"]): key["name"] for key in self.current.get("ssh_keys", ())}
        for public_key in self.desired.public_keys:
            body = _key_body(public_key)
            name = registered.get(body)
            if name is None:
                name = f"{self.environment}-admin-{hashlib.sha256(body.encode()).hexdigest()[:8]}"
                registered[body] = name
                self.plan.ssh_keys.append({"name": name, "public_key": public_key.strip()})
            self.plan.ssh_key_names.append(name)

    def plan_firewalls(self) -> None:
        """One for all machines, which closes all other ports, and one for each group with openings of its own."""
        for group in ["", *self.opening_groups()]:
            name = self.firewall_name(group)
            rules = [_rule(opening) for opening in self.desired.openings if opening.group == group]
            wanted_labels = labels(self.environment, group)
            firewall = self.owned_object("firewalls", name, "Firewall")
            if firewall is None and name in self.by_name["firewalls"]:
                continue
            if (
                firewall is None
                or [_comparable(rule) for rule in firewall["rules"]] != [_comparable(rule) for rule in rules]
                or not wanted_labels.items() <= firewall["labels"].items()
            ):
                existing_labels = (firewall or {}).get("labels", {})
                self.plan.firewalls.append({"name": name, "rules": rules, "labels": existing_labels | wanted_labels})

    def plan_placement_groups(self) -> None:
        for machine in self.desired.machines:
            name = self.placement_group_name(machine)
            planned = {group["name"] for group in self.plan.placement_groups}
            exists = name in self.by_name["placement_groups"]
            if exists:
                self.owned_object("placement_groups", name, "Placement group")
            elif name and name not in planned:
                self.plan.placement_groups.append({"name": name, "labels": labels(self.environment)})

    def opening_groups(self) -> list[str]:
        return sorted({opening.group for opening in self.desired.openings if opening.group})

    def firewall_name(self, group: str) -> str:
        return f"{self.environment}-{group}" if group else self.environment

    def firewall_names(self, machine: Machine) -> list[str]:
        of_machine = {"", machine.group, *machine.groups}
        return [self.firewall_name(name) for name in ["", *self.opening_groups()] if name in of_machine]

    def placement_group_name(self, machine: Machine) -> str:
        return f"{self.environment}-{machine.placement_group}" if machine.placement_group else ""

    # servers and their volumes

    def plan_server(self, machine: Machine) -> ServerPlan:
        wanted = ServerPlan(
            name=machine.name,
            group=machine.group,
            labels=labels(self.environment, machine.group),
            firewalls=self.firewall_names(machine),
            placement_group=self.placement_group_name(machine),
            image=machine.image,
            private_ip=machine.private_ip,
        )
        server = self.owned_object("servers", machine.name, "Server")
        if server is None and machine.name in self.by_name["servers"]:
            return wanted
        if server is not None and self.must_replace(machine, server):
            self.plan.delete_servers.append(machine.name)
            server = None
        wanted.volumes = self.plan_volumes(machine, server)
        if server is None:
            wanted.create = wanted.attach = wanted.start = True
            wanted.candidates = self.candidates(machine)
        else:
            self.plan_existing_server(machine, server, wanted)
        return wanted

    def must_replace(self, machine: Machine, server: Json) -> bool:
        """Whether the server is replaced; refuses a change that is not confirmed."""
        replacement_reasons, restart_reasons = self.differences(machine, server)
        # A server that is confirmed together with its network is replaced; plan_network_replacement refuses the others.
        if self.plan.delete_networks and self.network_attachment(server) and machine.name in self.allow_replace:
            replacement_reasons.append("is in the network that is replaced")
        if not replacement_reasons and (not restart_reasons or machine.name in self.allow_restart):
            return False
        if machine.name in self.allow_replace:
            self.refuse_protected("Server", server)
            return True
        remedy = (
            f'restore the old value, or confirm its replacement with -e \'{{"{ALLOW_REPLACE}": ["{machine.name}"]}}\''
        )
        if not replacement_reasons:
            remedy += f' or its restart with -e \'{{"{ALLOW_RESTART}": ["{machine.name}"]}}\''
        self.refuse(f"Server {machine.name} {' and '.join(replacement_reasons + restart_reasons)}; {remedy}.")
        return False

    def differences(self, machine: Machine, server: Json) -> tuple[list[str], list[str]]:
        """Differences that need a new server, and those that need a stopped one."""
        replacement_reasons, restart_reasons = [], []
        location = server["location"]["name"]
        if location not in self.desired.locations:
            replacement_reasons.append(f"is in {location} instead of {' or '.join(self.desired.locations)}")
        image = (server.get("image") or {}).get("name")
        if image and image != machine.image:
            replacement_reasons.append(f"was created from {image} instead of {machine.image}")
        attachment = self.network_attachment(server)
        if attachment is not None and attachment["ip"] != machine.private_ip:
            replacement_reasons.append(f"has the private address {attachment['ip']} instead of {machine.private_ip}")
        server_type = server["server_type"]["name"]
        if server_type not in machine.server_types:
            restart_reasons.append(f"is a {server_type} instead of {' or '.join(machine.server_types)}")
        group = (server.get("placement_group") or {}).get("name", "")
        if (name := self.placement_group_name(machine)) and group != name:
            restart_reasons.append(
                f"is in {f'placement group {group}' if group else 'no placement group'} instead of {name}"
            )
        return replacement_reasons, restart_reasons

    def network_attachment(self, server: Json) -> Json | None:
        network = self.by_name["networks"].get(self.environment)
        if network is None:
            return None
        return next(
            (attachment for attachment in server["private_net"] if attachment["network"] == network["id"]), None
        )

    def plan_existing_server(self, machine: Machine, server: Json, wanted: ServerPlan) -> None:
        if not wanted.labels.items() <= server["labels"].items():
            wanted.update_labels = True
        wanted.labels = server["labels"] | wanted.labels
        # Foreign firewalls stay; our own that are no longer declared would keep ports open.
        applied = {entry["id"] for entry in server["public_net"]["firewalls"]}
        before = [firewall for firewall in self.current["firewalls"] if firewall["id"] in applied]
        foreign = [firewall["name"] for firewall in before if not owned(firewall, self.environment)]
        wanted.firewalls = list(dict.fromkeys(foreign + wanted.firewalls))
        wanted.update_firewalls = {firewall["name"] for firewall in before} != set(wanted.firewalls)
        if machine.name in self.allow_restart:
            if server["server_type"]["name"] not in machine.server_types:
                location = server["location"]["name"]
                sold = [name for name in machine.server_types if self.offers(name, location) is not None]
                free = [name for name in sold if self.offers(name, location)]
                wanted.resize_to = [*free, *sold, *machine.server_types][0]
            group = (server.get("placement_group") or {}).get("name", "")
            wanted.update_placement_group = bool(wanted.placement_group) and group != wanted.placement_group
            wanted.stop = bool(wanted.resize_to or wanted.update_placement_group)
        wanted.attach = self.network_attachment(server) is None
        wanted.start = wanted.stop or server["status"] == "off"

    def offers(self, server_type: str, location: str) -> bool | None:
        """Whether a type is in stock at a location; None where it is not sold."""
        for known in self.current.get("server_types", ()):
            if known["name"] == server_type:
                found = next((offer for offer in known["locations"] if offer["name"] == location), None)
                return None if found is None else bool(found.get("available", True))
        return None

    def candidates(self, machine: Machine) -> list[Json]:
        """Types and locations in the inventory's order; those reported as sold out come last."""
        names = {f"{machine.name}-{volume.name}" for volume in machine.volumes} - set(self.plan.delete_volumes)
        volumes = [self.by_name["volumes"].get(name) for name in sorted(names)]
        volume_locations = {volume["location"]["name"] for volume in volumes if volume}
        offers = {
            (name, location): stock
            for name in machine.server_types
            for location in self.desired.locations
            if volume_locations <= {location} and (stock := self.offers(name, location)) is not None
        }
        ordered = sorted(offers, key=lambda offer: not offers[offer])
        if not ordered:
            where = (
                " and ".join(sorted(volume_locations)) + ", the location of its volumes"
                if volume_locations
                else " or ".join(self.desired.locations)
            )
            self.refuse(
                f"Server {machine.name} cannot be created: none of {', '.join(machine.server_types)} is sold in "
                f"{where}; add a type or a location that fits to provision_server_types or platform_locations."
            )
        return [{"server_type": name, "location": location} for name, location in ordered]

    def plan_volumes(self, machine: Machine, server: Json | None) -> list[Json]:
        planned = []
        for volume in machine.volumes:
            name = f"{machine.name}-{volume.name}"
            existing = self.owned_object("volumes", name, "Volume")
            if existing is None and name in self.by_name["volumes"]:
                continue
            if existing is not None and self.must_replace_volume(name, volume, existing, server):
                self.plan.delete_volumes.append(name)
                existing = None
            attached = existing is not None and server is not None and existing["server"] == server["id"]
            if existing is None or existing["size"] < volume.size_gb or not attached:
                planned.append(
                    {"name": name, "size_gb": volume.size_gb, "labels": labels(self.environment, machine.group)}
                )
        return planned

    def must_replace_volume(self, name: str, volume: Volume, existing: Json, server: Json | None) -> bool:
        differences = []
        if existing["size"] > volume.size_gb:
            differences.append(f"has {existing['size']} GB and cannot shrink to {volume.size_gb}")
        location = existing["location"]["name"]
        if server is not None and location != server["location"]["name"]:
            differences.append(f"is in {location}, its server in {server['location']['name']}")
        if server is None and location not in self.desired.locations:
            differences.append(
                f"is in {location}, where its server cannot be created ({', '.join(self.desired.locations)})"
            )
        attached_to = next(
            (other["name"] for other in self.current["servers"] if other["id"] == existing["server"]), None
        )
        if (
            attached_to is not None
            and (server is None or existing["server"] != server["id"])
            and attached_to not in self.plan.delete_servers
        ):
            differences.append(f"is attached to {attached_to}")
        if not differences:
            return False
        if name in self.allow_replace:
            self.refuse_protected("Volume", existing)
            return True
        self.refuse(
            f"Volume {name} {' and '.join(differences)}; restore the old value, or confirm the loss of its data "
            f'with -e \'{{"{ALLOW_REPLACE}": ["{name}"]}}\'.'
        )
        return False

    # undeclared objects

    def plan_undeclared(self) -> None:
        machines = self.desired.machines
        wanted = {
            "servers": {machine.name for machine in machines},
            "volumes": {f"{machine.name}-{volume.name}" for machine in machines for volume in machine.volumes},
            "networks": {self.environment},
            "firewalls": {self.firewall_name(group) for group in ["", *self.opening_groups()]},
            "placement_groups": {self.placement_group_name(machine) for machine in machines},
            "ssh_keys": set(self.plan.ssh_key_names),
        }
        for kind in KINDS:
            for thing in self.current.get(kind, ()):
                if owned(thing, self.environment) and thing["name"] not in wanted[kind]:
                    word = kind[:-1].replace("_", " ").replace("ssh", "SSH")
                    self.plan.undeclared.append(
                        f"{word} {thing['name']} is labelled as part of {self.environment}, but the inventory does not "
                        "declare it; it is not changed (add it to the inventory, or delete it by hand)."
                    )


def _key_body(public_key: str) -> str:
    """Type and key without the comment."""
    return " ".join(public_key.split()[:2])


def _rule(opening: Opening) -> Json:
    return {
        "direction": "in",
        "protocol": opening.protocol,
        "port": opening.port,
        "source_ips": list(opening.sources),
        "destination_ips": [],
        "description": opening.name,
    }


def _range(text: str) -> str:
    """A range as the API normalizes it, 2001:db8::/32 for 2001:DB8:0::/32; the API rejects an invalid one."""
    try:
        return str(ip_network(text))
    except ValueError:
        return text


def _comparable(rule: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        rule["direction"],
        rule["protocol"],
        rule.get("port"),
        tuple(map(_range, rule.get("source_ips") or ())),
        tuple(map(_range, rule.get("destination_ips") or ())),
        rule.get("description"),
    )
