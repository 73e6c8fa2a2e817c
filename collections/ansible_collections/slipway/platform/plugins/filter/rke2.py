"""Filters of the rke2 role: thin wrappers around module_utils."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils import (
    certificates,
    rke2_documents,
    rke2_plan,
    rke2_read,
    rke2_restore,
)


def plan(states: Mapping[str, Any], version: str, servers: list[str], agents: list[str]) -> dict[str, Any]:
    """The action of each node; see module_utils/rke2_plan.py."""
    return rke2_plan.plan(dict(states), version=version, servers=list(servers), agents=list(agents))


def states(hostvars: Mapping[str, Any], hosts: list[str]) -> dict[str, Any]:
    """The result of rke2_state on each of the hosts, by name; without hosts that were not read in this run."""
    observed = {}
    for host in hosts:
        result = hostvars[host].get("__rke2_observed") or {} if host in hostvars else {}
        if "state" in result:
            observed[host] = result["state"]
    return observed


def digests(files: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The files with a digest in place of their content, which may hold secrets."""
    return [
        {
            "path": file["path"],
            "mode": file["mode"],
            "restart": file["restart"],
            "sha256": hashlib.sha256(file["content"].encode()).hexdigest(),
        }
        for file in files
    ]


def certificate(states: Mapping[str, Any], servers: list[str], authority: str, names: list[str], days: int) -> Any:
    """Whether the servers' common ingress certificate has to be issued or only distributed, and from which server."""
    holders = rke2_plan.certificate_holders(dict(states), list(servers))
    reasons = {}
    for digest, members in holders.items():
        pem = states[members[0]]["ingress_certificate"]["pem"] if digest else ""
        reasons[digest] = certificates.certificate_due(pem, authority=authority, names=list(names), days=days)
    valid = [digest for digest, reason in reasons.items() if not reason]
    if valid:
        source = holders[valid[0]][0]
        return {"issue_needed": False, "distribution_needed": len(holders) > 1, "source": source, "reason": ""}
    reason = "; ".join(sorted(set(reasons.values())))
    return {"issue_needed": True, "distribution_needed": True, "source": servers[0], "reason": reason}


def recovery_action(state: Mapping[str, Any]) -> str:
    """What a server that holds data needs before the plan is made."""
    return rke2_plan.recovery_action(dict(state))


def immutable_faults(state: Mapping[str, Any], desired: Mapping[str, Any], token: str) -> list[str]:
    """Immutable settings that differ from those the cluster was bootstrapped with."""
    return rke2_plan.immutable_faults(dict(state), dict(desired), rke2_read.token_digest(str(token)))


def minor(version: str) -> str:
    """v1.36.3+rke2r1 -> 1.36."""
    try:
        return rke2_plan.minor_of(version)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def kubeconfig_source(states: Mapping[str, Any], servers: list[str]) -> dict[str, str]:
    """The first server whose API responds, and the digest of the cluster's certificate authority there."""
    for name in servers:
        api = states.get(name, {}).get("api")
        if api and api["authority_digest"] and not api["error"]:
            return {"server": name, "digest": api["authority_digest"]}
    return {"server": servers[0], "digest": ""}


def kubeconfig(text: str, server: str, tls_name: str, name: str) -> str:
    """RKE2's kubeconfig with another server address and context name."""
    try:
        return rke2_documents.rewrite_kubeconfig(str(text), server=str(server), tls_name=str(tls_name), name=str(name))
    except (KeyError, IndexError, TypeError) as error:
        raise AnsibleFilterError("rke2_kubeconfig: the input is not RKE2's kubeconfig") from error
    except ValueError as error:
        raise AnsibleFilterError(
            f"rke2_kubeconfig_server: {error}. The kubeconfig is unchanged; correct the address of the load balancer"
        ) from error


def kubeconfig_due(text: str, authority_digest: str, server: str, tls_name: str, name: str, days: int) -> str:
    """Why the controller's kubeconfig has to be fetched again, or an empty text."""
    return rke2_documents.kubeconfig_due(
        text or "", authority_digest=authority_digest, server=server, tls_name=tls_name, name=name, days=days
    )


def without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping without keys whose value is empty."""
    if not isinstance(values, Mapping):
        raise AnsibleFilterError(f"rke2_without_empty: the input is a {type(values).__name__}, not a mapping")
    return rke2_documents.without_empty(values)


def token_fingerprints(token: str) -> list[str]:
    """The fingerprints of a server token that a snapshot's manifest may have."""
    return list(rke2_restore.fingerprints(str(token)))


def restore_plan(hosts: Mapping[str, Any], request: Mapping[str, Any], servers: list[str], now: str) -> dict[str, Any]:
    """Target and progress of a restore of etcd; see module_utils/rke2_restore.py."""
    return rke2_restore.plan(dict(request), dict(hosts), list(servers), str(now))


def restore_record(planned: Mapping[str, Any], request: Mapping[str, Any], snapshot: Any, host: str) -> dict[str, Any]:
    """The record of one server at the start of a restore."""
    step = planned["steps"].get(host, "none")
    return rke2_restore.next_record(dict(request), dict(planned), snapshot or None, step)


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "rke2_plan": plan,
            "rke2_recovery_action": recovery_action,
            "rke2_kubeconfig_source": kubeconfig_source,
            "rke2_immutable_faults": immutable_faults,
            "rke2_minor": minor,
            "rke2_states": states,
            "rke2_digests": digests,
            "rke2_certificate": certificate,
            "rke2_kubeconfig": kubeconfig,
            "rke2_kubeconfig_due": kubeconfig_due,
            "rke2_without_empty": without_empty,
            "rke2_token_fingerprints": token_fingerprints,
            "rke2_restore_plan": restore_plan,
            "rke2_restore_record": restore_record,
        }
