#!/usr/bin/python
"""Ansible module: reconcile the object gateways of a Ceph cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ceph_object_gateways
short_description: Reconcile the object gateways of a Ceph cluster
description:
  - Deploys the gateways on the given hosts, with TLS 1.3 only, and sets their options.
  - Gateways that run with an outdated certificate, port or option are restarted one after the other, each only when the
    previous one serves again, so that with two or more gateways one is always available.
  - Runs on a host of the cluster with a running daemon. The private key is passed by standard input.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports the changes without making them.
options:
  scope:
    type: str
    choices: [read, reconcile]
    default: reconcile
    description: V(read) only reads the stored certificate.
  fsid:
    type: str
    required: true
    description: The cluster's UUID.
  name:
    type: str
    required: true
    description: Name of the service, behind C(rgw.).
  hosts:
    type: dict
    default: {}
    description: Address of each host with a gateway, by its name in the cluster.
  port:
    type: int
    default: 443
    description: TCP port.
  server_name:
    type: str
    default: ""
    description: DNS name of the gateways.
  options:
    type: dict
    default: {}
    description: Further options of the gateways.
  private_key:
    type: str
    description: Private key of a new certificate, PEM.
  certificate:
    type: str
    description: A new certificate, PEM; omitted while the stored one is valid.
  timeout_seconds:
    type: int
    default: 300
    description: Timeout in seconds for a gateway to serve after its creation or restart.
"""

EXAMPLES = r"""
- name: Deploy two gateways
  slipway.platform.ceph_object_gateways:
    fsid: 899f40b4-a686-4ead-b19f-4ab5cb0001db
    name: s3
    hosts: {ceph-1: 10.0.1.51, ceph-2: 10.0.1.52}
    server_name: s3.example.com
    private_key: "{{ issued.privatekey }}"
    certificate: "{{ issued.certificate }}"
  no_log: true
"""

RETURN = r"""
certificate:
  description: The stored certificate without its key, PEM; empty without one.
  returned: always
  type: str
changes:
  description: Changes that were made, or would be.
  returned: with O(scope=reconcile)
  type: list
undeclared:
  description: Undeclared gateway services.
  returned: with O(scope=reconcile)
  type: list
"""

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_gateway_read import (
    MARKER_PREFIX,
    read,
    read_config_key,
)
from ansible_collections.slipway.platform.plugins.module_utils.ceph_members import as_text
from ansible_collections.slipway.platform.plugins.module_utils.ceph_object_gateways import (
    Found,
    Plan,
    Wanted,
    bundle,
    certificate_of,
    fingerprint,
    plan,
    restart_reason,
    unmet,
)
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 1.0
ANSWER_SECONDS = 60.0
"""Timeout for an answer of a gateway that is starting or busy."""


class GatewayError(Exception):
    """A fault of the gateways, as one message."""


def read_answering(cluster: Cluster, wanted: Wanted, addresses: dict[str, str]) -> Found:
    """The actual state once every gateway answers, or after the timeout."""
    try:
        return wait_until(
            "Gateways",
            lambda: read(cluster, wanted, addresses),
            lambda found: [f"{one.name} does not answer" for one in found.gateways if one.certificate is None],
            timeout_seconds=ANSWER_SECONDS,
            interval_seconds=POLL_SECONDS,
        )
    except NotMet as error:
        found: Found = error.value
        return found


def wait(cluster: Cluster, wanted: Wanted, addresses: dict[str, str], timeout_seconds: float) -> Found:
    """Wait until every gateway serves."""
    try:
        return wait_until(
            "not serving",
            lambda: read(cluster, wanted, addresses, fresh=True),
            lambda found: unmet(wanted, found),
            timeout_seconds=timeout_seconds,
            interval_seconds=POLL_SECONDS,
            passing=CephError,
        )
    except NotMet as error:
        raise GatewayError(
            f"{error}. Read `ceph orch ps --daemon_type rgw`, `ceph log last 50 cephadm` and the journal of that "
            "gateway, and run again"
        ) from error


def restart(cluster: Cluster, wanted: Wanted, addresses: dict[str, str], name: str, timeout_seconds: float) -> None:
    """Restart one gateway, and wait until it presents the stored certificate."""
    before = next(one for one in read(cluster, wanted, addresses).gateways if one.name == name)
    cluster.run(["orch", "daemon", "redeploy", name])

    def not_serving(found: Found) -> list[str]:
        now = next((one for one in found.gateways if one.name == name), None)
        if now is None or not now.running:
            return ["it does not run"]
        if now.started == before.started:
            return ["the orchestrator has not restarted it yet"]
        if now.certificate != fingerprint(found.certificate):
            return ["it does not present the stored certificate"]
        if set(wanted.frontend) - set(now.frontend.split()):
            return ["it runs with other options"]
        store_markers(cluster, wanted, [name])  # here, so that it is retried during an election too
        return []

    try:
        wait_until(
            f"{name}: not serving after its restart",
            lambda: read(cluster, wanted, addresses, fresh=True),
            not_serving,
            timeout_seconds=timeout_seconds,
            interval_seconds=POLL_SECONDS,
            passing=CephError,
        )
    except NotMet as error:
        raise GatewayError(
            f"{error}; no other gateway was restarted. Read the journal of that gateway on {before.host}, and run again"
        ) from error


def store_markers(cluster: Cluster, wanted: Wanted, names: list[str]) -> None:
    for name in names:
        cluster.run(["config-key", "set", f"{MARKER_PREFIX}{name}", wanted.digest])


def apply(
    cluster: Cluster, wanted: Wanted, addresses: dict[str, str], found: Found, planned: Plan, timeout_seconds: float
) -> None:
    """Store options and certificate first, so that every gateway starts with them."""
    if planned.certificate:
        cluster.run(["config-key", "set", wanted.certificate_key], input=planned.certificate)
    for name, value in planned.options.items():
        cluster.run(["config", "set", wanted.section, name, value])
    if planned.spec:
        cluster.run(["orch", "apply"], input=json.dumps(planned.spec))
    old = {gateway.name for gateway in found.gateways}
    if found.spec is None:
        found = wait(cluster, wanted, addresses, timeout_seconds)
        # Deployed by this run, after everything that they read at their start.
        store_markers(cluster, wanted, [one.name for one in found.gateways if one.name not in old])
    for name in planned.restart:
        restart(cluster, wanted, addresses, name, timeout_seconds)
    found = wait(cluster, wanted, addresses, timeout_seconds)
    for gateway in found.gateways:
        if restart_reason(wanted, gateway, fingerprint(found.certificate)):
            restart(cluster, wanted, addresses, gateway.name, timeout_seconds)


def options() -> dict[str, Any]:
    return {
        "scope": {"type": "str", "choices": ["read", "reconcile"], "default": "reconcile"},
        "fsid": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "hosts": {"type": "dict", "default": {}},
        "port": {"type": "int", "default": 443},
        "server_name": {"type": "str", "default": ""},
        "options": {"type": "dict", "default": {}},
        "private_key": {"type": "str", "no_log": True},
        "certificate": {"type": "str"},
        "timeout_seconds": {"type": "int", "default": 300},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=options(),
        required_together=[("private_key", "certificate")],
        supports_check_mode=True,
    )
    given = module.params
    wanted = Wanted(
        name=given["name"],
        hosts=tuple(given["hosts"]),
        port=given["port"],
        server_name=given["server_name"],
        options={name: as_text(value) for name, value in given["options"].items()},
    )
    cluster = Cluster(module.run_command, given["fsid"])
    try:
        if given["scope"] == "read":
            pem = certificate_of(read_config_key(cluster, wanted.certificate_key))
            module.exit_json(changed=False, certificate=pem)
        issued = bundle(given["private_key"], given["certificate"]) if given["certificate"] else ""
        found = read_answering(cluster, wanted, given["hosts"])
        planned = plan(wanted, found, issued)
        if planned.faults:
            raise GatewayError("; ".join(planned.faults))
        if planned.changes and not module.check_mode:
            apply(cluster, wanted, given["hosts"], found, planned, given["timeout_seconds"])
        elif unmet(wanted, found) and not module.check_mode:
            wait(cluster, wanted, given["hosts"], given["timeout_seconds"])
    except (CephError, GatewayError) as error:
        module.fail_json(msg=f"Object gateways rgw.{given['name']}: {error}.")
    module.exit_json(
        changed=bool(planned.changes),
        changes=planned.changes,
        undeclared=list(found.other_services),
        certificate=certificate_of(issued or found.certificate),
        diff={"before": "", "after": "".join(f"{change}\n" for change in planned.changes)},
    )


if __name__ == "__main__":
    main()
