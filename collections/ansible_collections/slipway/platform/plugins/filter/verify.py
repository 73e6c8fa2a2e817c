"""Filters of the verify role: probes for slipway.platform.probe, and findings from registered results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils import certificates


def _result(hostvars: Mapping[str, Any], host: str, variable: str) -> Mapping[str, Any]:
    """The result that a host registered; empty where the host or the result is missing."""
    return (hostvars[host].get(variable) if host in hostvars else None) or {}


def _missing_result(name: str, result: Mapping[str, Any]) -> str:
    """The finding for a host's check without a result."""
    if result.get("unreachable"):
        return f"{name} cannot be reached by SSH"
    reason = str(result.get("msg") or "it was not part of this run").strip()
    return f"{name}: a check has no result ({reason}). Correct that and run playbooks/verify.yml for all hosts."


def ingress_probes(
    names: list[str], address: str, authority: str, statuses: list[int], valid_days: int = 0
) -> list[dict[str, Any]]:
    """Probes of every public name: TLS 1.3 answers, TLS 1.2 is rejected, plain HTTP redirects to HTTPS."""
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
    """A probe of every port that must be closed, and one of every control port, which must answer."""
    controls: dict[tuple[str, int], dict[str, Any]] = {}
    probes: list[dict[str, Any]] = []
    for host in hosts:
        if ":" in host["address"] and not ipv6_enabled:
            continue
        control = {"name": host["control_name"], "address": host["control_address"], "port": host["control_port"]}
        controls.setdefault((control["address"] or control["name"], control["port"]), {"kind": "open", **control})
        # Without an address the control port is the finding.
        ports = host["ports"] if host["address"] else []
        probes += [{"name": host["name"], "kind": "closed", "address": host["address"], "port": port} for port in ports]
    return [*controls.values(), *probes]


def closed_hosts(ports: Mapping[str, list[int]], hostvars: Mapping[str, Any], balancer: str) -> list[dict[str, Any]]:
    """Ports that must be closed on every public address of the hosts, each with its control port.

    The control port is SSH of the host, or HTTPS of the load balancer for IPv6, because platform_admin_cidrs may hold
    IPv4 ranges only. A host that is reached at its private address cannot be probed from outside by this controller.
    """
    ipv6 = next((address for address in hostvars[balancer].get("hcloud_addresses") or [] if ":" in address), "")
    found = []
    for host, closed in ports.items():
        variables = hostvars[host]
        host_address = variables.get("ansible_host") or ""
        reached_at = variables.get("ansible_ssh_host") or host_address
        if reached_at and reached_at == variables.get("provision_private_ip"):
            continue
        for address in variables.get("hcloud_addresses") or [host_address]:
            control = (balancer, ipv6, 443) if ":" in address else (host, address, 22)
            found.append(
                {"name": host, "address": address, "ports": list(closed)}
                | dict(zip(("control_name", "control_address", "control_port"), control, strict=True))
            )
    return found


def server_findings(hostvars: Mapping[str, Any], servers: list[str], version: str, valid_days: int = 0) -> list[str]:
    """Findings of the servers: unmet conditions, another release after a reboot, an ingress certificate near expiry."""
    if not servers:
        return ["rke2_server: no server was verified. Name the servers in the inventory's hosts.yml."]
    found: list[str] = []
    for name in servers:
        status = _result(hostvars, name, "__verify_server_status")
        if "unmet" not in status or (status.get("failed") and not status["unmet"]):
            found.append(_missing_result(name, status))
        else:
            found += [f"seen from {name}, {sentence}" for sentence in status["unmet"]]
            found += release_findings(name, status.get("release") or [], version)
            if reason := certificates.expiry_due(str(status.get("ingress_certificate") or ""), int(valid_days)):
                found.append(f"the certificate of RKE2's ingress: {reason}. Run playbooks/rke2.yml.")
            if reason := certificates.expiry_due(str(status.get("serving_certificate") or ""), int(valid_days)):
                # RKE2 renews its certificates when it starts.
                found.append(f"{name}: the certificate of the API server: {reason}. Restart rke2-server on this host.")
            found += [
                f"node {node} is cordoned and takes no new pods. Finish its maintenance: kubectl uncordon {node}"
                for node in status.get("cordoned") or []
            ]
    return list(dict.fromkeys(found))


def host_findings(hostvars: Mapping[str, Any], hosts: Sequence[str]) -> list[str]:
    """Findings of every host: its drift, and ports of others that are open to it; a missing result is a finding."""
    found: list[str] = []
    for name in hosts:
        drift = _result(hostvars, name, "__verify_host_drift")
        probe = _result(hostvars, name, "__verify_host_probe")
        if "findings" in drift:
            found += [f"{name}: {sentence}" for sentence in drift["findings"]]
            found += probe["findings"] if "findings" in probe else [_missing_result(name, probe)]
        else:
            found.append(_missing_result(name, drift))
    return found


def bucket_findings(result: Mapping[str, Any]) -> list[str]:
    """Findings of the comparison of the buckets, which is skipped without a store."""
    if result.get("skipped"):
        return []
    if result.get("failed") or "changes" not in result:
        return [f"the buckets of the object storage cannot be compared: {result.get('msg') or 'there is no result'}"]
    remedy = "Find out who changed it; playbooks/object_storage.yml restores the declared state."
    return [f"the object storage differs from its declaration ({change}). {remedy}" for change in result["changes"]]


def database_probes(host: str, server_name: str, authority: str, valid_days: int) -> list[dict[str, Any]]:
    """Probes of PostgreSQL and PgBouncer as clients connect, from the host itself: the firewall drops other hosts."""
    common: dict[str, Any] = {"name": host, "kind": "postgres", "address": host, "server_name": server_name}
    common |= {"authority": authority, "valid_days": int(valid_days)}
    return [{**common, "port": port} for port in (5432, 6432)]


TIMEOUT_EXIT_CODE = 124
"""Of `timeout`, in roles/verify/files/database.sh."""


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


def _write_findings(name: str, result: tuple[int, list[str]] | None) -> list[str]:
    if result is None:
        return [f"the database on {name}: the write check did not run"]
    code, lines = result
    if code == TIMEOUT_EXIT_CODE:
        return [f"the database on {name} does not confirm a write: is the disk full, or a synchronous standby down?"]
    return [f"the database on {name} accepts no write ({' '.join(lines) or f'exit code {code}'})"] if code else []


def database_findings(hostvars: Mapping[str, Any], hosts: list[str]) -> list[str]:
    """Findings of the database hosts and of client connections; a missing result is a finding."""
    found: list[str] = []
    for name in hosts:
        status = _result(hostvars, name, "__verify_database_status")
        if status.get("unreachable"):
            found.append(f"{name} cannot be reached by SSH")
            continue
        parts = _parts(str(status.get("stdout") or ""))
        reason = str(status.get("stderr") or status.get("msg") or "it was not part of this run").strip()
        code, lines = parts.get("server", (1, [reason]))
        if code == 0:
            found += [f"the database on {name}: {line}" for line in lines]
            found += _write_findings(name, parts.get("write"))
        else:
            found.append(f"the database on {name} does not answer ({' '.join(lines)})")
        code, lines = parts.get("backups", (0, ["the check did not run"] if parts else []))
        if code != 0 and not lines:
            lines = [f"the check ended with {code} and printed nothing"]
        found += [f"backups of the database on {name}: {line}" for line in lines]
        probed = _result(hostvars, name, "__verify_database_probe")
        if "findings" in probed:
            found += probed["findings"]
        elif status:
            reason = str(probed.get("msg") or "no answer").strip()
            found.append(f"the ports of the database on {name} could not be probed ({reason})")
    return list(dict.fromkeys(found))


def storage_findings(hostvars: Mapping[str, Any], members: list[str], expected: list[str]) -> list[str]:
    """Findings of the Ceph hosts and object gateways, and muted warnings other than the `expected` ones."""
    found: list[str] = []
    for name in members:
        status = _result(hostvars, name, "__verify_storage_status")
        cluster = status.get("status") or {}
        if unmet := status.get("unmet"):
            found += [f"seen from {name}, {sentence}" for sentence in unmet]
        elif status.get("failed") or "muted" not in cluster:
            found.append(_missing_result(name, status))
        found += [
            f"the Ceph health warning {code} is muted, but not declared in verify_storage_expected_warnings"
            for code in cluster.get("muted") or []
            if code not in expected
        ]
        probed = _result(hostvars, name, "__verify_gateway_probe")
        found += probed["findings"] if "findings" in probed else [_missing_result(name, probed)]
    return list(dict.fromkeys(found))


def snapshot_findings(hostvars: Mapping[str, Any], hosts: list[str]) -> list[str]:
    """Findings of the hosts that save snapshots; a missing result is a finding."""
    found: list[str] = []
    for name in hosts:
        status = _result(hostvars, name, "__verify_snapshot_status")
        if status.get("rc") == 0 and "stdout" in status:
            found += [f"snapshots of {name}: {line}" for line in status["stdout"].splitlines() if line.strip()]
        else:
            found.append(_missing_result(name, {**status, "msg": status.get("stderr") or status.get("msg")}))
    return found


def release_findings(name: str, lines: list[str], version: str) -> list[str]:
    """A finding if a restart of the host would start another release than the expected one."""
    if not lines:
        return [f"{name}: rke2 --version printed nothing; a reboot would start no RKE2. Run playbooks/rke2.yml."]
    if version not in lines[0].split():
        return [f"{name} would start another release after a reboot than {version}: {lines[0]}"]
    return []


RUNNER_PARTS = {
    "service": "the service gitlab-runner does not run",
    "release": "its version cannot be read",
    "tokens": "the server does not accept its tokens",
    "firewall": "the firewall of build jobs is not loaded",
    "prune": "the timer gitlab-runner-prune does not run",
}
"""Parts of roles/verify/files/runner.sh, and the finding of each."""


def runner_findings(hostvars: Mapping[str, Any], hosts: list[str]) -> list[str]:
    """Findings of the hosts of GitLab Runner; a missing result is a finding."""
    found: list[str] = []
    for name in hosts:
        status = _result(hostvars, name, "__verify_runner_status")
        parts = _parts(str(status.get("stdout") or ""))
        if not parts:
            found.append(_missing_result(name, {**status, "msg": status.get("stderr") or status.get("msg")}))
            continue
        for part, finding in RUNNER_PARTS.items():
            code, lines = parts.get(part, (1, ["the check did not run"]))
            if code:
                found.append(f"GitLab Runner on {name}: {finding} ({' '.join(lines) or f'exit code {code}'})")
    return found


def chart_findings(hostvars: Mapping[str, Any], hosts: list[str]) -> list[str]:
    """Findings about charts, from the server that read their state; a missing result is a finding."""
    return _findings(hostvars, hosts, "__verify_chart_status")


def rancher_findings(hostvars: Mapping[str, Any], hosts: list[str]) -> list[str]:
    """Findings about Rancher, from the server that read its state; a missing result is a finding."""
    return _findings(hostvars, hosts, "__verify_rancher_status")


def _findings(hostvars: Mapping[str, Any], hosts: Sequence[str], variable: str) -> list[str]:
    found: list[str] = []
    for name in hosts:
        status = _result(hostvars, name, variable)
        found += status["findings"] if "findings" in status else [_missing_result(name, status)]
    return found


def simulation(
    hostvars: Mapping[str, Any], servers: list[str], runners: Sequence[str] = (), chart_hosts: Sequence[str] = ()
) -> str:
    """The notes on simulations, as RKE2's release, GitLab Runner and charts declare them; else an empty string."""
    notes = [*_runner_simulations(hostvars, runners), *_chart_simulations(hostvars, chart_hosts)]
    return " ".join(filter(None, [_rke2_simulation(hostvars, servers), *notes]))


def _chart_simulations(hostvars: Mapping[str, Any], hosts: Sequence[str]) -> list[str]:
    results = [_result(hostvars, name, "__verify_chart_status").get("charts") or {} for name in hosts]
    return [
        f"Chart {name} {state['version']} has a simulation."
        for charts in results
        for name, state in charts.items()
        if state["simulation"]
    ]


def _runner_simulations(hostvars: Mapping[str, Any], runners: Sequence[str]) -> list[str]:
    results = [_parts(str(_result(hostvars, name, "__verify_runner_status").get("stdout") or "")) for name in runners]
    releases = [line for parts in results for line in parts.get("release", (1, []))[1]]
    return list(dict.fromkeys(f"GitLab Runner is a simulation ({line})." for line in releases if "simulation" in line))


def _rke2_simulation(hostvars: Mapping[str, Any], servers: list[str]) -> str:
    for name in servers:
        lines = _result(hostvars, name, "__verify_server_status").get("release") or []
        for line in reversed(lines):  # the last line is the most explicit one
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
            "verify_bucket_findings": bucket_findings,
            "verify_host_findings": host_findings,
            "verify_server_findings": server_findings,
            "verify_database_findings": database_findings,
            "verify_database_probes": database_probes,
            "verify_chart_findings": chart_findings,
            "verify_rancher_findings": rancher_findings,
            "verify_runner_findings": runner_findings,
            "verify_snapshot_findings": snapshot_findings,
            "verify_storage_findings": storage_findings,
            "verify_simulation": simulation,
        }
