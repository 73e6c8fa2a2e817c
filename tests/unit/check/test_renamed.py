"""Options that changed their name are reported with the new one."""

from __future__ import annotations

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.environment import specs
from ansible_collections.slipway.platform.plugins.module_utils.environment.model import Definition, Environment, Origin
from ansible_collections.slipway.platform.plugins.module_utils.environment.renamed import RENAMED
from ansible_collections.slipway.platform.plugins.plugin_utils.inventory import renamed_extra_vars

from tests.static.test_messages import KNOWN


@pytest.mark.parametrize("name", ["load_balancer_old", "platform_old", "op_old"])
def test_a_renamed_option_is_reported_with_its_new_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED, name, "new_name")
    origin = Origin("inventories/prod/group_vars/all/platform.yml", 3)
    environment = Environment(
        "prod", "inventories/prod", (), {}, (Definition(name, "all", origin),), {}, (), {}, frozenset()
    )
    (fault,) = specs.unknown(environment)
    assert (fault.origin, fault.message) == (origin, f"{name} is no longer known; rename it to new_name.")


def test_a_renamed_extra_variable_is_reported() -> None:
    defined = Definition("postgresql_begin_anew", "postgresql", Origin("group_vars/postgresql.yml", 3))
    variables = dict.fromkeys(("op_postgresql_begin_anew", "postgresql_begin_anew", "op_check_api_enabled"), True)
    assert [definition.name for definition in renamed_extra_vars(variables, [defined])] == ["op_postgresql_begin_anew"]


def test_every_new_name_exists_and_no_old_one_does() -> None:
    assert set(RENAMED.values()) - KNOWN == set()
    assert set(RENAMED) & KNOWN == set()
