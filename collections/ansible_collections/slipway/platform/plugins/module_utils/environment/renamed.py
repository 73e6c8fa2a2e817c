"""Options that changed their name: `check` reports the old one with the new one as the remedy, for one release."""

from __future__ import annotations

RENAMED: dict[str, str] = {
    "op_postgresql_begin_anew": "op_postgresql_allow_initialize",
    "op_upgrade_postgresql_back": "op_upgrade_postgresql_rollback",
    "op_upgrade_postgresql_unsaved": "op_upgrade_postgresql_without_backup",
    "postgresql_allow_initialize": "postgresql_backup_allow_initialize",
    "postgresql_begin_anew": "postgresql_backup_allow_initialize",
    "postgresql_promote_abandon": "postgresql_replication_promote_abandon",
    "postgresql_promote_cloud_endpoint": "postgresql_replication_promote_cloud_endpoint",
    "postgresql_promote_cloud_token": "postgresql_replication_promote_cloud_token",
    "postgresql_promote_fenced": "postgresql_replication_promote_fenced",
    "postgresql_rejoin_copy": "postgresql_replication_rejoin_copy",
    "postgresql_restore_database": "postgresql_backup_restore_database",
    "postgresql_restore_options": "postgresql_backup_restore_options",
    "postgresql_restore_started_at": "postgresql_backup_restore_started_at",
    "postgresql_upgrade_unsaved": "postgresql_upgrade_without_backup",
}
"""Old name → new name, of role options, shared values (platform_*) and inputs of operations (op_*)."""
