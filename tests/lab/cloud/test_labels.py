from __future__ import annotations

import pytest

from lab.cloud import labels

WEB = {"env": "prod", "tier": "web", "empty": "", "example.com/team": "a.b_c-d"}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("env", True),
        ("gone", False),
        ("!gone", True),
        ("! env", False),
        ("env=prod", True),
        ("env==prod", True),
        ("env = prod", True),
        ("env=dev", False),
        ("env!=dev", True),
        ("env!=prod", False),
        ("gone!=x", True),  # an object without the key is different from x
        ("gone=", False),
        ("empty=", True),
        ("empty", True),
        ("env in (dev,prod)", True),
        ("env in (dev, prod )", True),
        ("env in (dev)", False),
        ("env notin (dev)", True),
        ("env notin (prod,dev)", False),
        ("gone notin (prod)", True),
        ("gone in (prod)", False),
        ("env=prod,tier=web", True),
        ("env=prod, tier in (web,db), !gone", True),
        ("env=prod,tier=db", False),
        ("example.com/team=a.b_c-d", True),
    ],
)
def test_selector(selector: str, matches: bool) -> None:
    assert labels.parse(selector)(WEB) is matches


@pytest.mark.parametrize(
    "selector",
    ["", ",", "env=prod,", "=x", "env in", "env in dev", "env in (a", "a b", "-env", "env=-x", "a=b=c", "()"],
)
def test_invalid_selector(selector: str) -> None:
    with pytest.raises(ValueError, match="label selector"):
        labels.parse(selector)


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        ("env", "prod", True),
        ("env", "", True),
        ("a" * 63, "b" * 63, True),
        ("example.com/my", "label", True),
        ("a.b_c-d", "A.b_C-9", True),
        ("a" * 64, "", False),
        ("a", "b" * 64, False),
        ("-a", "", False),
        ("a-", "", False),
        ("", "x", False),
        ("a b", "", False),
        ("a", "b c", False),
        ("a", "-b", False),
        ("/a", "", False),
        ("Example/a", "", False),
        ("hetzner.cloud/a", "b", False),
        ("x/y/z", "", False),
    ],
)
def test_label(key: str, value: str, good: bool) -> None:
    assert (list(labels.faults({key: value})) == []) is good
