"""Check mode as a test: a run with --check in which anything would change fails."""

from __future__ import annotations

DOCUMENTATION = r"""
name: unchanged
type: aggregate
short_description: Fails a check-mode run that reports changes
description:
  - Ends a run with C(--check) with exit code 2 when a host reports a changed task, and names the hosts.
  - Runs without C(--check) are left alone. For tests of a converged host; Molecule's own check step passes whatever is
    reported.
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
                f"Check mode reports changes on {', '.join(changed)}, on hosts that were converged before: "
                "a task is not idempotent or not true in check mode (run it with --check --diff to see it)."
            )
            # An exception would become a warning; the exit code is what a caller looks at.
            raise SystemExit(2)
