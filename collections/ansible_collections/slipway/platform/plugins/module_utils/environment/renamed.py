"""Options that changed their name: `check` reports the old one with the new one as the remedy, for one release."""

from __future__ import annotations

RENAMED: dict[str, str] = {}
"""Old name → new name, of role options, shared values (platform_*) and inputs of operations (op_*)."""
