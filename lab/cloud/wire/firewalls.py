from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from lab.cloud import labels
from lab.cloud.domain.objects import Firewall
from lab.cloud.domain.view import View
from lab.cloud.wire.base import Body, LabelMap, Name


def _cidr(text: str) -> str:
    try:
        if "/" not in text:
            raise ValueError("no mask")
        block = ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is not the start of a CIDR block such as 10.0.0.0/8 or ::/0") from None
    # Hetzner turns IPv6 into its canonical form.
    return str(block)


def _port(text: str) -> str:
    if text == "any":
        return text
    ends = text.split("-")
    if not (len(ends) <= 2 and all(end.isdecimal() and 1 <= int(end) <= 65535 for end in ends)):
        raise ValueError(f"{text!r} is not a port (1-65535), a range of ports such as 80-85, or any")
    if int(ends[0]) > int(ends[-1]):
        raise ValueError(f"{text!r} is a range of ports that ends before it starts")
    return text


def _selector(text: str) -> str:
    labels.parse(text)
    return text


Cidrs = Annotated[tuple[Annotated[str, AfterValidator(_cidr)], ...], Field(max_length=100)]


class RuleBody(Body):
    direction: Literal["in", "out"]
    protocol: Literal["tcp", "udp", "icmp", "esp", "gre"]
    port: Annotated[str, AfterValidator(_port)] | None = None
    source_ips: Cidrs = ()
    destination_ips: Cidrs = ()
    description: Annotated[str, StringConstraints(max_length=255)] | None = None

    @model_validator(mode="after")
    def _require_fields(self) -> RuleBody:
        if self.protocol in ("tcp", "udp") and self.port is None:
            raise ValueError(f"port is required with protocol {self.protocol}")
        if self.protocol not in ("tcp", "udp") and self.port is not None:
            raise ValueError(f"port is not allowed with protocol {self.protocol}")
        if self.direction == "in" and not self.source_ips:
            raise ValueError("source_ips is required with direction in")
        if self.direction == "out" and not self.destination_ips:
            raise ValueError("destination_ips is required with direction out")
        return self


Rules = Annotated[tuple[RuleBody, ...], Field(max_length=50)]


class ServerRef(Body):
    id: int


class SelectorRef(Body):
    selector: Annotated[str, StringConstraints(min_length=1), AfterValidator(_selector)]


class Target(Body):
    type: Literal["server", "label_selector"]
    server: ServerRef | None = None
    label_selector: SelectorRef | None = None

    @model_validator(mode="after")
    def _require_fields(self) -> Target:
        if getattr(self, self.type) is None:
            raise ValueError(f"{self.type} is required with type {self.type}")
        return self


class Create(Body):
    name: Name
    labels: LabelMap = Field(default_factory=dict)
    rules: Rules = ()
    apply_to: tuple[Target, ...] = ()


class SetRules(Body):
    rules: Rules


class Apply(Body):
    apply_to: list[Target]


class Remove(Body):
    remove_from: list[Target]


def split(targets: Iterable[Target]) -> tuple[list[int], list[str]]:
    """Server ids and selectors of a list of targets."""
    servers, selectors = [], []
    for target in targets:
        if target.type == "server" and target.server:
            servers.append(target.server.id)
        elif target.label_selector:
            selectors.append(target.label_selector.selector)
    return servers, selectors


def shape(view: View, firewall: Firewall) -> dict[str, Any]:
    return {
        "id": firewall.id,
        "name": firewall.name,
        "labels": firewall.labels,
        "created": firewall.created,
        "rules": [
            {
                "direction": rule.direction,
                "protocol": rule.protocol,
                "port": rule.port,
                "source_ips": rule.source_ips,
                "destination_ips": rule.destination_ips,
                "description": rule.description,
            }
            for rule in firewall.rules
        ],
        "applied_to": [*map(_server, firewall.servers)]
        + [
            {
                "type": "label_selector",
                "label_selector": {"selector": selector},
                "applied_to_resources": [_server(server.id) for server in view.matching(selector)],
            }
            for selector in firewall.selectors
        ],
    }


def _server(id: int) -> dict[str, Any]:
    return {"type": "server", "server": {"id": id}}
