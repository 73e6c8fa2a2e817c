"""Changes that reconcile the object gateways with their declaration: pure decisions from the cluster's status."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph_members import same_value

Json = dict[str, Any]
PEM = re.compile(r"-----BEGIN (?P<kind>[A-Z ]+)-----(?P<body>[^-]+)-----END (?P=kind)-----\n?")
# TLS 1.3 only: a gateway accepts every protocol that is not disabled.
TLS_ARGUMENTS = ("ssl_options=no_sslv2:no_sslv3:no_tlsv1:no_tlsv1_1:no_tlsv1_2",)


@dataclass(frozen=True)
class Wanted:
    """The declared gateways, one service of the orchestrator."""

    name: str
    hosts: tuple[str, ...]
    port: int
    server_name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def service(self) -> str:
        return f"rgw.{self.name}"

    @property
    def section(self) -> str:
        """Section of the configuration with the options of these gateways."""
        return f"client.rgw.{self.name}"

    @property
    def certificate_key(self) -> str:
        """Config-key from which the gateways read their certificate; it is not part of the service specification."""
        return f"rgw/cert/{self.service}"

    @property
    def frontend(self) -> tuple[str, ...]:
        return (f"ssl_port={self.port}", f"ssl_certificate=config://{self.certificate_key}", *TLS_ARGUMENTS)

    @property
    def all_options(self) -> dict[str, str]:
        return {
            "rgw_dns_name": self.server_name,
            "rgw_enable_apis": "s3",
            # CVE-2026-54330: rejects requests whose Host header is not signed.
            "rgw_sigv4_insecure": "false",
            **self.options,
        }

    @property
    def digest(self) -> str:
        """Digest of the settings that a gateway reads at its start only."""
        text = json.dumps([self.all_options, self.frontend], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def spec(self) -> Json:
        return {
            "service_type": "rgw",
            "service_id": self.name,
            "placement": {"hosts": sorted(self.hosts)},
            "spec": {
                "ssl": True,
                "rgw_frontend_port": self.port,
                "rgw_frontend_extra_args": list(TLS_ARGUMENTS),
            },
        }


@dataclass(frozen=True)
class Gateway:
    """One running gateway."""

    name: str
    host: str
    started: str
    running: bool
    frontend: str = ""
    """Value of rgw_frontends."""
    digest: str = ""
    """Digest of the settings that it was started with, from its config-key."""
    certificate: str | None = None
    """Digest of the presented certificate; None without an answer."""


@dataclass(frozen=True)
class Found:
    spec: Json | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    certificate: str = ""
    """The stored key and certificate, PEM."""
    gateways: tuple[Gateway, ...] = ()
    other_services: tuple[str, ...] = ()


@dataclass
class Plan:
    certificate: str = ""
    """Key and certificate to store, PEM."""
    options: dict[str, str] = field(default_factory=dict)
    spec: Json | None = None
    restart: list[str] = field(default_factory=list)
    """Gateways with outdated settings or certificate, in the order of their restart."""
    changes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def blocks(pem: str) -> list[tuple[str, str]]:
    """(kind, text) of each block of a PEM text."""
    return [(match["kind"], match[0].strip() + "\n") for match in PEM.finditer(pem)]


def certificate_of(pem: str) -> str:
    """The first certificate of a PEM text, or an empty string."""
    return next((text for kind, text in blocks(pem) if kind == "CERTIFICATE"), "")


def fingerprint(pem: str) -> str:
    """Digest of the first certificate in DER, comparable with the presented one."""
    text = certificate_of(pem)
    if not text:
        return ""
    body = "".join(line for line in text.splitlines() if not line.startswith("-----"))
    return hashlib.sha256(base64.b64decode(body)).hexdigest()


def bundle(private_key: str, certificate: str) -> str:
    """Key and certificate in one text, as a gateway reads them."""
    return "".join(text for _, text in [*blocks(private_key), *blocks(certificate)])


def plan(wanted: Wanted, found: Found, issued: str = "") -> Plan:
    """Changes to reach the declared state. `issued` is a new bundle, or empty while the stored one is valid."""
    planned = Plan()
    stored = issued or found.certificate
    if not certificate_of(stored):
        planned.faults.append("no certificate is stored, and none was given")
        return planned
    if issued and issued != found.certificate:
        planned.certificate = issued
        planned.changes.append(f"store a new certificate for the gateways {wanted.service}")
    for name, value in wanted.all_options.items():
        held = found.options.get(name)
        if held is None or not same_value(held, value):
            planned.options[name] = value
            planned.changes.append(f"set {name} of {wanted.section} to {value}")
    if found.spec is None or not _same(wanted.spec(), found.spec):
        planned.spec = wanted.spec()
        hosts = ", ".join(sorted(wanted.hosts))
        planned.changes.append(
            f"{'deploy' if found.spec is None else 'change'} the gateways {wanted.service} on {hosts}"
        )
    planned.restart = [
        gateway.name for gateway in found.gateways if restart_reason(wanted, gateway, fingerprint(stored))
    ]
    if found.spec is not None:
        planned.changes += [f"restart {name}" for name in planned.restart]
    return planned


def restart_reason(wanted: Wanted, gateway: Gateway, certificate: str) -> str:
    """Why a gateway needs a restart, or an empty string."""
    if missing := set(wanted.frontend) - set(gateway.frontend.split()):
        return f"rgw_frontends lacks {', '.join(sorted(missing))}"
    if gateway.digest != wanted.digest:
        return "started with other options"
    if gateway.certificate is None:
        return "no answer"
    if gateway.certificate != certificate:
        return "presents another certificate"
    return ""


def _same(wanted: Any, found: Any) -> bool:
    """Whether everything wanted is present; the orchestrator adds its own defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(_same(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and sorted(map(str, wanted)) == sorted(map(str, found))
    return bool(wanted == found)


def unmet(wanted: Wanted, found: Found) -> list[str]:
    """What is missing until each host has a running gateway that presents the stored certificate."""
    certificate = fingerprint(found.certificate)
    faults = []
    for host in wanted.hosts:
        here = [gateway for gateway in found.gateways if gateway.host == host]
        if not here:
            faults.append(f"{host} has no gateway of {wanted.service}")
        for gateway in here:
            if not gateway.running:
                faults.append(f"{gateway.name} on {host} is not running")
            elif gateway.certificate is None:
                faults.append(f"{gateway.name} on {host} does not answer over TLS 1.3 at port {wanted.port}")
            elif gateway.certificate != certificate:
                faults.append(f"{gateway.name} on {host} presents another certificate than the stored one")
    return faults


def found_from(
    wanted: Wanted,
    *,
    services: Sequence[Mapping[str, Any]],
    daemons: Sequence[Mapping[str, Any]],
    config: Sequence[Mapping[str, Any]],
    certificate: str,
    markers: Mapping[str, str],
    presented: Mapping[str, str | None],
) -> Found:
    """From `orch ls --export`, `orch ps` and `config dump`, the stored certificate, the digests of the settings by
    daemon, and those of the presented certificates by host."""
    own = [service for service in services if service.get("service_name") == wanted.service]
    lines = {entry["section"]: str(entry["value"]) for entry in config if entry["name"] == "rgw_frontends"}
    gateways = []
    for daemon in daemons:
        if daemon.get("service_name") != wanted.service:
            continue
        name, host = str(daemon["daemon_name"]), str(daemon["hostname"])
        gateways.append(
            Gateway(
                name=name,
                host=host,
                started=str(daemon.get("started", "")),
                running=daemon.get("status") == 1,
                frontend=lines.get(f"client.{name}", ""),
                digest=markers.get(name, ""),
                certificate=presented.get(host),
            )
        )
    return Found(
        spec=dict(own[0]) if own else None,
        options={entry["name"]: str(entry["value"]) for entry in config if entry["section"] == wanted.section},
        certificate=certificate,
        gateways=tuple(sorted(gateways, key=lambda gateway: gateway.name)),
        other_services=tuple(
            str(service["service_name"]) for service in services if service.get("service_name") != wanted.service
        ),
    )
