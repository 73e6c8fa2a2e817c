#!/usr/bin/python
"""Keep the object gateways of a Ceph cluster as they are declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ceph_object_gateways
short_description: Keep the object gateways of a Ceph cluster as they are declared
description:
  - Places the gateways on the hosts named, over TLS 1.3 only, and sets their options.
  - Gateways that run with an older certificate, port or option are started anew one after the other, each only when the
    one before serves again, so that somebody answers all the time where there is more than one.
  - Runs on a host of the cluster with a running daemon. The private key goes to the cluster by standard input.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Says what it would do.
options:
  scope:
    type: str
    choices: [view, keep]
    default: keep
    description: V(view) only reads the stored certificate.
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
    description: Address of each host that gets a gateway, by its name in the cluster.
  port:
    type: int
    default: 443
    description: TCP port.
  server_name:
    type: str
    default: ""
    description: Name under which they are asked.
  options:
    type: dict
    default: {}
    description: Further options of the gateways.
  private_key:
    type: str
    description: Private key of a new certificate, PEM.
  certificate:
    type: str
    description: A new certificate, PEM; left out as long as the stored one is good.
  timeout_seconds:
    type: int
    default: 300
    description: Seconds that a gateway has to serve after it was made or started anew.
"""

EXAMPLES = r"""
- name: Place two gateways
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
  description: The stored certificate without its key, PEM; empty when there is none.
  returned: always
  type: str
changes:
  description: What was done, or in check mode would be.
  returned: with O(scope=keep)
  type: list
undeclared:
  description: Other services of gateways.
  returned: with O(scope=keep)
  type: list
"""

import json
import time
from contextlib import suppress
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_gateway_read import NOTE, read, stored
from ansible_collections.slipway.platform.plugins.module_utils.ceph_members import as_text
from ansible_collections.slipway.platform.plugins.module_utils.ceph_object_gateways import (
    Found,
    Plan,
    Wanted,
    bundle,
    certificate_of,
    fingerprint,
    owed,
    plan,
    unmet,
)

POLL_SECONDS = 1.0
ANSWER_SECONDS = 60.0
"""A gateway that starts, or is busy, has so long to answer before it counts as dead."""


class GatewayError(Exception):
    """One sentence."""


def answered(cluster: Cluster, wanted: Wanted, addresses: dict[str, str]) -> Found:
    """What is there, once every gateway answers, or has not for a while."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        found = read(cluster, wanted, addresses)
        if all(gateway.certificate is not None for gateway in found.gateways) or time.monotonic() > deadline:
            return found
        time.sleep(POLL_SECONDS)


def wait(cluster: Cluster, wanted: Wanted, addresses: dict[str, str], seconds: float) -> Found:
    """Until every gateway serves."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = read(cluster, wanted, addresses, fresh=True)
            left = unmet(wanted, found)
            if not left:
                return found
        except CephError as error:
            left = [str(error)]
        if time.monotonic() > deadline:
            raise GatewayError(
                f"after {seconds:.0f} s {'; '.join(left)}. Look at `ceph orch ps --daemon_type rgw`, `ceph log last 50 "
                "cephadm` and the journal of that gateway, and run again"
            )
        time.sleep(POLL_SECONDS)


def restart(cluster: Cluster, wanted: Wanted, addresses: dict[str, str], name: str, seconds: float) -> None:
    """One gateway anew; done when it runs since then and presents the stored certificate."""
    before = next(one for one in read(cluster, wanted, addresses).gateways if one.name == name)
    cluster.run(["orch", "daemon", "redeploy", name])
    deadline = time.monotonic() + seconds
    while True:
        # While monitors elect, nobody answers for a moment.
        with suppress(CephError):
            found = read(cluster, wanted, addresses, fresh=True)
            now = next((one for one in found.gateways if one.name == name), None)
            if (
                now is not None
                and now.running
                and now.started != before.started
                and now.certificate == fingerprint(found.certificate)
                and not set(wanted.frontend) - set(now.frontend.split())
            ):
                note(cluster, wanted, [name])
                return
        if time.monotonic() > deadline:
            raise GatewayError(
                f"{name} was started anew and does not serve after {seconds:.0f} s; the others were left as they are. "
                f"Look at the journal of that gateway on {before.host}, and run again"
            )
        time.sleep(POLL_SECONDS)


def note(cluster: Cluster, wanted: Wanted, names: list[str]) -> None:
    for name in names:
        cluster.run(["config-key", "set", f"{NOTE}{name}", wanted.digest])


def apply(
    cluster: Cluster, wanted: Wanted, addresses: dict[str, str], found: Found, made: Plan, seconds: float
) -> None:
    """Options and certificate first: a gateway that is made or started later has them from its first second."""
    if made.certificate:
        cluster.run(["config-key", "set", wanted.certificate_key], input=made.certificate)
    for name, value in made.options.items():
        cluster.run(["config", "set", wanted.section, name, value])
    if made.spec:
        cluster.run(["orch", "apply"], input=json.dumps(made.spec))
    old = {gateway.name for gateway in found.gateways}
    if found.spec is None:
        found = wait(cluster, wanted, addresses, seconds)
        # Made by this run, after everything that they read.
        note(cluster, wanted, [one.name for one in found.gateways if one.name not in old])
    for name in made.restart:
        restart(cluster, wanted, addresses, name, seconds)
    found = wait(cluster, wanted, addresses, seconds)
    for gateway in found.gateways:
        if owed(wanted, gateway, fingerprint(found.certificate)):
            restart(cluster, wanted, addresses, gateway.name, seconds)


def options() -> dict[str, Any]:
    return {
        "scope": {"type": "str", "choices": ["view", "keep"], "default": "keep"},
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
        if given["scope"] == "view":
            pem = certificate_of(stored(cluster, wanted.certificate_key))
            module.exit_json(changed=False, certificate=pem)
        issued = bundle(given["private_key"], given["certificate"]) if given["certificate"] else ""
        found = answered(cluster, wanted, given["hosts"])
        made = plan(wanted, found, issued)
        if made.faults:
            raise GatewayError("; ".join(made.faults))
        if made.changes and not module.check_mode:
            apply(cluster, wanted, given["hosts"], found, made, given["timeout_seconds"])
        elif unmet(wanted, found) and not module.check_mode:
            wait(cluster, wanted, given["hosts"], given["timeout_seconds"])
    except (CephError, GatewayError) as error:
        module.fail_json(msg=f"The object gateways rgw.{given['name']}: {error}.")
    module.exit_json(
        changed=bool(made.changes),
        changes=made.changes,
        undeclared=list(found.other_services),
        certificate=certificate_of(issued or found.certificate),
        diff={"before": "", "after": "".join(f"{change}\n" for change in made.changes)},
    )


if __name__ == "__main__":
    main()
