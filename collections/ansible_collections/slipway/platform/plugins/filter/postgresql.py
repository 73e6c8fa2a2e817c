"""Filters of the role postgresql: from the inventory's words to PostgreSQL's own."""

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


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Faults of the inputs as Ansible's own error."""

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
            "postgresql_settings": _told(postgresql.settings),
            "postgresql_configuration": _told(postgresql.configuration),
            "postgresql_hba": _told(postgresql.hba),
            "postgresql_pooler_hba": _told(postgresql.pooler_hba),
            "postgresql_hba_text": _told(postgresql.hba_text),
            "postgresql_roles": _told(postgresql.catalogue_roles),
            "postgresql_memberships": _told(postgresql.memberships),
            "postgresql_grants": _told(postgresql.grants),
            "postgresql_extensions": _told(postgresql.extensions),
            "postgresql_lacking_roles": _told(postgresql.lacking_roles),
            "postgresql_lacking_databases": _told(postgresql.lacking_databases),
            "postgresql_lacking_memberships": _told(postgresql.lacking_memberships),
            "postgresql_lacking_extensions": _told(postgresql.lacking_extensions),
            "postgresql_lacking_grants": _told(postgresql.lacking_grants),
            "postgresql_undeclared": _told(postgresql.undeclared),
            "postgresql_primary": _told(postgresql_replication.primary),
            "postgresql_slot": _told(postgresql_replication.slot),
            "postgresql_conninfo": _told(postgresql_replication.conninfo),
            "postgresql_replication_settings": _told(postgresql_replication.settings),
            "postgresql_lacking_slots": _told(postgresql_replication.lacking_slots),
            "postgresql_follower_findings": _told(postgresql_replication.follower_findings),
            "postgresql_promotion": _told(postgresql_replication.promotion),
            "postgresql_handover": _told(postgresql_replication.handover),
            "postgresql_ahead": _told(postgresql_replication.ahead),
            "postgresql_upgrade": _told(postgresql_upgrade.plan),
            "postgresql_candidates": _told(postgresql_upgrade.candidates),
        }
