"""What has to change in a project so that it holds what an environment wants: pure decisions, no API.

`make_plan` compares and answers three things: what will be done, what is refused, and what lies there unclaimed.
Nothing is destroyed, moved or stopped unless its name was given on purpose.
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
"""What an environment consists of, in the order in which it can be taken away."""

TRANSIENT = frozenset({"initializing", "starting", "stopping", "deleting", "migrating", "rebuilding"})
"""States of a server that end by themselves; nothing can be asked of it meanwhile."""

ALLOW_REPLACE = "op_provision_allow_replace"
ALLOW_RESTART = "op_provision_allow_restart"


@dataclass(frozen=True)
class Volume:
    name: str
    size_gb: int


@dataclass(frozen=True)
class Machine:
    """A server as the inventory wants it."""

    name: str
    group: str
    private_ip: str
    server_types: tuple[str, ...]
    image: str
    volumes: tuple[Volume, ...] = ()
    placement_group: str = ""
    groups: tuple[str, ...] = ()
    """All groups it is in, when it is shared by several; `group` is the main one."""


@dataclass(frozen=True)
class Opening:
    """A way in from the public side, for one group of machines or (group empty) for all."""

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
    """The way of one server to what is wanted. Empty lists and False where nothing is to be done."""

    name: str
    group: str
    create: bool = False
    candidates: list[Json] = field(default_factory=list)
    """`server_type` and `location` to try in this order."""
    labels: Json = field(default_factory=dict)
    firewalls: list[str] = field(default_factory=list)
    placement_group: str = ""
    image: str = ""
    private_ip: str = ""
    relabel: bool = False
    refirewall: bool = False
    stop: bool = False
    """Needs to be off while `resize_to` or `regroup` happens."""
    resize_to: str = ""
    regroup: bool = False
    attach: bool = False
    volumes: list[Json] = field(default_factory=list)
    """Volumes to create, attach or grow: `name`, `size_gb`."""
    start: bool = False

    @property
    def changes(self) -> list[str]:
        said: list[tuple[bool, str]] = [
            (self.create, f"create server {self.name}"),
            (self.relabel, f"label server {self.name}"),
            (self.refirewall, f"put server {self.name} behind firewall {', '.join(self.firewalls)}"),
            (bool(self.resize_to), f"stop server {self.name} and make it a {self.resize_to}"),
            (self.regroup, f"stop server {self.name} and put it into placement group {self.placement_group}"),
            (self.attach, f"attach server {self.name} to the private network at {self.private_ip}"),
            *((True, f"give server {self.name} volume {v['name']} ({v['size_gb']} GB)") for v in self.volumes),
            (self.start, f"start server {self.name}"),
        ]
        return [sentence for happens, sentence in said if happens]


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
    """Firewalls to make or to bring in line: `name`, `group`, `rules`, `labels`."""
    placement_groups: list[Json] = field(default_factory=list)
    servers: dict[str, ServerPlan] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    unclaimed: list[str] = field(default_factory=list)

    @property
    def shared_changes(self) -> list[str]:
        said = [
            *(f"delete server {name}" for name in self.delete_servers),
            *(f"delete volume {name} and what is on it" for name in self.delete_volumes),
            *(f"delete network {name}" for name in self.delete_networks),
            *(f"register SSH key {key['name']}" for key in self.ssh_keys),
        ]
        if self.create_network:
            said.append(f"create network {self.network}")
        if self.create_subnet:
            said.append(f"create the subnet of network {self.network}")
        said += [f"set firewall {firewall['name']}" for firewall in self.firewalls]
        said += [f"create placement group {group['name']}" for group in self.placement_groups]
        return said

    @property
    def changes(self) -> list[str]:
        return self.shared_changes + [said for name in sorted(self.servers) for said in self.servers[name].changes]


def owned(thing: Mapping[str, Any], environment: str) -> bool:
    """Whether an object belongs to the environment: its label says so, nothing else counts."""
    return (thing.get("labels") or {}).get(ENVIRONMENT_LABEL) == environment


def labels(environment: str, group: str = "") -> Json:
    mine = {ENVIRONMENT_LABEL: environment, OWNER_LABEL: OWNER}
    return mine | {GROUP_LABEL: group} if group else mine


def make_plan(
    desired: Desired,
    current: Mapping[str, list[Json]],
    *,
    allow_replace: Iterable[str] = (),
    allow_restart: Iterable[str] = (),
    hosts: Iterable[str] | None = None,
) -> Plan:
    """Compare. `current` holds the whole project: each of KINDS and `server_types`, as the API tells them.

    `hosts` are the machines that this run makes and changes, all unless given.
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
        self.plan_unclaimed()
        return self.plan

    def plan_limit(self) -> None:
        """What goes is made again in the same run, so nothing goes of a machine that the run leaves out."""
        for machine in self.desired.machines:
            if machine.name in self.hosts:
                continue
            own = {f"{machine.name}-{volume.name}" for volume in machine.volumes}
            going = [f"server {name}" for name in self.plan.delete_servers if name == machine.name]
            going += [f"volume {name}" for name in self.plan.delete_volumes if name in own]
            if going:
                self.refuse(
                    f"--limit leaves out {machine.name}, so {' and '.join(going)} would be deleted and not made again; "
                    f"add {machine.name} to --limit, or run without it."
                )

    def refuse(self, sentence: str) -> None:
        self.plan.refused.append(sentence)

    def mine(self, kind: str, name: str, word: str) -> Json | None:
        """The object of that name if it is ours; refuses one that is somebody else's."""
        thing = self.by_name[kind].get(name)
        if thing is not None and not owned(thing, self.environment):
            self.refuse(
                f"{word} {name} exists in this project without the label {ENVIRONMENT_LABEL}={self.environment}, so it "
                "belongs to somebody else; use a project of its own for this environment, or give it that label if it "
                "is ours."
            )
            return None
        return thing

    def refuse_protected(self, word: str, thing: Json) -> None:
        """Before anything is gone, not when it is this one's turn."""
        if (thing.get("protection") or {}).get("delete"):
            self.refuse(
                f"{word} {thing['name']} may be replaced, but is protected against deletion; "
                "take the protection off in the cloud console first."
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
                    "correct the name or leave it out."
                )

    # network

    def plan_network(self) -> None:
        plan, desired = self.plan, self.desired
        plan.network = self.environment
        plan.network_labels = labels(self.environment)
        network = self.mine("networks", self.environment, "Network")
        if network is None:
            plan.create_network = plan.create_subnet = self.environment not in self.by_name["networks"]
            return
        differences = []
        if network["ip_range"] != desired.network_cidr:
            differences.append(f"has the range {network['ip_range']}, wanted is {desired.network_cidr}")
        subnet = next((subnet for subnet in network["subnets"] if subnet["ip_range"] == desired.subnet_cidr), None)
        if subnet is not None and subnet["network_zone"] != desired.network_zone:
            differences.append(f"lies in the zone {subnet['network_zone']}, wanted is {desired.network_zone}")
        if subnet is None and network["subnets"]:
            ranges = ", ".join(subnet["ip_range"] for subnet in network["subnets"])
            differences.append(f"has the subnet {ranges}, wanted is {desired.subnet_cidr}")
        if not differences:
            plan.create_subnet = subnet is None
        elif self.environment in self.allow_replace:
            self.refuse_protected("Network", network)
            plan.delete_networks.append(self.environment)
            plan.create_network = plan.create_subnet = True
        else:
            self.refuse(
                f"Network {self.environment} {' and '.join(differences)}; restore the old value, or have the network "
                f'and every server in it replaced: -e \'{{"{ALLOW_REPLACE}": ["{self.environment}", …]}}\'.'
            )

    def plan_network_replacement(self) -> None:
        """A network goes only together with every server in it."""
        if not self.plan.delete_networks:
            return
        network = self.by_name["networks"][self.environment]
        network_id = network["id"]
        if balancers := network.get("load_balancers"):
            ids = ", ".join(map(str, balancers))
            self.refuse(
                f"Network {self.environment} may be replaced, but load balancer {ids} (by id) would lose its address "
                "in it; detach it or delete it first."
            )
        staying = sorted(
            server["name"]
            for server in self.current["servers"]
            if any(leg["network"] == network_id for leg in server["private_net"])
            and server["name"] not in self.plan.delete_servers
        )
        if staying:
            self.refuse(
                f"Network {self.environment} may be replaced, but {', '.join(staying)} would lose the private address "
                f"in it; name every one of them in {ALLOW_REPLACE} too."
            )

    def plan_one_of_a_group(self) -> None:
        """Servers are changed side by side: what a group serves, and a quorum's data, would go with all of them."""
        if self.plan.delete_networks:  # then all go, each by its name
            return
        for group in sorted({machine.group for machine in self.desired.machines}):
            going = [
                server.name
                for server in self.plan.servers.values()
                if server.group == group and (server.stop or server.name in self.plan.delete_servers)
            ]
            if len(going) > 1:
                self.refuse(
                    f"{', '.join(going)} would stop or be replaced at the same time, all of {group}; name one of them "
                    f"at a time in {ALLOW_RESTART} or {ALLOW_REPLACE}, and the next when it serves again."
                )

    def plan_addresses_taken(self) -> None:
        """An address that somebody else holds would fail halfway, after the server was made."""
        network = self.by_name["networks"].get(self.environment)
        if network is None or self.plan.delete_networks:
            return
        holders = {
            leg["ip"]: server["name"]
            for server in self.current["servers"]
            for leg in server["private_net"]
            if leg["network"] == network["id"] and server["name"] not in self.plan.delete_servers
        }
        for machine in self.desired.machines:
            holder = holders.get(machine.private_ip, machine.name)
            if holder != machine.name and self.plan.servers[machine.name].attach:
                self.refuse(
                    f"Server {machine.name} cannot have the private address {machine.private_ip}: {holder} holds it; "
                    "choose another, or detach that server from the network."
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
        """One for all machines, which also closes what nobody opens, and one for each group that opens more."""
        for group in ["", *self.opening_groups()]:
            name = self.firewall_name(group)
            rules = [_rule(opening) for opening in self.desired.openings if opening.group == group]
            wanted_labels = labels(self.environment, group)
            firewall = self.mine("firewalls", name, "Firewall")
            if firewall is None and name in self.by_name["firewalls"]:
                continue
            if (
                firewall is None
                or [_comparable(rule) for rule in firewall["rules"]] != [_comparable(rule) for rule in rules]
                or not wanted_labels.items() <= firewall["labels"].items()
            ):
                kept = (firewall or {}).get("labels", {})
                self.plan.firewalls.append({"name": name, "rules": rules, "labels": kept | wanted_labels})

    def plan_placement_groups(self) -> None:
        for machine in self.desired.machines:
            name = self.placement_group_name(machine)
            planned = {group["name"] for group in self.plan.placement_groups}
            there = name in self.by_name["placement_groups"]
            if there:
                self.mine("placement_groups", name, "Placement group")
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
        server = self.mine("servers", machine.name, "Server")
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
        """Whether the server goes and comes back; refuses what was not allowed."""
        lasting, restartable = self.differences(machine, server)
        # Named with the network that it stands in, a server goes with it; plan_network_replacement refuses the others.
        if self.plan.delete_networks and self.private_leg(server) and machine.name in self.allow_replace:
            lasting.append("stands in the network that is replaced")
        if not lasting and (not restartable or machine.name in self.allow_restart):
            return False
        if machine.name in self.allow_replace:
            self.refuse_protected("Server", server)
            return True
        remedy = (
            f'restore the old value, or allow its replacement with -e \'{{"{ALLOW_REPLACE}": ["{machine.name}"]}}\''
        )
        if not lasting:
            remedy += f' or its change by a stop and a start with -e \'{{"{ALLOW_RESTART}": ["{machine.name}"]}}\''
        self.refuse(f"Server {machine.name} {' and '.join(lasting + restartable)}; {remedy}.")
        return False

    def differences(self, machine: Machine, server: Json) -> tuple[list[str], list[str]]:
        """What only a new server can change, and what a stopped one can."""
        lasting, restartable = [], []
        location = server["location"]["name"]
        if location not in self.desired.locations:
            lasting.append(f"stands in {location}, wanted is {' or '.join(self.desired.locations)}")
        image = (server.get("image") or {}).get("name")
        if image and image != machine.image:
            lasting.append(f"was made from {image}, wanted is {machine.image}")
        leg = self.private_leg(server)
        if leg is not None and leg["ip"] != machine.private_ip:
            lasting.append(f"has the private address {leg['ip']}, wanted is {machine.private_ip}")
        server_type = server["server_type"]["name"]
        if server_type not in machine.server_types:
            restartable.append(f"is a {server_type}, wanted is {' or '.join(machine.server_types)}")
        group = (server.get("placement_group") or {}).get("name", "")
        if (name := self.placement_group_name(machine)) and group != name:
            restartable.append(
                f"is in {f'placement group {group}' if group else 'no placement group'}, wanted is {name}"
            )
        return lasting, restartable

    def private_leg(self, server: Json) -> Json | None:
        network = self.by_name["networks"].get(self.environment)
        if network is None:
            return None
        return next((leg for leg in server["private_net"] if leg["network"] == network["id"]), None)

    def plan_existing_server(self, machine: Machine, server: Json, wanted: ServerPlan) -> None:
        if not wanted.labels.items() <= server["labels"].items():
            wanted.relabel = True
        wanted.labels = server["labels"] | wanted.labels
        # Firewalls of others stay; one of ours that is not wanted any more would leave its doors open.
        applied = {entry["id"] for entry in server["public_net"]["firewalls"]}
        before = [firewall for firewall in self.current["firewalls"] if firewall["id"] in applied]
        foreign = [firewall["name"] for firewall in before if not owned(firewall, self.environment)]
        wanted.firewalls = list(dict.fromkeys(foreign + wanted.firewalls))
        wanted.refirewall = {firewall["name"] for firewall in before} != set(wanted.firewalls)
        if machine.name in self.allow_restart:
            if server["server_type"]["name"] not in machine.server_types:
                location = server["location"]["name"]
                sold = [name for name in machine.server_types if self.offers(name, location) is not None]
                free = [name for name in sold if self.offers(name, location)]
                wanted.resize_to = [*free, *sold, *machine.server_types][0]
            group = (server.get("placement_group") or {}).get("name", "")
            wanted.regroup = bool(wanted.placement_group) and group != wanted.placement_group
            wanted.stop = bool(wanted.resize_to or wanted.regroup)
        wanted.attach = self.private_leg(server) is None
        wanted.start = wanted.stop or server["status"] == "off"

    def offers(self, server_type: str, location: str) -> bool | None:
        """Whether a type is in stock at a location; None where it is not sold at all."""
        for known in self.current.get("server_types", ()):
            if known["name"] == server_type:
                found = next((offer for offer in known["locations"] if offer["name"] == location), None)
                return None if found is None else bool(found.get("available", True))
        return None

    def candidates(self, machine: Machine) -> list[Json]:
        """Types and locations to try, as the inventory orders them; those said to be sold out come last."""
        names = {f"{machine.name}-{volume.name}" for volume in machine.volumes} - set(self.plan.delete_volumes)
        volumes = [self.by_name["volumes"].get(name) for name in sorted(names)]
        bound = {volume["location"]["name"] for volume in volumes if volume}
        offers = {
            (name, place): stock
            for name in machine.server_types
            for place in self.desired.locations
            if bound <= {place} and (stock := self.offers(name, place)) is not None
        }
        ordered = sorted(offers, key=lambda offer: not offers[offer])
        if not ordered:
            places = (
                " and ".join(sorted(bound)) + ", where its volumes lie"
                if bound
                else " or ".join(self.desired.locations)
            )
            self.refuse(
                f"Server {machine.name} cannot be made: none of {', '.join(machine.server_types)} is sold in {places}; "
                "add a type or a location that fits to provision_server_types or platform_locations."
            )
        return [{"server_type": name, "location": place} for name, place in ordered]

    def plan_volumes(self, machine: Machine, server: Json | None) -> list[Json]:
        planned = []
        for volume in machine.volumes:
            name = f"{machine.name}-{volume.name}"
            there = self.mine("volumes", name, "Volume")
            if there is None and name in self.by_name["volumes"]:
                continue
            if there is not None and self.must_replace_volume(name, volume, there, server):
                self.plan.delete_volumes.append(name)
                there = None
            attached = there is not None and server is not None and there["server"] == server["id"]
            if there is None or there["size"] < volume.size_gb or not attached:
                planned.append(
                    {"name": name, "size_gb": volume.size_gb, "labels": labels(self.environment, machine.group)}
                )
        return planned

    def must_replace_volume(self, name: str, volume: Volume, there: Json, server: Json | None) -> bool:
        differences = []
        if there["size"] > volume.size_gb:
            differences.append(f"has {there['size']} GB and cannot shrink to {volume.size_gb}")
        place = there["location"]["name"]
        if server is not None and place != server["location"]["name"]:
            differences.append(f"lies in {place}, its server in {server['location']['name']}")
        if server is None and place not in self.desired.locations:
            differences.append(
                f"lies in {place}, where its server cannot be made ({', '.join(self.desired.locations)})"
            )
        holder = next((other["name"] for other in self.current["servers"] if other["id"] == there["server"]), None)
        if (
            holder is not None
            and (server is None or there["server"] != server["id"])
            and holder not in self.plan.delete_servers
        ):
            differences.append(f"is attached to {holder}")
        if not differences:
            return False
        if name in self.allow_replace:
            self.refuse_protected("Volume", there)
            return True
        self.refuse(
            f"Volume {name} {' and '.join(differences)}; restore the old value, or have it and what is on it destroyed "
            f'with -e \'{{"{ALLOW_REPLACE}": ["{name}"]}}\'.'
        )
        return False

    # what nobody wants

    def plan_unclaimed(self) -> None:
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
                    self.plan.unclaimed.append(
                        f"{word} {thing['name']} is labelled as part of {self.environment}, but the inventory does not "
                        "want it; it is left alone (add it to the inventory, or delete it by hand)."
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
    """The API writes ranges its own way, 2001:db8::/32 for 2001:DB8:0::/32; what is none is for the API to refuse."""
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
