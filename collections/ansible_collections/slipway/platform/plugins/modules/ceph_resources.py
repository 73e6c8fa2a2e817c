"""Ansible module: keep the pools, file systems and clients of a Ceph cluster as they are declared."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_resources
short_description: Keep pools, file systems and clients as declared
description:
  - Runs on a host whose monitor is in the quorum. Reads all of them at once, compares, and does what is missing.
  - Nothing is removed. What is there and not declared is returned as C(unclaimed).
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports what would be done.
  diff_mode:
    support: full
    description: One line a step; never a key.
options:
  scope:
    type: str
    choices: [pools, clients]
    required: true
    description: V(pools) keeps pools, their namespaces and the file systems on them; V(clients) keeps users.
  fsid:
    type: str
    required: true
    description: The cluster's UUID.
  pools:
    type: list
    elements: dict
    default: []
    description: Pools as in the role's C(ceph_pools).
  filesystems:
    type: list
    elements: dict
    default: []
    description: File systems as in the role's C(ceph_filesystems).
  clients:
    type: list
    elements: dict
    default: []
    description: Clients as in the role's C(ceph_clients).
  confirm:
    type: list
    elements: str
    default: []
    description: Pools whose size, min_size or CRUSH rule may change.
  hosts:
    type: list
    elements: str
    default: []
    description: Hosts of the cluster in order; metadata servers run on the first two.
  key_type:
    type: str
    choices: [aes, aes256k]
    default: aes
    description: Type of new keys.
  default_size:
    type: int
    default: 3
    description: Copies in a pool that does not say how many.
  keyrings:
    type: list
    elements: str
    default: []
    description: Names of clients whose keyrings are returned.
  timeout_seconds:
    type: int
    default: 300
    description: Seconds in which a file system has to be served.
"""

EXAMPLES = r"""
- name: Keep the pools
  slipway.platform.ceph_resources:
    scope: pools
    fsid: 0f4e2f4c-8f0c-4a7c-9a0e-2f9f3a1c7d11
    pools:
      - name: kubernetes
        application: rbd
        namespaces: [prod]
    hosts: [prod-ceph-1, prod-ceph-2, prod-ceph-3]
"""

RETURN = r"""
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
unclaimed:
  description: What is there and not declared, as sentences.
  returned: success
  type: list
  elements: str
keyrings:
  description: Text of the keyrings asked for, by client. Secret.
  returned: with O(keyrings)
  type: dict
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_resources as plan
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_resource_read import look

POLL_SECONDS = 2.0


def apply(cluster: Cluster, steps: list[plan.Step]) -> None:
    for step in steps:
        if step.tool:
            cluster.tool(list(step.command), step.input)
        else:
            cluster.run(list(step.command), input=step.input)


def served(module: AnsibleModule, cluster: Cluster, wanted: plan.Wanted) -> dict[str, Any]:
    """The view once every file system has an active metadata server."""
    began = time.monotonic()
    while True:
        try:
            view = look(cluster, wanted)
            left = plan.inactive(view, wanted)
            if not left:
                return view
        except CephError as error:
            left = [str(error)]
        if time.monotonic() - began > module.params["timeout_seconds"]:
            log = cluster.run(["log", "last", "15", "info", "cephadm"]).strip()
            module.fail_json(
                msg=f"After {time.monotonic() - began:.0f} s {'; '.join(left)}. The orchestrator says:\n{log}"
            )
        time.sleep(POLL_SECONDS)


def keep_pools(module: AnsibleModule, cluster: Cluster, wanted: plan.Wanted) -> tuple[list[plan.Step], dict[str, Any]]:
    view = look(cluster, wanted)
    pools, filesystems = plan.pool_steps(view, wanted), plan.filesystem_steps(view, wanted)
    stop(module, [*pools.faults, *filesystems.faults])
    steps = [*pools.steps, *filesystems.steps]
    if not module.check_mode:
        apply(cluster, steps)
    # In check mode, what was not made never serves; what is there may be changing hosts.
    if (not module.check_mode) if steps else plan.inactive(view, wanted):
        view = served(module, cluster, wanted)
    later = [*plan.namespace_steps(view, wanted), *plan.group_steps(view, wanted)]
    if not module.check_mode:
        apply(cluster, later)
    return [*steps, *later], view


def keep_clients(
    module: AnsibleModule, cluster: Cluster, wanted: plan.Wanted
) -> tuple[list[plan.Step], dict[str, Any]]:
    stop(module, plan.client_faults(wanted))
    view = look(cluster, plan.Wanted(clients=wanted.clients, key_type=wanted.key_type))
    clients = plan.client_steps(view, wanted)
    if not module.check_mode:
        try:
            apply(cluster, clients.steps)
        except CephError:
            if plan.CLOSE in clients.steps:
                cluster.run(list(plan.CLOSE.command))
            raise
    return clients.steps, view


def stop(module: AnsibleModule, faults: list[str]) -> None:
    if faults:
        module.fail_json(msg="\n".join(faults))


def main() -> None:
    rows = {"type": "list", "elements": "dict", "default": []}
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "scope": {"type": "str", "required": True, "choices": ["pools", "clients"]},
            "fsid": {"type": "str", "required": True},
            "pools": rows,
            "filesystems": rows,
            "clients": rows,
            "confirm": names,
            "hosts": names,
            "key_type": {"type": "str", "choices": ["aes", "aes256k"], "default": "aes"},
            "default_size": {"type": "int", "default": 3},
            "keyrings": names,
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    given = module.params
    wanted = plan.Wanted(
        pools=given["pools"],
        filesystems=given["filesystems"],
        clients=given["clients"],
        confirm=given["confirm"],
        hosts=given["hosts"],
        key_type=given["key_type"],
        size=given["default_size"],
    )
    cluster = Cluster(module.run_command, given["fsid"], timeout_seconds=given["timeout_seconds"])
    result: dict[str, Any] = {}
    try:
        keep = keep_pools if given["scope"] == "pools" else keep_clients
        steps, view = keep(module, cluster, wanted)
        there = [name for name in given["keyrings"] if not module.check_mode or f"client.{name}" in view["clients"]]
        texts = cluster.ask([["auth", "get", f"client.{name}"] for name in there]) if there else []
        result["keyrings"] = {name: text["output"] for name, text in zip(there, texts, strict=True)}
    except CephError as error:
        module.fail_json(msg=f"The cluster {given['fsid']} refused: {error}. Correct it and run again.")
    said = [step.sentence for step in steps]
    left = plan.unclaimed(view, wanted)
    module.exit_json(
        changed=bool(said),
        steps=said,
        unclaimed=[one for one in left if one.startswith("client.") == (given["scope"] == "clients")],
        diff={"before": "", "after": "".join(f"{sentence}\n" for sentence in said)},
        **result,
    )


if __name__ == "__main__":
    main()
