from __future__ import annotations

from typing import Any

import pytest

from tests.lab.cloud.conftest import Api, Lab


def create(api: Api, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = api.post("/volumes", {"name": "disk", "size": 10, "location": "fsn1"} | more)
    return made["volume"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, None),
        ({"location": 1}, None),
        ({"format": "ext4"}, None),
        ({"format": "xfs"}, None),
        ({"size": 10240}, None),
        ({"name": "a" * 64}, None),
        ({"automount": False}, None),
        ({"size": 9}, "invalid_input"),
        ({"size": 10241}, "invalid_input"),
        ({"format": "btrfs"}, "invalid_input"),
        ({"name": "a" * 65}, "invalid_input"),
        ({"name": "-disk"}, "invalid_input"),
        ({"name": "my disk"}, "invalid_input"),
        ({"name": None}, "invalid_input"),
        ({"location": None}, "invalid_input"),
        ({"location": "moon"}, "not_found"),
        ({"location": None, "server": 1}, "not_found"),
        ({"automount": True}, "invalid_input"),
    ],
)
def test_creating(lab: Lab, change: dict[str, Any], code: str | None) -> None:
    status, payload = lab.api("POST", "/volumes", {"name": "disk", "size": 10, "location": "fsn1"} | change)
    assert status == 201 if code is None else payload["error"]["code"] == code
    volumes = lab.api.get("/volumes", status="available")["volumes"]
    assert [volume["format"] for volume in volumes] == ([] if code else [change.get("format")])


def test_create_with_a_server(lab: Lab) -> None:
    server = lab.server()["id"]
    made = lab.api.post("/volumes", {"name": "disk", "size": 10, "server": server, "automount": True, "format": "ext4"})
    assert [action["command"] for action in made["next_actions"]] == ["attach_volume"]
    assert made["volume"]["server"] == server
    assert made["volume"]["linux_device"] == f"/dev/disk/by-id/scsi-0HC_Volume_{made['volume']['id']}"
    assert lab.api.get(f"/servers/{server}")["server"]["volumes"] == [made["volume"]["id"]]
    body = {"name": "far", "size": 10, "server": server, "location": "hel1"}
    assert lab.api.code("POST", "/volumes", body) == "invalid_input"


def test_attaching_and_detaching(lab: Lab) -> None:
    server, other, volume = lab.server()["id"], lab.server("web-2")["id"], create(lab.api)["id"]
    path = f"/volumes/{volume}"
    lab.api.post(f"{path}/actions/attach", {"server": server})
    assert lab.machines.volume_hosts == {volume: server}
    assert lab.api.code("POST", f"{path}/actions/attach", {"server": other}) == "volume_already_attached"
    assert lab.api.code("POST", f"{path}/actions/attach", {"server": 1}) == "not_found"
    assert lab.api.code("DELETE", path) == "resource_in_use"
    lab.api.post(f"{path}/actions/detach")
    assert lab.machines.volume_hosts == {}
    assert lab.api.code("POST", f"{path}/actions/detach") == "invalid_input"
    lab.api.delete(path)


def test_attach_requires_the_same_location(lab: Lab) -> None:
    server, volume = lab.server()["id"], create(lab.api, location="hel1")["id"]
    assert lab.api.code("POST", f"/volumes/{volume}/actions/attach", {"server": server}) == "invalid_input"
    body = {"name": "web-2", "server_type": "cx23", "image": "debian-13", "volumes": [volume]}
    assert lab.api.code("POST", "/servers", body | {"location": "fsn1"}) == "invalid_input"
    assert lab.api.post("/servers", body)["server"]["location"]["name"] == "hel1"


def test_a_server_with_volumes(lab: Lab) -> None:
    volumes = [create(lab.api, name=f"disk{number}")["id"] for number in range(2)]
    server = lab.server(volumes=volumes, automount=True)
    assert server["volumes"] == volumes
    lab.api.delete(f"/servers/{server['id']}")
    assert [volume["server"] for volume in lab.api.get("/volumes")["volumes"]] == [None, None]


def test_at_most_sixteen_volumes_per_server(lab: Lab) -> None:
    server = lab.server()["id"]
    for number in range(16):
        create(lab.api, name=f"disk{number}", location=None, server=server)
        lab.wait_idle()
    assert lab.api.code("POST", "/volumes", {"name": "last", "size": 10, "server": server}) == "resource_limit_exceeded"


@pytest.mark.parametrize(("size", "good"), [(21, True), (20, False), (10, False), (20000, False)])
def test_a_volume_only_grows(lab: Lab, size: int, good: bool) -> None:
    volume = create(lab.api, size=20)["id"]
    status, _ = lab.api("POST", f"/volumes/{volume}/actions/resize", {"size": size})
    assert status == (201 if good else 422)
    assert lab.machines.volumes[volume].size_gb == (size if good else 20)


def test_protection(api: Api) -> None:
    path = f"/volumes/{create(api)['id']}"
    api.post(f"{path}/actions/change_protection", {"delete": True})
    assert api("DELETE", path)[0] == 423
    api.post(f"{path}/actions/change_protection", {"delete": False})
    api.delete(path)
