from typing import Any

import pytest

from lab.rke2sim.runtime import patch


@pytest.mark.parametrize(
    ("target", "change", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, change: Any, expected: Any) -> None:
    assert patch.merge_patch(target, change) == expected


CONTAINERS = {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}


@pytest.mark.parametrize(
    ("target", "change", "expected"),
    [
        (
            CONTAINERS,
            {"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "1"}]},
            {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "1"}]},
        ),
        (
            CONTAINERS,
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": [{"name": "b", "image": "1"}]},
        ),
        (
            CONTAINERS,
            {"containers": [{"name": "z"}, {"$patch": "replace"}]},
            {"containers": [{"name": "z"}]},
        ),
        (
            CONTAINERS,
            {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a", "image": "3"}]},
            {"containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "3"}]},
        ),
        (
            {"finalizers": ["a", "b"]},
            {"finalizers": ["b", "c"], "$deleteFromPrimitiveList/finalizers": ["a"]},
            {"finalizers": ["b", "c"]},
        ),
        ({"finalizers": ["a", "b"]}, {"$deleteFromPrimitiveList/finalizers": ["a"]}, {"finalizers": ["b"]}),
        (
            {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}},
            {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
            {"strategy": {"type": "Recreate"}},
        ),
        (
            {"ports": [{"port": 80, "name": "a"}]},
            {"ports": [{"port": 81}]},
            {"ports": [{"port": 80, "name": "a"}, {"port": 81}]},
        ),
        ({"conditions": [{"type": "Ready", "status": "False"}]},
         {"conditions": [{"type": "Ready", "status": "True"}]},
         {"conditions": [{"type": "Ready", "status": "True"}]}),
        ({"args": ["a", "b"]}, {"args": ["c"]}, {"args": ["c"]}),
        ({"spec": {"unschedulable": True}}, {"spec": {"unschedulable": None}}, {"spec": {}}),
        ({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}, {"a": {"c": 2}}),
    ],
)  # fmt: skip
def test_strategic_merge(target: Any, change: Any, expected: Any) -> None:
    assert patch.strategic_merge(target, change) == expected


@pytest.mark.parametrize(
    ("document", "operations", "expected"),
    [
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": 1}, [{"op": "remove", "path": "/a"}], {}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": 2}], {"a": 2}),
        (
            {"a": 1},
            [{"op": "test", "path": "/a", "value": 1}, {"op": "copy", "from": "/a", "path": "/b"}],
            {"a": 1, "b": 1},
        ),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"x/y": {"~": 1}}, [{"op": "replace", "path": "/x~1y/~0", "value": 2}], {"x/y": {"~": 2}}),
    ],
)
def test_json_patch(document: Any, operations: Any, expected: Any) -> None:
    assert patch.json_patch(document, operations) == expected


@pytest.mark.parametrize(
    "operations",
    [
        {"op": "add"},
        [{"op": "remove", "path": "/missing"}],
        [{"op": "replace", "path": "/missing", "value": 1}],
        [{"op": "test", "path": "/a", "value": 2}],
        [{"op": "add", "path": "/list/7", "value": 1}],
        [{"op": "fly", "path": "/a"}],
        [{"op": "add", "path": "a", "value": 1}],
    ],
)
def test_invalid_json_patches_are_rejected(operations: Any) -> None:
    with pytest.raises(patch.PatchError):
        patch.json_patch({"a": 1, "list": []}, operations)


def test_fields_that_a_manager_no_longer_applies_are_removed() -> None:
    first = {"data": {"a": "1", "b": "2"}, "containers": [{"name": "x", "image": "1"}, {"name": "y", "image": "1"}]}
    second = {"data": {"a": "1"}, "containers": [{"name": "x", "image": "1"}]}
    live = {**first, "data": {**first["data"], "other": "3"}}  # type: ignore[dict-item]
    left = patch.drop_unapplied(live, patch.fields_of(first), patch.fields_of(second))
    assert left == {"data": {"a": "1", "other": "3"}, "containers": [{"name": "x", "image": "1"}]}
