from __future__ import annotations

from typing import Any

import pytest

from tests.lab.cloud.conftest import Lab


def snapshot(lab: Lab, server: int, **more: Any) -> dict[str, Any]:
    made = lab.api.post(f"/servers/{server}/actions/create_image", {"description": "golden"} | more)["image"]
    lab.wait_idle()
    shown: dict[str, Any] = lab.api.get(f"/images/{made['id']}")["image"]
    return shown


def test_a_snapshot_of_a_server(lab: Lab) -> None:
    server = lab.server()
    image = snapshot(lab, server["id"], labels={"a": "b"})
    expected = {
        "type": "snapshot", "status": "available", "name": None, "description": "golden", "labels": {"a": "b"},
        "image_size": 1.5, "disk_size": 40, "os_flavor": "debian", "os_version": "13", "architecture": "x86",
        "created_from": {"id": server["id"], "name": "web-1"}, "bound_to": None, "protection": {"delete": False},
    }  # fmt: skip
    assert {key: image[key] for key in expected} == expected
    assert [row["id"] for row in lab.api.get("/images", type="snapshot")["images"]] == [image["id"]]
    assert [row["id"] for row in lab.api.get("/images", label_selector="a=b")["images"]] == [image["id"]]
    assert image["id"] in [row["id"] for row in lab.api.get("/images", per_page=50)["images"]]
    assert [action["command"] for action in lab.api.get(f"/images/{image['id']}/actions")["actions"]] == [
        "create_image"
    ]


def test_an_image_is_being_created_while_its_disk_is_copied(serve: Any) -> None:
    lab = serve(seconds=0.5, settle_seconds=0.0)
    server = lab.off()["id"]
    made = lab.api.post(f"/servers/{server}/actions/create_image")["image"]
    assert (made["status"], made["image_size"], made["description"]) == ("creating", None, "web-1")
    body = {"name": "clone", "server_type": "cx23", "image": made["id"]}
    assert lab.api.code("POST", "/servers", body) == "locked"
    assert lab.api.code("DELETE", f"/images/{made['id']}") == "locked"
    lab.check_converged()


def test_servers_from_a_snapshot(lab: Lab) -> None:
    image = snapshot(lab, lab.server()["id"])
    clone = lab.server("clone", image=image["id"])
    assert (clone["status"], clone["image"]["id"], clone["image"]["type"]) == ("running", image["id"], "snapshot")
    spec = lab.machines.hosts[clone["id"]]
    assert (spec.snapshot_id, spec.image) == (image["id"], "debian-13")
    lab.api.post(f"/servers/{clone['id']}/actions/rebuild", {"image": "debian-12"})
    lab.wait_idle()
    assert lab.machines.hosts[clone["id"]].snapshot_id is None
    lab.api.post(f"/servers/{clone['id']}/actions/rebuild", {"image": str(image["id"])})
    lab.wait_idle()
    assert lab.machines.hosts[clone["id"]].snapshot_id == image["id"]
    lab.api.delete(f"/images/{image['id']}")
    lab.wait_idle()
    assert lab.machines.snapshots == set()
    assert lab.api.get(f"/servers/{clone['id']}")["server"]["image"] is None, "the image of the server is gone"


def test_a_disk_cannot_shrink(lab: Lab) -> None:
    image = snapshot(lab, lab.off(server_type="cx33")["id"])
    body = {"name": "small", "server_type": "cx23", "image": image["id"]}
    message = "invalid input in field 'image': has a disk of 80 GB, the server one of 40 GB"
    assert lab.api.message("POST", "/servers", body) == message
    small = lab.off("small")["id"]
    assert lab.api.message("POST", f"/servers/{small}/actions/rebuild", {"image": image["id"]}) == message


def test_changes_of_a_snapshot(lab: Lab) -> None:
    path = f"/images/{snapshot(lab, lab.off()['id'])['id']}"
    changed = lab.api.put(path, {"description": "new", "labels": {"c": "d"}})["image"]
    assert (changed["description"], changed["labels"]) == ("new", {"c": "d"})
    lab.api.post(f"{path}/actions/change_protection", {"delete": True})
    status, payload = lab.api("DELETE", path)
    assert (status, payload["error"]["message"]) == (423, "snapshot deletion is protected")
    lab.api.post(f"{path}/actions/change_protection", {"delete": False})
    lab.api.delete(path)
    assert lab.api.code("GET", path) == "not_found"


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", ""), ("DELETE", ""), ("POST", "/actions/change_protection")],
)
def test_system_images_are_read_only(lab: Lab, method: str, path: str) -> None:
    status, payload = lab.api(method, f"/images/114690387{path}", {})
    assert (status, payload["error"]["code"]) == (422, "invalid_input")
    assert payload["error"]["message"].startswith("image debian-12 is a system image")


def test_backups_are_deleted_with_their_server(lab: Lab) -> None:
    server = lab.off()["id"]
    create = f"/servers/{server}/actions/create_image"
    assert lab.api.code("POST", create, {"type": "backup"}) == "invalid_input"
    lab.api.post(f"/servers/{server}/actions/enable_backup")
    backup, kept = snapshot(lab, server, type="backup"), snapshot(lab, server, type="backup")
    assert (backup["type"], backup["bound_to"]) == ("backup", server)
    assert len(lab.api.get("/images", bound_to=server)["images"]) == 2
    assert lab.api.code("POST", f"/images/{kept['id']}/actions/change_protection", {"delete": True}) == "invalid_input"
    assert lab.api.put(f"/images/{kept['id']}", {"type": "snapshot"})["image"]["bound_to"] is None
    lab.api.delete(f"/servers/{server}")
    lab.wait_idle()
    assert lab.machines.snapshots == {kept["id"]}
    assert lab.api.code("GET", f"/images/{backup['id']}") == "not_found"


def test_a_failed_copy_leaves_no_image(lab: Lab) -> None:
    server = lab.off()["id"]
    lab.machines.fail["create_snapshot"] = "the disk of the lab is full"
    action = lab.api.post(f"/servers/{server}/actions/create_image")["action"]
    lab.wait_idle()
    assert lab.api.get(f"/actions/{action['id']}")["action"]["error"]["message"] == "the disk of the lab is full"
    assert lab.api.get("/images", type="snapshot")["images"] == []
