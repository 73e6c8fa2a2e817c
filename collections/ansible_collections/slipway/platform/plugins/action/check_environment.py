"""Action of `slipway.platform.check_environment`: read the environment, collect the cloud's data, report faults."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.slipway.platform.plugins.module_utils.cloud import Cloud, CloudError
from ansible_collections.slipway.platform.plugins.module_utils.environment.capacity import COLLECTIONS
from ansible_collections.slipway.platform.plugins.module_utils.environment.checks import cloud_faults, pure_faults
from ansible_collections.slipway.platform.plugins.module_utils.environment.model import Environment, Fault, report
from ansible_collections.slipway.platform.plugins.plugin_utils.inventory import read_environment


def check_cloud(environment: Environment) -> list[Fault]:
    """Faults that need the cloud's data; an API that cannot be read is a fault itself."""
    name = "platform_hcloud_token"
    token, endpoint = environment.value(name), environment.text("platform_hcloud_endpoint")
    if not isinstance(token, str) or not endpoint:
        return []
    cloud = Cloud(endpoint, token)
    try:
        with ThreadPoolExecutor(len(COLLECTIONS)) as pool:
            collections = dict(zip(COLLECTIONS, pool.map(cloud.list, COLLECTIONS), strict=True))
    except CloudError as error:
        return [environment.fault(name if error.code == "unauthorized" else "platform_hcloud_endpoint", str(error))]
    return cloud_faults(environment, collections)


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "roles_dir": {"type": "path", "required": True},
                "playbooks_dir": {"type": "path", "required": True},
                "inventory_dir": {"type": "path", "required": True},
                "api_enabled": {"type": "bool", "default": True},
            }
        )
        variables = task_vars or {}
        folder = Path(arguments["inventory_dir"]).resolve()
        environment = read_environment(
            variables["hostvars"],
            variables["groups"],
            folder=folder,
            roles_dir=Path(arguments["roles_dir"]),
            playbooks_dir=Path(arguments["playbooks_dir"]),
            loader=self._loader,
            shown=_shown(folder),
        )
        faults = pure_faults(environment)
        if arguments["api_enabled"]:
            faults = sorted({*faults, *check_cloud(environment)})
        result["changed"] = False
        if faults:
            result["failed"] = True
            result["msg"] = report(faults, environment.path)
        return result


def _shown(folder: Path) -> str:
    """The folder's path for messages, relative to the current one where it lies below."""
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative
