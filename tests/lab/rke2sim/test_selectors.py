from typing import Any

import pytest

from lab.rke2sim.runtime import selectors
from lab.rke2sim.runtime.controllers import fits, parse_duration

LABELS = {"app": "web", "tier": "front", "a.b/c": "d"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app!=web", False),
        ("missing!=x", True),
        ("app in (web, api)", True),
        ("app notin (web),tier", False),
        ("missing notin (web)", True),
        ("a.b/c", True),
        ("!missing", True),
        ("!app", False),
    ],
)
def test_label_selectors(text: str, expected: bool) -> None:
    assert selectors.parse_labels(text)(LABELS) is expected


def test_malformed_label_selector() -> None:
    with pytest.raises(selectors.SelectorError):
        selectors.parse_labels("a b c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metadata.name=x", True),
        ("spec.nodeName=n1,status.phase!=Failed", True),
        ("spec.nodeName!=n1", False),
        ("spec.unschedulable=false", True),
        ("spec.hostNetwork=true", True),
    ],
)
def test_field_selectors(text: str, expected: bool) -> None:
    item = {"metadata": {"name": "x"}, "spec": {"nodeName": "n1", "hostNetwork": True}, "status": {"phase": "Running"}}
    assert selectors.parse_fields(text)(item) is expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "gone", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selector_objects(selector: Any, expected: bool) -> None:
    assert selectors.match_object(selector, LABELS) is expected


def node(*taints: dict[str, str], ready: str = "True", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "labels": {"zone": "a"}},
        "spec": {"taints": list(taints), **spec},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def test_nodes_that_pods_may_be_scheduled_to() -> None:
    taint = {"key": "k", "value": "v", "effect": "NoSchedule"}
    tolerated = {"tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}]}
    assert fits({}, node())
    assert not fits({}, node(taint))
    assert fits(tolerated, node(taint))
    assert not fits({}, node(unschedulable=True))
    assert fits({}, node(unschedulable=True), daemon=True)
    assert not fits({}, node(ready="Unknown"))
    assert not fits({"nodeSelector": {"zone": "b"}}, node())


def test_durations() -> None:
    assert parse_duration("40s") == 40
    assert parse_duration("1m30s") == 90
    assert parse_duration("5m0s") == 300
