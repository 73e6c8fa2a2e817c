"""Programs of the simulated release, for the test session."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.rke2sim import package
from lab.settings import Settings


@pytest.fixture(scope="session")
def programs() -> Path:
    """Debian 13's etcd, etcdctl, openssl and runc, from the cache of the lab's mirror."""
    return package.programs(Settings.from_environment().cache_dir / "rke2sim")
