"""Options that changed their name are reported with the new one."""

from __future__ import annotations

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.environment import specs
from ansible_collections.slipway.platform.plugins.module_utils.environment.model import Definition, Environment, Origin
from ansible_collections.slipway.platform.plugins.module_utils.environment.renamed import RENAMED

from tests.static.test_messages import KNOWN


@pytest.mark.parametrize("name", ["load_balancer_old", "platform_old", "op_old"])
def test_a_renamed_option_is_reported_with_its_new_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED, name, "new_name")
    origin = Origin("inventories/prod/group_vars/all/platform.yml", 3)
    environment = Environment(
        "prod", "inventories/prod", (), {}, (Definition(name, "all", origin),), {}, (), {}, frozenset()
    )
    (fault,) = specs.unknown(environment)
    assert (fault.origin, fault.message) == (origin, f"{name}: is no longer known. Rename it to new_name.")


def test_every_new_name_exists_and_no_old_one_does() -> None:
    assert set(RENAMED.values()) - KNOWN == set()
    assert set(RENAMED) & KNOWN == set()
