"""Action of `slipway.platform.validate_options`: validate the options of a playbook before anything happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.slipway.platform.plugins.plugin_utils.options import (
    PREFIX,
    limit_faults,
    option_faults,
    playbook_options,
)


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "playbook": {"type": "path", "required": True},
                "hosts": {"type": "list", "elements": "str", "required": True},
            }
        )
        variables, playbook = task_vars or {}, Path(arguments["playbook"])
        given = {key: self._templar.template(value) for key, value in variables.items() if str(key).startswith(PREFIX)}
        faults = [
            *option_faults(given, playbook_options(playbook)),
            *limit_faults(playbook, variables["groups"], arguments["hosts"]),
        ]
        result["changed"] = False
        if faults:
            result["failed"] = True
            ending = f"Nothing has been changed. See docs/runbooks/{playbook.stem}.md."
            result["msg"] = "\n".join([*faults, ending])
        return result
