from __future__ import annotations

from tests.lab.cloud.conftest import Lab


def test_at_most_ten_servers_per_group(lab: Lab) -> None:
    group = lab.api.post("/placement_groups", {"name": "group", "type": "spread"})["placement_group"]["id"]
    body = {"server_type": "cx23", "image": "debian-13", "start_after_create": False, "placement_group": group}
    ids = [lab.api.post("/servers", body | {"name": f"s{number}"})["server"]["id"] for number in range(10)]
    assert lab.api.get(f"/placement_groups/{group}")["placement_group"]["servers"] == ids
    assert lab.api.code("POST", "/servers", body | {"name": "s10"}) == "placement_error"


def test_membership_changes_only_while_the_server_is_off(lab: Lab) -> None:
    group = lab.api.post("/placement_groups", {"name": "group", "type": "spread"})["placement_group"]["id"]
    server = lab.server()["id"]
    actions = f"/servers/{server}/actions"
    assert lab.api.code("POST", f"{actions}/add_to_placement_group", {"placement_group": group}) == "server_not_stopped"
    lab.api.post(f"{actions}/poweroff")
    lab.api.post(f"{actions}/add_to_placement_group", {"placement_group": group})
    assert (
        lab.api.code("POST", f"{actions}/add_to_placement_group", {"placement_group": group})
        == "already_in_placement_group"
    )
    lab.wait_idle()
    assert lab.api.get(f"/servers/{server}")["server"]["status"] == "running", "moved and started again"
    lab.api.delete(f"/placement_groups/{group}")
    assert lab.api.get(f"/servers/{server}")["server"]["placement_group"] is None
    assert lab.api.code("POST", f"{actions}/remove_from_placement_group") == "invalid_input"


def test_a_server_that_was_never_started_stays_off(lab: Lab) -> None:
    group = lab.api.post("/placement_groups", {"name": "group", "type": "spread"})["placement_group"]["id"]
    server = lab.off()["id"]
    lab.api.post(f"/servers/{server}/actions/add_to_placement_group", {"placement_group": group})
    lab.wait_idle()
    assert lab.api.get(f"/servers/{server}")["server"]["status"] == "off"


def test_type_must_be_spread(lab: Lab) -> None:
    assert lab.api.code("POST", "/placement_groups", {"name": "group", "type": "stack"}) == "invalid_input"
