"""Ansible module: compare a whole Ceph cluster with its declaration."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_drift
short_description: Compare a whole Ceph cluster with its declaration
description:
  - Runs on a host whose monitor is in the quorum. Reads the cluster once and plans the steps of each of the modules
    M(slipway.platform.ceph_cluster), M(slipway.platform.ceph_osds), M(slipway.platform.ceph_resources) and
    M(slipway.platform.ceph_object_gateways), so that a cluster without drift needs one module instead of eight.
  - A part that cannot be planned (a fault in what is declared, a manager that does not answer) counts as drift; the
    part's own module then waits, or fails with its own message.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: Reads only.
options:
  fsid:
    description: The cluster's UUID.
    type: str
    required: true
  version:
    description: Release that every daemon must run.
    type: str
    required: true
  status:
    description: The status that M(slipway.platform.ceph_cluster) returned in this run.
    type: dict
    required: true
  members:
    description: Options of M(slipway.platform.ceph_cluster) with O(slipway.platform.ceph_cluster#module:scope=members).
    type: dict
    required: true
  osds:
    description: Options C(hosts), C(method) and C(encrypted) of M(slipway.platform.ceph_osds).
    type: dict
    required: true
  resources:
    description:
      - Options C(pools), C(filesystems), C(clients), C(confirm), C(hosts), C(key_type) and C(default_size) of
        M(slipway.platform.ceph_resources).
    type: dict
    required: true
  gateways:
    description:
      - Options C(name), C(hosts), C(port), C(server_name) and C(options) of M(slipway.platform.ceph_object_gateways);
        empty for none.
    type: dict
    default: {}
  probes:
    description:
      - Probes from the filter P(slipway.platform.ceph_gateway_probes#filter); their findings are drift of the
        gateways.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Compare the cluster with its declaration
  slipway.platform.ceph_drift:
    fsid: fe94d781-67a9-44c0-bef8-f96df8775826
    version: 20.2.4
    status: "{{ cluster.status }}"
    members: "{{ declared_members }}"
    osds: "{{ declared_osds }}"
    resources: "{{ declared_resources }}"
  register: compared
"""

RETURN = r"""
drift:
  description:
    - Messages by part (C(members), C(osds), C(pools), C(clients), C(gateways), C(health)), empty without drift.
  returned: success
  type: dict
undeclared:
  description: Undeclared objects, one message each.
  returned: success
  type: list
  elements: str
certificate:
  description: Certificate that is stored for the gateways, in PEM form; empty without one.
  returned: success
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import (
    ceph_gateway_read,
    ceph_members,
    ceph_object_gateways,
    ceph_osd_plan,
    ceph_osd_read,
    ceph_resource_read,
    ceph_resources,
    probes,
)
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster

PROBE_SECONDS = 5.0


def planned(plan: Callable[[], list[str]]) -> list[str]:
    """Messages of a part; a failed read is a message as well."""
    try:
        return plan()
    except CephError as error:
        return [str(error)]


def member_drift(view: Mapping[str, Any], wanted: ceph_members.Wanted) -> list[str]:
    if not view["orchestrated"]:
        return ["no manager answers"]
    steps = [*ceph_members.option_steps(view, wanted), *ceph_members.member_steps(view, wanted)]
    return [step.summary for step in steps]


def osd_drift(cluster: Cluster, wanted: ceph_osd_plan.Wanted) -> list[str]:
    view = ceph_osd_read.read_osds(cluster)
    steps = [*ceph_osd_plan.creation_steps(view, wanted), *ceph_osd_plan.unmanage_steps(view, wanted)]
    return [*ceph_osd_plan.faults(view, wanted), *(step.summary for step in steps), *ceph_osd_plan.unmet(view, wanted)]


def pool_drift(view: dict[str, Any], wanted: ceph_resources.Wanted) -> list[str]:
    results = [ceph_resources.pool_steps(view, wanted), ceph_resources.filesystem_steps(view, wanted)]
    steps = [step for result in results for step in result.steps]
    steps += [*ceph_resources.namespace_steps(view, wanted), *ceph_resources.group_steps(view, wanted)]
    faults = [fault for result in results for fault in result.faults]
    return [*faults, *(step.summary for step in steps), *ceph_resources.inactive(view, wanted)]


def client_drift(view: dict[str, Any], wanted: ceph_resources.Wanted) -> list[str]:
    return ceph_resources.client_faults(wanted) or [
        step.summary for step in ceph_resources.client_steps(view, wanted).steps
    ]


def gateway_drift(found: ceph_object_gateways.Found, wanted: ceph_object_gateways.Wanted) -> list[str]:
    plan = ceph_object_gateways.plan(wanted, found)
    return [*plan.faults, *plan.changes, *ceph_object_gateways.unmet(wanted, found)]


def gateways_of(options: Mapping[str, Any]) -> ceph_object_gateways.Wanted:
    return ceph_object_gateways.Wanted(
        name=options["name"],
        hosts=tuple(options["hosts"]),
        port=int(options["port"]),
        server_name=options["server_name"],
        options={name: ceph_members.as_text(value) for name, value in options["options"].items()},
    )


def compare(cluster: Cluster, given: Mapping[str, Any]) -> dict[str, Any]:
    members = ceph_members.Wanted(**given["members"])
    osds = ceph_osd_plan.Wanted(given["osds"]["hosts"], given["osds"]["method"], bool(given["osds"]["encrypted"]))
    declared = given["resources"]
    resources = ceph_resources.Wanted(
        **{name: declared[name] for name in ("pools", "filesystems", "clients", "confirm", "hosts", "key_type")},
        size=int(declared["default_size"]),
    )
    gateways = gateways_of(given["gateways"]) if given["gateways"] else None
    commands = [*ceph_osd_read.COMMANDS, *ceph_resource_read.COMMANDS.values()]
    commands += ceph_resource_read.detail_commands(resources)
    keys = [["config-key", "get", gateways.certificate_key]] if gateways else []
    cluster.prefetch([*commands, *(ceph_gateway_read.COMMANDS if gateways else [])], texts=keys)

    view: dict[str, Any] = {}

    def read_resources() -> list[str]:
        view.update(ceph_resource_read.read_resources(cluster, resources))
        return []

    read_errors = planned(read_resources)
    drift = {
        "members": member_drift(given["status"], members),
        "osds": planned(lambda: osd_drift(cluster, osds)),
        "pools": read_errors or planned(lambda: pool_drift(view, resources)),
        "clients": read_errors or planned(lambda: client_drift(view, resources)),
        "gateways": [],
        "health": ceph_members.unmet(given["status"], members, given["version"]),
    }
    undeclared = [*ceph_members.undeclared(given["status"], members)]
    undeclared += [] if read_errors else ceph_resources.undeclared(view, resources)
    certificate = ""
    if gateways:
        found: list[ceph_object_gateways.Found] = []

        def read_gateways() -> list[str]:
            found.append(ceph_gateway_read.read(cluster, gateways, given["gateways"]["hosts"]))
            return gateway_drift(found[0], gateways)

        drift["gateways"] = [*planned(read_gateways), *probes.run(given["probes"], PROBE_SECONDS)[0]]
        if found:
            certificate = ceph_object_gateways.certificate_of(found[0].certificate)
            undeclared += found[0].other_services
    return {"drift": drift, "undeclared": undeclared, "certificate": certificate}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "status": {"type": "dict", "required": True},
            "members": {"type": "dict", "required": True},
            "osds": {"type": "dict", "required": True},
            "resources": {"type": "dict", "required": True},
            "gateways": {"type": "dict", "default": {}},
            "probes": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        result = compare(Cluster(module.run_command, module.params["fsid"]), module.params)
    except CephError as error:
        module.fail_json(msg=f"Cluster {module.params['fsid']}: {error}. Correct the cause and run again.")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
