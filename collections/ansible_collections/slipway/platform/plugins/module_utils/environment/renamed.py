"""Options that changed their name: `check` reports the old one with the new one as the remedy, for one release."""

from __future__ import annotations

RENAMED: dict[str, str] = {
    "op_postgresql_begin_anew": "op_postgresql_allow_initialize",
    "op_upgrade_postgresql_back": "op_upgrade_postgresql_rollback",
    "op_upgrade_postgresql_unsaved": "op_upgrade_postgresql_without_backup",
    "postgresql_begin_anew": "postgresql_allow_initialize",
    "postgresql_upgrade_unsaved": "postgresql_upgrade_without_backup",
}
"""Old name → new name, of role options, shared values (platform_*) and inputs of operations (op_*)."""
