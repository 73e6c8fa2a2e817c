"""Ansible module: reconcile the pools, file systems and clients of a Ceph cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_resources
short_description: Reconcile pools, file systems and clients
description:
  - Runs on a host whose monitor is in the quorum. Reads all of them at once and runs the commands that are missing.
  - Removes nothing. Undeclared objects are returned as C(undeclared).
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports the steps without running them.
  diff_mode:
    support: full
    description: One line for each step, never a key.
options:
  scope:
    type: str
    choices: [pools, clients]
    required: true
    description: V(pools) reconciles pools, their namespaces and file systems; V(clients) reconciles users.
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
    description: Copies in a pool without a size.
  keyrings:
    type: list
    elements: str
    default: []
    description: Names of clients whose keyrings are returned.
  timeout_seconds:
    type: int
    default: 300
    description: Timeout in seconds for an active metadata server.
"""

EXAMPLES = r"""
- name: Reconcile the pools
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
  description: Steps that were run, or would be.
  returned: success
  type: list
  elements: str
undeclared:
  description: Undeclared objects, one message each.
  returned: success
  type: list
  elements: str
keyrings:
  description: Text of the requested keyrings, by client. Secret.
  returned: with O(keyrings)
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_resources as plan
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster, orchestrator_log
from ansible_collections.slipway.platform.plugins.module_utils.ceph_resource_read import read_resources
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 2.0


def apply(cluster: Cluster, steps: list[plan.Step]) -> None:
    for step in steps:
        if step.tool:
            cluster.tool(list(step.command), step.input)
        else:
            cluster.run(list(step.command), input=step.input)


def wait_for_filesystems(module: AnsibleModule, cluster: Cluster, wanted: plan.Wanted) -> dict[str, Any]:
    """The resources once every file system has an active metadata server."""
    try:
        return wait_until(
            "File systems",
            lambda: read_resources(cluster, wanted),
            lambda view: plan.inactive(view, wanted),
            timeout_seconds=module.params["timeout_seconds"],
            interval_seconds=POLL_SECONDS,
            passing=CephError,
        )
    except NotMet as error:
        log = orchestrator_log(cluster)
        module.fail_json(msg=f"{error}. Correct the cause and run again. Log of the orchestrator:\n{log}")


def reconcile_pools(
    module: AnsibleModule, cluster: Cluster, wanted: plan.Wanted
) -> tuple[list[plan.Step], dict[str, Any]]:
    view = read_resources(cluster, wanted)
    pools, filesystems = plan.pool_steps(view, wanted), plan.filesystem_steps(view, wanted)
    fail_on(module, [*pools.faults, *filesystems.faults])
    steps = [*pools.steps, *filesystems.steps]
    if not module.check_mode:
        apply(cluster, steps)
    # In check mode a new file system never becomes active; an existing one may be moving to other hosts.
    if (not module.check_mode) if steps else plan.inactive(view, wanted):
        view = wait_for_filesystems(module, cluster, wanted)
    detail_steps = [*plan.namespace_steps(view, wanted), *plan.group_steps(view, wanted)]
    if not module.check_mode:
        apply(cluster, detail_steps)
    return [*steps, *detail_steps], view


def reconcile_clients(
    module: AnsibleModule, cluster: Cluster, wanted: plan.Wanted
) -> tuple[list[plan.Step], dict[str, Any]]:
    fail_on(module, plan.client_faults(wanted))
    view = read_resources(cluster, plan.Wanted(clients=wanted.clients, key_type=wanted.key_type))
    clients = plan.client_steps(view, wanted)
    if not module.check_mode:
        try:
            apply(cluster, clients.steps)
        except CephError:
            if plan.FORBID_INSECURE_KEYS in clients.steps:
                cluster.run(list(plan.FORBID_INSECURE_KEYS.command))
            raise
    return clients.steps, view


def fail_on(module: AnsibleModule, faults: list[str]) -> None:
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
        reconcile = reconcile_pools if given["scope"] == "pools" else reconcile_clients
        steps, view = reconcile(module, cluster, wanted)
        names_to_read = [
            name for name in given["keyrings"] if not module.check_mode or f"client.{name}" in view["clients"]
        ]
        texts = cluster.execute([["auth", "get", f"client.{name}"] for name in names_to_read]) if names_to_read else []
        result["keyrings"] = {name: text["output"] for name, text in zip(names_to_read, texts, strict=True)}
    except CephError as error:
        module.fail_json(msg=f"Cluster {given['fsid']}: {error}. Correct the cause and run again.")
    summaries = [step.summary for step in steps]
    undeclared = plan.undeclared(view, wanted)
    module.exit_json(
        changed=bool(summaries),
        steps=summaries,
        undeclared=[one for one in undeclared if one.startswith("client.") == (given["scope"] == "clients")],
        diff={"before": "", "after": "".join(f"{summary}\n" for summary in summaries)},
        **result,
    )


if __name__ == "__main__":
    main()
