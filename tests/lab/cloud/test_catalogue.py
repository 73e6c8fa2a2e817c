"""Ids and names that clients rely on."""

from __future__ import annotations

import pytest

from tests.lab.cloud.conftest import Api, Lab


@pytest.mark.parametrize(
    ("path", "name", "id"),
    [
        ("locations", "fsn1", 1),
        ("locations", "nbg1", 2),
        ("locations", "hel1", 3),
        ("locations", "ash", 4),
        ("locations", "hil", 5),
        ("locations", "sin", 6),
        ("server_types", "cx23", 114),
        ("server_types", "cpx22", 109),
        ("server_types", "cpx32", 110),
    ],
)
def test_ids(api: Api, path: str, name: str, id: int) -> None:
    [row] = api.get(f"/{path}", name=name)[path]
    assert row["id"] == id
    assert api.get(f"/{path}/{id}")[path.removesuffix("s")] == row


@pytest.mark.parametrize(
    ("name", "architecture", "id"),
    [("debian-12", "x86", 114690387), ("debian-12", "arm", 114690389), ("ubuntu-24.04", "x86", 161547269)],
)
def test_images_have_an_id_per_architecture(api: Api, name: str, architecture: str, id: int) -> None:
    query = {"name": name, "architecture": architecture, "include_deprecated": "True"}
    assert [image["id"] for image in api.get("/images", **query)["images"]] == [id]


def test_ids_are_unique(api: Api) -> None:
    for path in ("locations", "server_types", "images"):
        rows = api.get(f"/{path}", per_page=50)
        assert rows["meta"]["pagination"]["last_page"] == 1
        ids = [row["id"] for row in rows[path]]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("included", "seen"),
    [({}, False), ({"include_deprecated": "True"}, True), ({"include_deprecated": "false"}, False)],
)
def test_deprecated_images_are_hidden_by_default(api: Api, included: dict[str, str], seen: bool) -> None:
    images = api.get("/images", name="debian-11", **included)["images"]
    assert bool(images) is seen
    assert all(image["deprecated"] and image["deprecation"]["announced"] for image in images)


def test_locations_of_server_types(api: Api) -> None:
    types = {row["name"]: row for row in api.get("/server_types", per_page=50)["server_types"]}
    assert [entry["name"] for entry in types["cx23"]["locations"] if entry["available"]] == ["fsn1", "nbg1", "hel1"]
    assert not any(entry["available"] for entry in types["cpx11"]["locations"] if entry["name"] in ("fsn1", "nbg1"))
    assert types["ccx13"]["cpu_type"] == "dedicated" and types["cax11"]["architecture"] == "arm"


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("cpx22", "regular_purpose"),
        ("cx23", "cost_optimized"),
        ("cax11", "cost_optimized"),
        ("ccx13", "general_purpose"),
    ],
)
def test_categories_of_server_types(api: Api, name: str, category: str) -> None:
    assert [row["category"] for row in api.get("/server_types", name=name)["server_types"]] == [category]


def test_withdrawn_server_types_are_only_found_by_id(api: Api) -> None:
    rows = api.get("/server_types", per_page=50)["server_types"]
    assert rows[0]["id"] == 22, "cpx11"
    assert not any(row["deprecated"] for row in rows)
    for id, name in ((1, "cx11"), (104, "cx22")):
        assert api.get("/server_types", name=name)["server_types"] == []
        assert api.get(f"/server_types/{id}")["server_type"]["name"] == name
    gone = api.get("/server_types/1")["server_type"]["locations"][0]["deprecation"]
    assert gone == {"announced": "2024-06-06T08:00:00+00:00", "unavailable_after": "2024-09-06T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("change", "status", "code", "words"),
    [
        ({"image": "ubuntu-24.04"}, 422, "unsupported_error", "the lab has no image"),
        ({"image": "docker-ce"}, 422, "unsupported_error", "docker-ce"),
        ({"image": "beos"}, 404, "not_found", "beos"),
        ({"image": 114690389}, 422, "invalid_input", "for arm"),
        ({"server_type": "cax11"}, 422, "unsupported_error", "x86"),
        ({"server_type": "cx99"}, 404, "not_found", "cx99"),
        ({"server_type": "cx22"}, 422, "invalid_input", "deprecated"),
        ({"server_type": 1}, 422, "invalid_input", "deprecated"),
        ({"server_type": "cpx11", "location": "fsn1"}, 422, "invalid_input", "unsupported location for server type"),
        ({"server_type": "cx23", "location": "ash"}, 422, "invalid_input", "unsupported location for server type"),
        ({"location": "moon"}, 404, "not_found", "moon"),
    ],
)
def test_invalid_orders(lab: Lab, change: dict[str, object], status: int, code: str, words: str) -> None:
    body = {"name": "web", "server_type": "cx23", "image": "debian-13", "location": "fsn1"} | change
    got, payload = lab.api("POST", "/servers", body)
    assert (got, payload["error"]["code"]) == (status, code)
    assert words in payload["error"]["message"]
    assert lab.api.get("/servers")["servers"] == [] and lab.api.get("/primary_ips")["primary_ips"] == []


@pytest.mark.parametrize("type", ["cx23", 114, "114"])
@pytest.mark.parametrize("image", ["debian-12", 114690387, "114690387"])
@pytest.mark.parametrize("location", ["hel1", 3, "3", None])
def test_names_and_ids_are_equivalent(api: Api, type: object, image: object, location: object) -> None:
    body = {"name": "web", "server_type": type, "image": image, "location": location, "start_after_create": False}
    server = api.post("/servers", body)["server"]
    assert (server["server_type"]["name"], server["image"]["id"]) == ("cx23", 114690387)
    assert server["location"]["name"] == ("hel1" if location else "fsn1")


@pytest.mark.parametrize(
    ("query", "seen", "unseen"),
    [
        ({}, {"x86", "arm", None}, set()),
        ({"architecture": "arm"}, {"arm"}, {"x86", None}),
        ({"architecture": "arm", "include_architecture_wildcard": "True"}, {"arm", None}, {"x86"}),
        ({"name": "systemrescue-12.02-amd64.iso"}, {"x86"}, {"arm", None}),
    ],
)
def test_isos(api: Api, query: dict[str, str], seen: set[str | None], unseen: set[str | None]) -> None:
    architectures = {iso["architecture"] for iso in api.get("/isos", **query)["isos"]}
    assert architectures == seen and not architectures & unseen
    assert api.get("/isos/122898")["iso"]["name"] == "systemrescue-12.02-amd64.iso"
    assert api.code("GET", "/isos", architecture="mips") == "invalid_input"
    assert api.code("POST", "/isos", {}) == "method_not_allowed"


def test_prices_of_all_types(api: Api) -> None:
    pricing = api.get("/pricing")["pricing"]
    cx23 = next(row for row in pricing["server_types"] if row["name"] == "cx23")
    assert [price["location"] for price in cx23["prices"]] == ["fsn1", "nbg1", "hel1"]
    for price in cx23["prices"]:
        assert float(price["price_monthly"]["gross"]) == pytest.approx(float(price["price_monthly"]["net"]) * 1.19)
