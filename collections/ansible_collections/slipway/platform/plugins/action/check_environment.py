"""Action of `slipway.platform.check_environment`: read the environment, collect the cloud's data, report faults."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
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
        faulty = name if error.code == "unauthorized" else "platform_hcloud_endpoint"
        problem, _, remedy = str(error).removesuffix(".").partition("; ")
        remedy = f"{remedy[:1].upper()}{remedy[1:]}." if remedy else "Correct it."
        return [environment.fault(faulty, f"{faulty}: {problem}", remedy)]
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
                "api_enabled": {"type": "raw", "default": True},
            }
        )
        folder = Path(arguments["inventory_dir"]).resolve()
        if not folder.is_dir():
            result["failed"] = True
            result["msg"] = (
                f"{_shown(folder)}: is no folder, but an environment's inventory is one. Run it with -i "
                f"{_shown(folder.parent)}."
            )
            return result
        environment = read_environment(
            (task_vars or {})["hostvars"],
            folder=folder,
            roles_dir=Path(arguments["roles_dir"]),
            playbooks_dir=Path(arguments["playbooks_dir"]),
            shown=_shown(folder),
        )
        faults = pure_faults(environment)
        # Another value than a boolean is a fault of the option that sets it.
        if boolean(arguments["api_enabled"], strict=False):
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
