"""Filters of the verify role: what slipway.platform.probe is to look at, and sentences about what was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils import certificates


def _result(hostvars: Mapping[str, Any], host: str, variable: str) -> Mapping[str, Any]:
    """What a host registered; empty where the host or the result is missing."""
    return (hostvars[host].get(variable) if host in hostvars else None) or {}


def _unread(name: str, result: Mapping[str, Any]) -> str:
    """Why the result of a host's check is missing."""
    if result.get("unreachable"):
        return f"{name} cannot be reached by SSH"
    reason = str(result.get("msg") or "it was not part of this run").strip()
    return f"{name}: a check has no result ({reason}). Correct that and run playbooks/verify.yml for all hosts."


def ingress_probes(
    names: list[str], address: str, authority: str, statuses: list[int], valid_days: int = 0
) -> list[dict[str, Any]]:
    """Three looks at every public name: TLS 1.3 answers, TLS 1.2 does not, plain HTTP leads to HTTPS."""
    if not names:
        raise AnsibleFilterError(
            "verify_ingress_names: the list is empty, so that no public name would be verified. "
            "Set platform_ingress_names."
        )
    probes: list[dict[str, Any]] = []
    for name in names:
        common = {"address": address, "server_name": name}
        probes += [
            {"name": f"ingress {name}", "kind": "https", "port": 443, **common}
            | {"authority": authority, "statuses": list(statuses), "valid_days": valid_days},
            {"name": f"redirect {name}", "kind": "redirect", "port": 80, **common},
        ]
    probes.append(
        {"name": "TLS 1.2", "kind": "tls_refused", "port": 443, "address": address}
        | {"server_name": names[0], "authority": authority}
    )
    return probes


def closed_probes(hosts: list[Mapping[str, Any]], ipv6_enabled: bool = True) -> list[dict[str, Any]]:
    """A probe of every port that has to be closed, and one of every control, which has to answer."""
    controls: dict[tuple[str, int], dict[str, Any]] = {}
    probes: list[dict[str, Any]] = []
    for host in hosts:
        if ":" in host["address"] and not ipv6_enabled:
            continue
        control = {"name": host["control_name"], "address": host["control_address"], "port": host["control_port"]}
        controls.setdefault((control["address"] or control["name"], control["port"]), {"kind": "open", **control})
        # Without an address the control is the finding.
        ports = host["ports"] if host["address"] else []
        probes += [{"name": host["name"], "kind": "closed", "address": host["address"], "port": port} for port in ports]
    return [*controls.values(), *probes]


def closed_hosts(
    hostvars: Mapping[str, Any], hosts: list[str], ports: list[int], balancer: str
) -> list[dict[str, Any]]:
    """Ports that have to be closed, on every public address of the hosts, and the port that proves the way to it.

    That is SSH of the host. SSH over IPv6 may be closed to a controller that administrates by IPv4, hence HTTPS of the
    load balancer there. A host that is reached at its private address has no outside for this controller.
    """
    ipv6 = next((address for address in hostvars[balancer].get("hcloud_addresses") or [] if ":" in address), "")
    found = []
    for host in hosts:
        variables = hostvars[host]
        reached = variables.get("ansible_host") or ""
        if reached and reached == variables.get("provision_private_ip"):
            continue
        for address in variables.get("hcloud_addresses") or [reached]:
            control = (balancer, ipv6, 443) if ":" in address else (host, address, 22)
            found.append(
                {"name": host, "address": address, "ports": list(ports)}
                | dict(zip(("control_name", "control_address", "control_port"), control, strict=True))
            )
    return found


def server_findings(hostvars: Mapping[str, Any], servers: list[str], version: str, valid_days: int = 0) -> list[str]:
    """What the servers saw unmet, what they would start next, and an ingress certificate that ends soon.

    A missing result is a finding.
    """
    if not servers:
        return ["rke2_server: no server was verified. Name the servers in the inventory's hosts.yml."]
    found: list[str] = []
    for name in servers:
        seen = _result(hostvars, name, "__verify_seen")
        if "unmet" not in seen or (seen.get("failed") and not seen["unmet"]):
            found.append(_unread(name, seen))
        else:
            found += [f"seen from {name}, {sentence}" for sentence in seen["unmet"]]
            found += release_findings(name, seen.get("release") or [], version)
            if reason := certificates.end_due(str(seen.get("ingress_certificate") or ""), int(valid_days)):
                found.append(f"the certificate of RKE2's ingress: {reason}. Run playbooks/rke2.yml.")
    return list(dict.fromkeys(found))


def database_probes(host: str, server_name: str, authority: str, valid_days: int) -> list[dict[str, Any]]:
    """PostgreSQL and PgBouncer as their clients see them, from the host itself: others may not come."""
    common: dict[str, Any] = {"name": host, "kind": "postgres", "address": host, "server_name": server_name}
    common |= {"authority": authority, "valid_days": int(valid_days)}
    return [{**common, "port": port} for port in (5432, 6432)]


def _parts(text: str) -> dict[str, tuple[int, list[str]]]:
    """Exit code and lines of each part that roles/verify/files/database.sh printed."""
    found: dict[str, tuple[int, list[str]]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("== "):
            _mark, name, code = line.split()
            found[name], lines = (int(code), lines), []
        elif line.strip():
            lines.append(line.strip())
    return found


def database_findings(hostvars: Mapping[str, Any], hosts: list[str]) -> list[str]:
    """What a database said of itself, and handshakes that failed; a missing result is a finding."""
    found: list[str] = []
    for name in hosts:
        said = _result(hostvars, name, "__verify_database")
        if said.get("unreachable"):
            found.append(f"{name} cannot be reached by SSH")
            continue
        parts = _parts(str(said.get("stdout") or ""))
        unread = str(said.get("stderr") or said.get("msg") or "it was not part of this run").strip()
        code, lines = parts.get("server", (1, [unread]))
        if code == 0:
            found += [f"the database on {name}: {line}" for line in lines]
        else:
            found.append(f"the database on {name} does not answer ({' '.join(lines)})")
        code, lines = parts.get("backups", (0, ["the check did not run"] if parts else []))
        if code != 0 and not lines:
            lines = [f"the check ended with {code} and printed nothing"]
        found += [f"backups of the database on {name}: {line}" for line in lines]
        probed = _result(hostvars, name, "__verify_database_probe")
        if "findings" in probed:
            found += probed["findings"]
        elif said:
            reason = str(probed.get("msg") or "no answer").strip()
            found.append(f"the ports of the database on {name} could not be probed ({reason})")
    return list(dict.fromkeys(found))


def storage_findings(hostvars: Mapping[str, Any], members: list[str], expected: list[str]) -> list[str]:
    """What the hosts of the storage cluster saw unmet, of its gateways too, and warnings that somebody muted.

    `expected` may be muted; a missing result is a finding.
    """
    found: list[str] = []
    for name in members:
        seen = _result(hostvars, name, "__verify_storage_seen")
        status = seen.get("status") or {}
        if unmet := seen.get("unmet"):
            found += [f"seen from {name}, {sentence}" for sentence in unmet]
        elif seen.get("failed") or "muted" not in status:
            found.append(_unread(name, seen))
        found += [
            f"the storage warning {code} is muted, which nobody declared"
            for code in status.get("muted") or []
            if code not in expected
        ]
        probed = _result(hostvars, name, "__verify_gateway_probe")
        found += probed["findings"] if "findings" in probed else [_unread(name, probed)]
    return list(dict.fromkeys(found))


def release_findings(name: str, lines: list[str], version: str) -> list[str]:
    """What a restart of the host would start, when that is not what is wanted."""
    if not lines:
        return [f"{name}: rke2 --version printed nothing; a reboot would start no RKE2. Run playbooks/rke2.yml."]
    if version not in lines[0].split():
        return [f"{name} would start another release after a reboot than {version}: {lines[0]}"]
    return []


def simulation(hostvars: Mapping[str, Any], servers: list[str]) -> str:
    """A sentence when a server's release says that it is a simulation, else an empty text."""
    for name in servers:
        lines = _result(hostvars, name, "__verify_seen").get("release") or []
        for line in reversed(lines):  # the last one says it in words
            if "simulation" in line:
                return f"RKE2 is a simulation ({line})."
    return ""


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "verify_ingress_probes": ingress_probes,
            "verify_closed_probes": closed_probes,
            "verify_closed_hosts": closed_hosts,
            "verify_server_findings": server_findings,
            "verify_database_findings": database_findings,
            "verify_database_probes": database_probes,
            "verify_storage_findings": storage_findings,
            "verify_simulation": simulation,
        }
