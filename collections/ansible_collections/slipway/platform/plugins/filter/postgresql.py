"""Filters of the roles of PostgreSQL: settings, rules and connections from the inventory, plans of operations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils import (
    postgresql,
    postgresql_replication,
    postgresql_upgrade,
)


def _as_filter_error(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with faults of its inputs raised as AnsibleFilterError."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except postgresql.PostgresqlError as error:
            raise AnsibleFilterError(str(error)) from error

    return call


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "postgresql_settings": _as_filter_error(postgresql.settings),
            "postgresql_configuration": _as_filter_error(postgresql.configuration),
            "postgresql_hba": _as_filter_error(postgresql.hba_file),
            "postgresql_pooler_hba": _as_filter_error(postgresql.pooler_hba_file),
            "postgresql_verifiers": _as_filter_error(postgresql.verifiers),
            "postgresql_extensions": _as_filter_error(postgresql.extensions),
            "postgresql_primary": _as_filter_error(postgresql_replication.primary),
            "postgresql_slot": _as_filter_error(postgresql_replication.slot),
            "postgresql_conninfo": _as_filter_error(postgresql_replication.conninfo),
            "postgresql_replication_settings": _as_filter_error(postgresql_replication.settings),
            "postgresql_slot_drift": _as_filter_error(postgresql_replication.slot_drift),
            "postgresql_standby_findings": _as_filter_error(postgresql_replication.standby_findings),
            "postgresql_promotion": _as_filter_error(postgresql_replication.promotion),
            "postgresql_promotion_loss": _as_filter_error(postgresql_replication.promotion_loss),
            "postgresql_ahead": _as_filter_error(postgresql_replication.ahead),
            "postgresql_upgrade": _as_filter_error(postgresql_upgrade.plan),
        }
