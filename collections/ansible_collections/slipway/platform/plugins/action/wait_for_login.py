"""Action of `slipway.platform.wait_for_login`: wait for a login by SSH, unless its error does not pass by waiting."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until
from ansible_collections.slipway.platform.plugins.plugin_utils.ssh import (
    Kind,
    LoginError,
    kind_of,
    login_error,
    target_of,
)

POLL_SECONDS = 1.0
# cloud-init writes it at the end of every boot; reading it costs less than `cloud-init status`.
RESULT_PATH = "/run/cloud-init/result.json"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            argument_spec={
                "timeout_seconds": {"type": "int", "required": True},
                "cloud_init": {"type": "bool", "default": False},
            }
        )
        variables = task_vars or {}
        self.target = target_of(variables["inventory_hostname"], variables, self._connection.get_options())
        self.kind: Kind | None = None
        self.since = 0.0
        try:
            self._wait(self.target["host"], given)
        except LoginError as error:
            result |= {"failed": True, "msg": str(error)}
        except NotMet as error:
            remedy = (
                "Read /var/log/cloud-init-output.log there."
                if error.value is not None
                else "Check its console, and whether platform_admin_cidrs contains the address of the controller."
            )
            result |= {"failed": True, "msg": f"{error}. {remedy}"}
        result["changed"] = False
        return result

    def _wait(self, what: str, given: dict[str, Any]) -> None:
        limits: dict[str, Any] = {"timeout_seconds": given["timeout_seconds"], "interval_seconds": POLL_SECONDS}
        wait_until(what, lambda: self._output("true"), lambda _: [], passing=LoginError, **limits)
        if not given["cloud_init"]:
            return
        read = f"cat {RESULT_PATH} 2>/dev/null || true"
        text = wait_until(
            what,
            lambda: self._output(read),
            lambda output: [] if output.strip() else ["cloud-init is still running"],
            passing=LoginError,
            **limits,
        )
        if errors := json.loads(text)["v1"]["errors"]:
            raise LoginError(
                f"{what}: cloud-init did not succeed ({'; '.join(map(str, errors))}). "
                "Read /var/log/cloud-init-output.log there, correct the cause, and run again.",
                permanent=True,
            )

    def _output(self, command: str) -> str:
        """Output of a command on the host. A failed login is a LoginError."""
        try:
            done = self._low_level_execute_command(command, sudoable=False)
        except AnsibleConnectionFailure as error:
            raise self._explained(str(error)) from error
        self.kind = None
        return str(done["stdout"])

    def _explained(self, output: str) -> LoginError:
        # Over a connection that an earlier boot of the host left behind, no attempt would succeed.
        self._connection.reset()
        kind, now = kind_of(output), time.monotonic()
        if kind != self.kind:
            self.kind, self.since = kind, now
        return login_error(output, self.target, now - self.since)
