"""Filters of the rke2 role: thin doors onto module_utils."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils import certificates, rke2_documents, rke2_plan, rke2_read


def plan(states: Mapping[str, Any], version: str, servers: list[str], agents: list[str]) -> dict[str, Any]:
    """What each node needs; see module_utils/rke2_plan.py."""
    return rke2_plan.plan(dict(states), version=version, servers=list(servers), agents=list(agents))


def states(hostvars: Mapping[str, Any], hosts: list[str]) -> dict[str, Any]:
    """What rke2_state read on each of the hosts, by name; hosts that were not read are left out."""
    found = {}
    for host in hosts:
        read = hostvars[host].get("__rke2_read") or {} if host in hostvars else {}
        if "state" in read:
            found[host] = read["state"]
    return found


def digests(files: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The files without their content: a digest says as much, and holds no secret."""
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
    """Whether the servers' common ingress certificate has to be issued or only handed round, and from whom."""
    holders = rke2_plan.certificate_holders(dict(states), list(servers))
    reasons = {}
    for digest, members in holders.items():
        pem = states[members[0]]["ingress_certificate"]["pem"] if digest else ""
        reasons[digest] = certificates.certificate_due(pem, authority=authority, names=list(names), days=days)
    good = [digest for digest, reason in reasons.items() if not reason]
    if good:
        source = holders[good[0]][0]
        return {"issue": False, "spread": len(holders) > 1, "source": source, "reason": ""}
    return {"issue": True, "spread": True, "source": servers[0], "reason": "; ".join(sorted(set(reasons.values())))}


def recover(state: Mapping[str, Any]) -> str:
    """What a server with data needs before the plan can be made."""
    return rke2_plan.recover_action(dict(state))


def constant_faults(state: Mapping[str, Any], wanted: Mapping[str, Any], token: str) -> list[str]:
    """Settings that would change under a running cluster though they never may."""
    return rke2_plan.constant_faults(dict(state), dict(wanted), rke2_read.token_digest(str(token)))


def minor(version: str) -> str:
    """v1.36.3+rke2r1 -> 1.36."""
    try:
        return rke2_plan.minor_of(version)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def authority(states: Mapping[str, Any], servers: list[str]) -> dict[str, str]:
    """The first server whose API answers, and the digest of the cluster's authority as it knows it."""
    for name in servers:
        api = states.get(name, {}).get("api")
        if api and api["authority_digest"] and not api["error"]:
            return {"server": name, "digest": api["authority_digest"]}
    return {"server": servers[0], "digest": ""}


def kubeconfig(text: str, server: str, tls_name: str, name: str) -> str:
    """RKE2's kubeconfig with another server address and name."""
    try:
        return rke2_documents.rewrite_kubeconfig(str(text), server=str(server), tls_name=str(tls_name), name=str(name))
    except (KeyError, IndexError, TypeError) as error:
        raise AnsibleFilterError("rke2_kubeconfig was given a text that is not RKE2's kubeconfig") from error


def kubeconfig_due(text: str, authority_digest: str, server: str, tls_name: str, name: str, days: int) -> str:
    """Why the controller's kubeconfig has to be fetched anew, or an empty text."""
    return rke2_documents.kubeconfig_due(
        text or "", authority_digest=authority_digest, server=server, tls_name=tls_name, name=name, days=days
    )


def without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping without keys that hold nothing."""
    if not isinstance(values, Mapping):
        raise AnsibleFilterError(f"rke2_without_empty takes a mapping, not {type(values).__name__}")
    return rke2_documents.without_empty(values)


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "rke2_plan": plan,
            "rke2_recover": recover,
            "rke2_authority": authority,
            "rke2_constant_faults": constant_faults,
            "rke2_minor": minor,
            "rke2_states": states,
            "rke2_digests": digests,
            "rke2_certificate": certificate,
            "rke2_kubeconfig": kubeconfig,
            "rke2_kubeconfig_due": kubeconfig_due,
            "rke2_without_empty": without_empty,
        }
