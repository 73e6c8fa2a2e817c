"""Conditions of rules, replaced variables and patterns of paths."""

from __future__ import annotations

import pytest

from lab.gitlab.expressions import ExpressionError, expand, matches_path, parse

VARIABLES = {"BRANCH": "main", "DEFAULT": "main", "TAG": "v1.2", "EMPTY": "", "PATTERN": "/^MA/i"}


@pytest.mark.parametrize(
    ("condition", "result"),
    [
        ("$BRANCH", True),
        ("$EMPTY", False),
        ("$MISSING", False),
        ('$BRANCH == "main"', True),
        ("'main' == $BRANCH", True),
        ("$BRANCH == $DEFAULT", True),
        ("${BRANCH} != 'main'", False),
        ("$MISSING == null", True),
        ("$EMPTY == null", False),
        ("$MISSING != 'main'", True),
        ("$TAG =~ /^v[0-9]/", True),
        (r"$TAG =~ /^v1\.2$/ && $BRANCH", True),
        ("$TAG !~ /^V/", True),
        ("$TAG =~ /^V/i", True),
        ("$MISSING =~ /a/", False),
        ("$MISSING !~ /a/", True),
        ("$BRANCH =~ $PATTERN", True),
        ("$BRANCH =~ $MISSING", False),
        ("$TAG =~ /a\\/b/", False),
        # && before ||
        ("$BRANCH || $MISSING && $EMPTY", True),
        ("($BRANCH || $MISSING) && $EMPTY", False),
        ("$EMPTY || ($BRANCH && ($TAG == 'v1.2'))", True),
    ],
)
def test_conditions(condition: str, result: bool) -> None:
    assert parse(condition)(VARIABLES) is result


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("$BRANCH = 'main'", "is not understood"),
        ("$BRANCH ==", "ends too early"),
        ("($BRANCH", "a parenthesis is not closed"),
        ("$BRANCH 'main'", "'main' is not expected here"),
        ("== 'main'", "'==' is not expected here"),
        ("$BRANCH =~ 'main'", "is not a pattern"),
        ("$BRANCH =~ /(/", "the pattern /(/ is wrong"),
        ("$BRANCH =~ /a/x", "flag 'x' is not understood"),
        ("", "ends too early"),
    ],
)
def test_wrong_conditions(condition: str, message: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse(condition)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$BRANCH/${TAG}", "main/v1.2"),
        ("$NO-${NO}", "$NO-${NO}"),
        ("$$BRANCH", "$BRANCH"),
        ("5$", "5$"),
    ],
)
def test_variables_are_replaced(text: str, result: str) -> None:
    assert expand(text, VARIABLES) == result


@pytest.mark.parametrize(
    ("pattern", "path", "result"),
    [
        ("docs/*.md", "docs/a.md", True),
        ("docs/*.md", "docs/b/a.md", False),
        ("docs/**/*.md", "docs/a.md", True),
        ("docs/**/*.md", "docs/b/c/a.md", True),
        ("**/*.yml", "a.yml", True),
        ("roles/**", "roles/base/tasks/main.yml", True),
        ("a?c", "abc", True),
        ("a.c", "abc", False),
    ],
)
def test_patterns_of_paths(pattern: str, path: str, result: bool) -> None:
    assert matches_path(pattern, path) is result


def test_patterns_that_are_not_implemented() -> None:
    with pytest.raises(ExpressionError):
        matches_path("a.{b,c}", "a.b")
