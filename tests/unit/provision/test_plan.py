"""The plan of provision: what is made, what is refused, what is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.plan import (
    Desired,
    Machine,
    Opening,
    Plan,
    Volume,
    make_plan,
)

Json = dict[str, Any]

KEY = "ssh-ed25519 AAAAkey"
MINE = {"slipway_environment": "dev", "managed-by": "slipway"}
LB = Machine("dev-lb-1", "load_balancer", "10.20.1.10", ("cx23", "cpx22"), "debian-13")
NODE = Machine("dev-node-1", "rke2_server", "10.20.1.21", ("cx33",), "debian-13", placement_group="rke2-server")
DESIRED = Desired(
    environment="dev",
    network_cidr="10.20.0.0/16",
    subnet_cidr="10.20.1.0/24",
    network_zone="eu-central",
    locations=("fsn1", "nbg1"),
    public_keys=(f"{KEY} me@desk",),
    machines=(LB, NODE),
    openings=(
        Opening("ssh", "tcp", ("198.51.100.0/24",), "22"),
        Opening("https", "tcp", ("0.0.0.0/0",), "443", group="load_balancer"),
    ),
)


def server_type(name: str, **offers: bool) -> Json:
    return {"name": name, "locations": [{"name": location, "available": free} for location, free in offers.items()]}


TYPES = [
    server_type("cx23", fsn1=True, nbg1=True),
    server_type("cpx22", fsn1=True, nbg1=True),
    server_type("cx33", fsn1=True, nbg1=True),
]


def rule(name: str, port: str, source: str) -> Json:
    return {
        "direction": "in",
        "protocol": "tcp",
        "port": port,
        "source_ips": [source],
        "destination_ips": [],
        "description": name,
    }


def server(id: int, machine: Machine, firewalls: list[int], **changes: Any) -> Json:
    group = {"name": f"dev-{machine.placement_group}"} if machine.placement_group else None
    return {
        "id": id,
        "name": machine.name,
        "status": "running",
        "labels": MINE | {"slipway_group": machine.group},
        "location": {"name": "fsn1"},
        "image": {"name": "debian-13"},
        "server_type": {"name": machine.server_types[0]},
        "private_net": [{"network": 1, "ip": machine.private_ip}],
        "public_net": {"firewalls": [{"id": firewall, "status": "applied"} for firewall in firewalls]},
        "placement_group": group,
        "protection": {"delete": False},
    } | changes


def built() -> dict[str, list[Json]]:
    """A project in which everything is as wanted."""
    subnet = {"ip_range": "10.20.1.0/24", "network_zone": "eu-central"}
    return {
        "ssh_keys": [{"id": 2, "name": "dev-admin-1", "public_key": KEY, "labels": MINE}],
        "networks": [{"id": 1, "name": "dev", "ip_range": "10.20.0.0/16", "subnets": [subnet], "labels": MINE}],
        "firewalls": [
            {"id": 3, "name": "dev", "rules": [rule("ssh", "22", "198.51.100.0/24")], "labels": MINE},
            {
                "id": 4,
                "name": "dev-load_balancer",
                "rules": [rule("https", "443", "0.0.0.0/0")],
                "labels": MINE | {"slipway_group": "load_balancer"},
            },
        ],
        "placement_groups": [{"id": 5, "name": "dev-rke2-server", "labels": MINE}],
        "servers": [server(6, LB, [3, 4]), server(7, NODE, [3])],
        "volumes": [],
        "server_types": TYPES,
    }


def empty() -> dict[str, list[Json]]:
    return {kind: [] for kind in built()} | {"server_types": TYPES}


def with_volume(size_gb: int = 20) -> Desired:
    return replace(DESIRED, machines=(LB, replace(NODE, volumes=(Volume("data", size_gb),))))


def volume(**changes: Any) -> Json:
    return {
        "id": 9,
        "name": "dev-node-1-data",
        "size": 20,
        "server": 7,
        "location": {"name": "fsn1"},
        "labels": MINE,
    } | changes


def only(plan: Plan) -> str:
    """The one refusal, and nothing destroyed."""
    assert not (plan.delete_servers or plan.delete_volumes or plan.delete_networks)
    (sentence,) = plan.refused
    return sentence


def test_what_is_as_wanted_needs_nothing() -> None:
    plan = make_plan(DESIRED, built())
    assert (plan.changes, plan.refused, plan.undeclared) == ([], [], [])


def test_an_empty_project_gets_everything() -> None:
    plan = make_plan(DESIRED, empty())
    assert plan.refused == []
    assert plan.create_network and plan.create_subnet
    assert [firewall["name"] for firewall in plan.firewalls] == ["dev", "dev-load_balancer"]
    assert [group["name"] for group in plan.placement_groups] == ["dev-rke2-server"]
    assert [key["public_key"] for key in plan.ssh_keys] == [f"{KEY} me@desk"]
    lb = plan.servers["dev-lb-1"]
    assert lb.create and lb.attach and lb.start
    assert lb.firewalls == ["dev", "dev-load_balancer"]
    assert plan.servers["dev-node-1"].firewalls == ["dev"]
    assert lb.labels == MINE | {"slipway_group": "load_balancer"}
    assert plan.changes[0].startswith("register SSH key dev-admin-")
    assert "create server dev-lb-1" in plan.changes


def test_types_before_locations_and_the_sold_out_last() -> None:
    project = empty() | {"server_types": [server_type("cx23", fsn1=False, nbg1=True), server_type("cpx22", nbg1=True)]}
    plan = make_plan(replace(DESIRED, machines=(LB,)), project)
    assert [(c["server_type"], c["location"]) for c in plan.servers["dev-lb-1"].candidates] == [
        ("cx23", "nbg1"),
        ("cpx22", "nbg1"),
        ("cx23", "fsn1"),
    ]


def test_a_type_sold_nowhere_is_refused_before_anything_is_made() -> None:
    project = empty() | {"server_types": [server_type("cx23", hel1=True), server_type("cpx22")]}
    plan = make_plan(replace(DESIRED, machines=(LB,)), project)
    assert "none of cx23, cpx22 is sold in fsn1 or nbg1" in only(plan)


def test_a_server_goes_where_its_volume_lies() -> None:
    project = empty() | {"volumes": [volume(server=None, location={"name": "nbg1"})]}
    node = make_plan(with_volume(), project).servers["dev-node-1"]
    assert [candidate["location"] for candidate in node.candidates] == ["nbg1"]
    assert [entry["name"] for entry in node.volumes] == ["dev-node-1-data"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location": {"name": "hel1"}}, "is in hel1 instead of fsn1 or nbg1"),
        ({"image": {"name": "debian-12"}}, "was created from debian-12 instead of debian-13"),
        (
            {"private_net": [{"network": 1, "ip": "10.20.1.99"}]},
            "has the private address 10.20.1.99 instead of 10.20.1.21",
        ),
        ({"server_type": {"name": "cx53"}}, "is a cx53 instead of cx33"),
        ({"placement_group": None}, "is in no placement group instead of dev-rke2-server"),
    ],
)
def test_a_server_is_not_replaced_unless_it_is_named(changes: Json, message: str) -> None:
    project = built()
    project["servers"][1] |= changes
    sentence = only(make_plan(DESIRED, project))
    assert message in sentence and "op_provision_allow_replace" in sentence
    allowed = make_plan(DESIRED, project, allow_replace=["dev-node-1"])
    assert allowed.refused == []
    assert allowed.delete_servers == ["dev-node-1"]
    assert allowed.servers["dev-node-1"].create
    # Permission is not an order: what is as wanted stays.
    assert make_plan(DESIRED, built(), allow_replace=["dev-node-1"]).changes == []


def test_nothing_is_deleted_of_a_machine_that_the_run_leaves_out() -> None:
    project = built()
    project["servers"][1] |= {"location": {"name": "ash"}}
    names = {"allow_replace": ["dev-node-1"]}
    plan = make_plan(DESIRED, project, **names, hosts=["dev-lb-1"])
    assert "--limit excludes dev-node-1, so server dev-node-1" in plan.refused[-1]
    assert "not created again; add dev-node-1 to --limit, or run without it." in plan.refused[-1]
    assert make_plan(DESIRED, project, **names, hosts=["dev-node-1"]).refused == []
    # What is left out and stays is no reason to refuse.
    assert make_plan(DESIRED, built(), hosts=["dev-lb-1"]).refused == []


def test_another_type_or_placement_group_needs_only_a_stop() -> None:
    project = built()
    project["servers"][1] |= {"server_type": {"name": "cx53"}, "placement_group": None}
    assert "op_provision_allow_restart" in only(make_plan(DESIRED, project))
    plan = make_plan(DESIRED, project, allow_restart=["dev-node-1"])
    assert (plan.refused, plan.delete_servers) == ([], [])
    node = plan.servers["dev-node-1"]
    assert (node.stop, node.resize_to, node.update_placement_group, node.start, node.create) == (
        True,
        "cx33",
        True,
        True,
        False,
    )


def test_a_stop_cannot_move_a_server() -> None:
    project = built()
    project["servers"][1] |= {"server_type": {"name": "cx53"}, "location": {"name": "hel1"}}
    sentence = only(make_plan(DESIRED, project, allow_restart=["dev-node-1"]))
    assert "op_provision_allow_restart" not in sentence


def test_a_later_type_of_the_list_is_as_wanted() -> None:
    project = built()
    project["servers"][0] |= {"server_type": {"name": "cpx22"}, "location": {"name": "nbg1"}}
    assert make_plan(DESIRED, project).changes == []


def test_a_protected_server_is_not_replaced() -> None:
    project = built()
    project["servers"][1] |= {"image": {"name": "debian-12"}, "protection": {"delete": True}}
    plan = make_plan(DESIRED, project, allow_replace=["dev-node-1"])
    assert "protected against deletion" in plan.refused[0]


def test_nothing_is_destroyed_when_something_beside_it_is_protected() -> None:
    project = built() | {"volumes": [volume(protection={"delete": True})]}
    plan = make_plan(with_volume(10), project, allow_replace=["dev-node-1-data"])
    assert [sentence.split(" may ")[0] for sentence in plan.refused] == ["Volume dev-node-1-data"]
    project["networks"][0]["protection"] = {"delete": True}
    wanted = replace(DESIRED, network_cidr="10.0.0.0/8")
    plan = make_plan(wanted, project, allow_replace=["dev", "dev-lb-1", "dev-node-1"])
    assert plan.refused[0].startswith("Network dev may be replaced, but is protected")


def test_a_server_becomes_the_first_type_in_stock() -> None:
    project = built() | {"server_types": [server_type("cx23", fsn1=False), server_type("cpx22", fsn1=True)]}
    project["servers"][0]["server_type"] = {"name": "cx53"}
    assert make_plan(DESIRED, project, allow_restart=["dev-lb-1"]).servers["dev-lb-1"].resize_to == "cpx22"


@pytest.mark.parametrize("option", ["allow_restart", "allow_replace"])
def test_servers_of_one_group_do_not_go_at_the_same_time(option: str) -> None:
    second = replace(NODE, name="dev-node-2", private_ip="10.20.1.22")
    wanted = replace(DESIRED, machines=(LB, NODE, second))
    project = built()
    project["servers"].append(server(8, second, [3]))
    for existing in project["servers"]:
        existing["server_type"] = {"name": "cx53"}
    plan = make_plan(wanted, project, **{option: ["dev-lb-1", "dev-node-1", "dev-node-2"]})
    assert [sentence.split(";")[0] for sentence in plan.refused] == [
        "dev-node-1, dev-node-2 of rke2_server would be stopped or replaced at the same time"
    ]
    project["servers"][1]["server_type"] = {"name": "cx33"}
    assert make_plan(wanted, project, **{option: ["dev-lb-1", "dev-node-2"]}).refused == []


@pytest.mark.parametrize(
    ("changes", "does"),
    [
        ({"status": "off"}, ["start server dev-node-1"]),
        ({"private_net": []}, ["attach server dev-node-1 to the private network at 10.20.1.21"]),
        ({"public_net": {"firewalls": []}}, ["apply firewall dev to server dev-node-1"]),
        ({"labels": MINE}, ["update the labels of server dev-node-1"]),
    ],
)
def test_what_a_killed_run_left_is_finished(changes: Json, does: list[str]) -> None:
    project = built()
    project["servers"][1] |= changes
    plan = make_plan(DESIRED, project)
    assert (plan.changes, plan.refused) == (does, [])


def test_a_firewall_of_ours_that_is_not_wanted_any_more_goes_and_one_of_others_stays() -> None:
    project = built()
    project["firewalls"].append({"id": 10, "name": "by-hand", "rules": [], "labels": {}})
    project["servers"][1]["public_net"]["firewalls"] = [{"id": 3}, {"id": 10}]
    assert make_plan(DESIRED, project).changes == []
    project["servers"][1]["public_net"]["firewalls"].append({"id": 4})
    plan = make_plan(DESIRED, project)
    assert plan.changes == ["apply firewall by-hand, dev to server dev-node-1"]


def test_labels_of_others_are_kept() -> None:
    project = built()
    project["servers"][1]["labels"] = MINE | {"team": "blue"}
    assert make_plan(DESIRED, project).servers["dev-node-1"].labels["team"] == "blue"
    project["servers"][1]["labels"] |= {"slipway_group": "rke2_server"}
    assert make_plan(DESIRED, project).changes == []


@pytest.mark.parametrize("kind", ["servers", "networks", "firewalls", "placement_groups"])
def test_a_name_of_somebody_else_is_refused(kind: str) -> None:
    project = built()
    project[kind][0]["labels"] = {}
    assert "does not belong to this environment" in only(make_plan(DESIRED, project))


def test_a_key_of_somebody_else_is_used_as_it_is() -> None:
    project = built()
    project["ssh_keys"] = [{"id": 2, "name": "laptop", "public_key": f"{KEY} laptop", "labels": {}}]
    plan = make_plan(DESIRED, project)
    assert (plan.ssh_keys, plan.ssh_key_names) == ([], ["laptop"])


def test_undeclared_servers_are_reported_and_not_changed() -> None:
    plan = make_plan(replace(DESIRED, machines=(LB,)), built())
    assert plan.changes == []
    assert [sentence.split(" is ")[0] for sentence in plan.undeclared] == [
        "server dev-node-1",
        "placement group dev-rke2-server",
    ]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (replace(DESIRED, network_cidr="10.0.0.0/8"), "has the range 10.20.0.0/16 instead of 10.0.0.0/8"),
        (replace(DESIRED, subnet_cidr="10.20.2.0/24"), "has the subnet 10.20.1.0/24 instead of 10.20.2.0/24"),
        (replace(DESIRED, network_zone="us-east"), "is in the zone eu-central instead of us-east"),
    ],
)
def test_a_network_is_replaced_only_with_all_that_is_in_it(wanted: Desired, message: str) -> None:
    assert message in only(make_plan(wanted, built()))
    half = make_plan(wanted, built(), allow_replace=["dev", "dev-lb-1"])
    assert "but dev-node-1 would lose" in half.refused[0]
    complete = make_plan(wanted, built(), allow_replace=["dev", "dev-lb-1", "dev-node-1"])
    assert (complete.refused, complete.delete_networks, complete.create_network) == ([], ["dev"], True)
    assert complete.delete_servers == ["dev-lb-1", "dev-node-1"]
    assert all(server.create and server.attach for server in complete.servers.values())


def test_a_network_is_not_taken_from_a_load_balancer() -> None:
    project = built()
    project["networks"][0]["load_balancers"] = [77]
    names = ["dev", "dev-lb-1", "dev-node-1"]
    plan = make_plan(replace(DESIRED, network_cidr="10.0.0.0/8"), project, allow_replace=names)
    assert any("load balancer 77 (by id) would lose" in sentence for sentence in plan.refused)


def test_a_network_without_its_subnet_gets_it() -> None:
    project = built()
    project["networks"][0]["subnets"] = []
    assert make_plan(DESIRED, project).changes == ["create the subnet of network dev"]


def test_an_address_that_somebody_holds_is_refused() -> None:
    project = built()
    project["servers"][1] |= {"name": "by-hand", "labels": {}}
    assert "10.20.1.21: by-hand has it" in only(make_plan(DESIRED, project))


def test_a_shared_machine_lies_behind_the_firewall_of_each_of_its_groups() -> None:
    shared = replace(NODE, groups=("rke2_server", "ceph"))
    opening = Opening("s3", "tcp", ("0.0.0.0/0",), "443", group="ceph")
    wanted = replace(DESIRED, machines=(LB, shared), openings=(*DESIRED.openings, opening))
    plan = make_plan(wanted, empty())
    assert plan.servers["dev-node-1"].firewalls == ["dev", "dev-ceph"]
    assert plan.servers["dev-node-1"].labels["slipway_group"] == "rke2_server"
    assert plan.servers["dev-lb-1"].firewalls == ["dev", "dev-load_balancer"]


def test_rules_of_a_firewall_are_updated() -> None:
    project = built()
    project["firewalls"][0]["rules"][0]["source_ips"] = ["0.0.0.0/0"]
    plan = make_plan(DESIRED, project)
    assert plan.changes == ["set firewall dev"]
    assert plan.firewalls[0]["rules"][0]["source_ips"] == ["198.51.100.0/24"]


def test_another_spelling_of_a_range_is_no_change() -> None:
    desired = replace(DESIRED, openings=(Opening("ssh", "tcp", ("2001:DB8:0::/32",), "22"), DESIRED.openings[1]))
    project = built()
    project["firewalls"][0]["rules"][0]["source_ips"] = ["2001:db8::/32"]
    assert make_plan(desired, project).changes == []
    wrong = replace(DESIRED, openings=(Opening("ssh", "tcp", ("198.51.100.7/24",), "22"), DESIRED.openings[1]))
    assert make_plan(wrong, project).changes == ["set firewall dev"]


@pytest.mark.parametrize(
    ("existing", "size", "does"),
    [
        ([], 20, ["provision volume dev-node-1-data (20 GB) of server dev-node-1"]),
        ([volume()], 20, []),
        ([volume(server=None)], 20, ["provision volume dev-node-1-data (20 GB) of server dev-node-1"]),
        ([volume()], 30, ["provision volume dev-node-1-data (30 GB) of server dev-node-1"]),
    ],
)
def test_volumes_are_made_attached_and_grown(existing: list[Json], size: int, does: list[str]) -> None:
    plan = make_plan(with_volume(size), built() | {"volumes": existing})
    assert (plan.changes, plan.refused) == (does, [])


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({}, 10, "has 20 GB and cannot shrink to 10"),
        ({"location": {"name": "nbg1"}}, 20, "is in nbg1, its server in fsn1"),
        ({"server": 6}, 20, "is attached to dev-lb-1"),
    ],
)
def test_a_volume_is_not_destroyed_unless_it_is_named(changes: Json, size: int, message: str) -> None:
    project = built() | {"volumes": [volume(**changes)]}
    assert message in only(make_plan(with_volume(size), project))
    plan = make_plan(with_volume(size), project, allow_replace=["dev-node-1-data"])
    assert (plan.refused, plan.delete_volumes) == ([], ["dev-node-1-data"])


def test_a_volume_outlives_its_server() -> None:
    project = built() | {"volumes": [volume()]}
    project["servers"][1]["image"] = {"name": "debian-12"}
    plan = make_plan(with_volume(), project, allow_replace=["dev-node-1"])
    assert (plan.delete_servers, plan.delete_volumes, plan.refused) == (["dev-node-1"], [], [])
    assert [entry["name"] for entry in plan.servers["dev-node-1"].volumes] == ["dev-node-1-data"]


def test_a_volume_moves_with_its_server_only_when_it_is_named_too() -> None:
    project = built() | {"volumes": [volume()]}
    wanted = replace(with_volume(), locations=("nbg1",))
    project["servers"][0]["location"] = {"name": "nbg1"}
    plan = make_plan(wanted, project, allow_replace=["dev-node-1"])
    assert plan.refused[0].startswith("Volume dev-node-1-data is in fsn1, where its server cannot be created (nbg1)")
    plan = make_plan(wanted, project, allow_replace=["dev-node-1", "dev-node-1-data"])
    assert (plan.refused, plan.delete_servers, plan.delete_volumes) == ([], ["dev-node-1"], ["dev-node-1-data"])
    assert [candidate["location"] for candidate in plan.servers["dev-node-1"].candidates] == ["nbg1"]


def test_a_server_cannot_stand_where_two_volumes_lie() -> None:
    machine = replace(NODE, volumes=(Volume("data", 20), Volume("more", 20)))
    volumes = [volume(server=None), volume(id=10, name="dev-node-1-more", server=None, location={"name": "nbg1"})]
    plan = make_plan(replace(DESIRED, machines=(machine,)), empty() | {"volumes": volumes})
    assert "is sold in fsn1 and nbg1, the location of its volumes" in only(plan)


def test_a_name_that_is_nothing_is_refused() -> None:
    sentence = only(make_plan(DESIRED, built(), allow_replace=["dev-lb-2"]))
    assert "op_provision_allow_replace names dev-lb-2, which is no server, volume or network of dev" in sentence
