"""Filters of the role rancher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils.rancher import version_faults


def rancher_version_faults(wanted: str, installed: str, upgrade_allowed: bool = False) -> list[str]:
    """Why the wanted version cannot follow the installed one; an empty text is no installation."""
    try:
        return version_faults(installed, wanted, upgrade_allowed)
    except ValueError as error:
        raise AnsibleFilterError(f"rancher_version: {error}. Set it as in 2.15.0.") from error


def rancher_setting(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The resource of a setting; `entry` has its name as key and its value."""
    return {
        "apiVersion": "management.cattle.io/v3",
        "kind": "Setting",
        "metadata": {"name": entry["key"]},
        "value": str(entry["value"]),
    }


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rancher_setting": rancher_setting, "rancher_version_faults": rancher_version_faults}
