"""Fixtures of the behaviour tests of every role, on the machines of the scenarios or on the whole site."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.inventory import Inventory


@pytest.fixture(scope="session")
def inventory(pytestconfig: pytest.Config) -> Inventory:
    return Inventory(Path(pytestconfig.getoption("--ansible-inventory")))


@pytest.fixture(autouse=True)
def skip_on_the_site(request: pytest.FixtureRequest) -> None:
    """A test marked `scenario(reason)`: the site lacks what it needs, or another test proves the same of the site."""
    marker = request.node.get_closest_marker("scenario")
    if marker and request.getfixturevalue("inventory").is_site:
        pytest.skip(marker.args[0])
