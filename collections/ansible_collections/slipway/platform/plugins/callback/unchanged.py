"""Check mode as a test: a run with --check in which anything would change fails."""

from __future__ import annotations

DOCUMENTATION = r"""
name: unchanged
type: aggregate
short_description: Fail a check-mode run that reports changes
description:
  - Fails a run with C(--check) with exit code 2 if a host reports a changed task, and prints the hosts.
  - Has no effect without C(--check). For tests of a converged host, because Molecule's own check step ignores changes.
author: [Slipway]
requirements:
  - enabled by name in C(ANSIBLE_CALLBACKS_ENABLED)
"""

from ansible import context
from ansible.executor.stats import AggregateStats
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "slipway.platform.unchanged"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        if not context.CLIARGS.get("check"):
            return
        changed = sorted(host for host, count in stats.changed.items() if count)
        if changed:
            self._display.error(
                f"Check mode reports changes on {', '.join(changed)}, although the hosts are converged: "
                "a task is not idempotent or wrong in check mode. Run with --check --diff to find the task."
            )
            # Ansible turns an exception into a warning, but callers evaluate the exit code.
            raise SystemExit(2)
