"""The filter that collects the declared machines."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.filter.machines import machines

WANTED = {"provision_private_ip": "10.0.0.2", "provision_server_types": ["cx23"], "provision_image": "debian-13"}
GROUPS = {"load_balancer": ["lb"], "rke2_server": ["a", "b"], "ceph": ["a", "c"]}


def test_each_host_once_with_its_first_group() -> None:
    hostvars = {name: WANTED | {"other": 1} for name in ("lb", "a", "b", "c")}
    found = machines(hostvars, GROUPS, ["load_balancer", "rke2_server", "ceph", "none"])
    assert [(machine["name"], machine["group"]) for machine in found] == [
        ("lb", "load_balancer"),
        ("a", "rke2_server"),
        ("b", "rke2_server"),
        ("c", "ceph"),
    ]
    assert found[0] == {
        "name": "lb",
        "group": "load_balancer",
        "groups": ["load_balancer"],
        "private_ip": "10.0.0.2",
        "server_types": ["cx23"],
        "image": "debian-13",
    }


def test_a_shared_host_has_all_its_groups_the_main_one_first() -> None:
    wanted = WANTED | {"provision_volumes": [{"name": "ceph", "size_gb": 10}]}
    gathered = machines(dict.fromkeys(("lb", "a", "b", "c"), wanted), GROUPS, ["load_balancer", "rke2_server", "ceph"])
    found = {machine["name"]: machine for machine in gathered}
    assert (found["a"]["group"], found["a"]["groups"]) == ("rke2_server", ["rke2_server", "ceph"])
    assert (found["b"]["groups"], found["c"]["groups"]) == (["rke2_server"], ["ceph"])
    assert found["a"]["volumes"] == [{"name": "ceph", "size_gb": 10}]


@pytest.mark.parametrize("missing", WANTED)
def test_a_host_without_a_required_value_is_reported(missing: str) -> None:
    hostvars: dict[str, dict[str, Any]] = {"lb": {name: value for name, value in WANTED.items() if name != missing}}
    with pytest.raises(AnsibleFilterError, match=f"host lb has no {missing}"):
        machines(hostvars, {"load_balancer": ["lb"]}, ["load_balancer"])
