"""Upgrades and restores of the cluster, on the servers that they need: those of the inventory beside this file.

`lab up --only-cloud` must have started the lab's cloud, and `SLIPWAY_TEST_INVENTORY` names the inventory. The first
test builds the cluster.
"""

from __future__ import annotations

import pytest

from tests.platform.conftest import INVENTORY, cloud, description, settings

__all__ = ["cloud", "description", "settings"]

if INVENTORY != "tests/cluster/lab":
    pytest.exit("run these tests with SLIPWAY_TEST_INVENTORY=tests/cluster/lab", returncode=1)
