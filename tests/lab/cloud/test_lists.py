"""Pages, order and filters."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.cloud.conftest import Api, Lab


@pytest.fixture
def groups(api: Api) -> list[int]:
    """Seven placement groups; the lists of all kinds go through the same code."""
    rows = [("c", "prod"), ("a", "dev"), ("b", "prod"), ("g", ""), ("e", "dev"), ("d", None), ("f", "prod")]
    return [
        api.post("/placement_groups", {"name": name, "type": "spread", "labels": {} if env is None else {"env": env}})[
            "placement_group"
        ]["id"]
        for name, env in rows
    ]


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize(
    ("query", "rows", "page"),
    [
        ({}, 7, (1, 25, None, None, 1, 7)),
        ({"per_page": 3}, 3, (1, 3, None, 2, 3, 7)),
        ({"per_page": 3, "page": 2}, 3, (2, 3, 1, 3, 3, 7)),
        ({"per_page": 3, "page": 3}, 1, (3, 3, 2, None, 3, 7)),
        ({"per_page": 3, "page": 9}, 0, (9, 3, 8, None, 3, 7)),
        ({"per_page": 500}, 7, (1, 50, None, None, 1, 7)),
        ({"name": "nobody"}, 0, (1, 25, None, None, 1, 0)),
    ],
)
def test_pages(api: Api, query: dict[str, Any], rows: int, page: tuple[int | None, ...]) -> None:
    payload = api.get("/placement_groups", **query)
    assert len(payload["placement_groups"]) == rows
    keys = ("page", "per_page", "previous_page", "next_page", "last_page", "total_entries")
    assert payload["meta"] == {"pagination": dict(zip(keys, page, strict=True))}


@pytest.mark.usefixtures("groups")
def test_link_header_lists_all_pages(lab: Lab) -> None:
    names, url = [], f"{lab.endpoint}/placement_groups?per_page=3&sort=name"
    while url:
        answer = lab.api.http.get(url)
        names += [row["name"] for row in answer.json()["placement_groups"]]
        url = answer.links.get("next", {}).get("url", "")
    assert names == list("abcdefg")
    assert "prev" in answer.links and "last" in answer.links


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ([], "cabgedf"),
        (["id"], "cabgedf"),
        (["id:desc"], "fdegbac"),
        (["name"], "abcdefg"),
        (["name:desc"], "gfedcba"),
        (["created:asc", "name:asc"], "abcdefg"),
    ],
)
def test_order(api: Api, sort: list[str], names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = api.get("/placement_groups", sort=sort)["placement_groups"]
    if sort[:1] == ["created:asc"]:
        rows = [row for row in rows if row["created"] == rows[0]["created"]]
        assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
    else:
        assert "".join(row["name"] for row in rows) == names


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"name": "b"}, "b"),
        ({"name": "42"}, ""),
        ({"type": "spread"}, "cabgedf"),
        ({"label_selector": "env=prod"}, "cbf"),
        ({"label_selector": "env=prod", "sort": "name:desc"}, "fcb"),
        ({"label_selector": "!env"}, "d"),
        ({"label_selector": "env notin (prod, dev)"}, "gd"),
        ({"label_selector": "env,env!=prod"}, "age"),
        ({"label_selector": ""}, "cabgedf"),
    ],
)
def test_filters(api: Api, query: dict[str, str], names: str) -> None:
    assert "".join(row["name"] for row in api.get("/placement_groups", **query)["placement_groups"]) == names


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/placement_groups", {"page": "0"}, "page"),
        ("/placement_groups", {"per_page": "x"}, "per_page"),
        ("/placement_groups", {"sort": "size"}, "sort"),
        ("/placement_groups", {"sort": "name:up"}, "sort"),
        ("/placement_groups", {"type": "stack"}, "type"),
        ("/placement_groups", {"label_selector": "a=b=c"}, "label_selector"),
        ("/servers", {"status": "asleep"}, "status"),
        ("/actions", {"id": "x"}, "id"),
        ("/primary_ips", {"sort": "name"}, "sort"),
    ],
)
def test_invalid_queries(api: Api, path: str, query: dict[str, str], field: str) -> None:
    status, payload = api("GET", path, **query)
    assert (status, payload["error"]["code"]) == (422, "invalid_input")
    assert [entry["name"] for entry in payload["error"]["details"]["fields"]] == [field]


def test_repeated_values_match_any(lab: Lab) -> None:
    lab.server("up")
    lab.off("down")
    assert [row["name"] for row in lab.api.get("/servers", status="off")["servers"]] == ["down"]
    assert [row["name"] for row in lab.api.get("/servers", status=["off", "running"])["servers"]] == ["up", "down"]


def test_actions_by_many_ids(lab: Lab) -> None:
    ids = [
        lab.api.post("/servers", {"name": f"s{n}", "server_type": 114, "image": 114690387})["action"]["id"]
        for n in range(3)
    ]
    lab.wait_idle()
    found = lab.api.get("/actions", id=[ids[2], ids[0], 1], sort=["status", "id"])["actions"]
    assert [action["id"] for action in found] == [ids[0], ids[2]]
