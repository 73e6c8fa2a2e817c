#!/usr/bin/python
"""Reconcile configuration files and the services that use them, as units that are tested, activated and verified."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: configuration
short_description: Reconcile configuration files and the services that use them
description:
  - Writes the files of several units in one task.
  - A unit is planned, tested in a staging directory, written, activated and verified. If the verification fails, the
    previous files are restored and activated, and the module fails.
  - A service that does not start with its files, as after a restart that a value waited for, gets those of
    O(units[].known_good) back with which it was last verified, and is started with them. One that was stopped stays so.
  - A record of the previous files is kept until the verification, so that the next run completes an interrupted one.
  - The state that was verified is recorded by digests, for M(slipway.platform.host_drift).
  - Supports check mode (with the tests, if their programs are installed) and diff.
options:
  name:
    description: Owner of the units; the record of an unfinished change is in C(/var/lib/slipway/<name>).
    type: str
    required: true
  units:
    description: The units, in the order of activation.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name for messages and for the record.
        type: str
        required: true
      applies:
        description: Whether to apply the unit; it is skipped when false.
        type: bool
        default: true
      files:
        description: Files of the unit. The first is the argument of O(units[].test).
        type: list
        elements: dict
        suboptions:
          path: {type: path, required: true, description: Absolute path.}
          content: {type: str, description: The complete content.}
          state: {type: str, choices: [present, absent], default: present, description: Whether the file should exist.}
          mode: {type: str, default: "0644", description: Octal mode.}
          owner: {type: str, default: root, description: User name.}
          group: {type: str, default: root, description: Group name.}
          validate: {type: list, elements: str, description: "Command that validates the file, %s is its staged path."}
          sensitive: {type: bool, default: false, description: Whether to hide the content in the diff.}
          target: {type: path, description: "Path that the file is a symbolic link to; it need not exist."}
      folders:
        description: Directories to create before the files.
        type: list
        elements: dict
        suboptions:
          path: {type: path, required: true, description: Absolute path.}
          mode: {type: str, default: "0755", description: Octal mode.}
          owner: {type: str, default: root, description: User name.}
          group: {type: str, default: root, description: Group name.}
          exclusive: {type: bool, default: false, description: Whether to remove undeclared files in it.}
      test:
        description: Command that validates the staged unit, %s is the staged path of its first file.
        type: list
        elements: str
      commands:
        description: Commands that activate the files, before the service is reloaded or restarted.
        type: list
        elements: list
      commands_on_rollback:
        description: Whether the commands are run again during a rollback.
        type: bool
        default: true
      lock_timeout_seconds:
        description: Seconds for which a command is repeated while another process holds apt's or dpkg's lock.
        type: int
        default: 0
      service:
        description: Service that must run and be enabled.
        type: str
      unmask:
        description: Whether to unmask the service. Otherwise a masked one is an error, for it may be masked on purpose.
        type: bool
        default: false
      on_change:
        description: Action on the running service after a change. An inactive service is started.
        type: str
        choices: [reload, restart, none]
        default: reload
      live_command:
        description: Read-only command that succeeds while the files are active; otherwise the unit is activated again.
        type: list
        elements: str
      live_contains:
        description: Text that the output of O(units[].live_command) must contain.
        type: str
      live_lines:
        description: Lines that the output of O(units[].live_command) must have, in any order.
        type: list
        elements: str
      live_exact:
        description: >-
          Whether the output of O(units[].live_command) stays the same as long as nobody changes what the unit
          activated. If it differs from that of the last verification, the unit is activated again.
        type: bool
        default: false
      digest_mark:
        description: >-
          Text in the files, and in O(units[].live_contains), that is replaced by a digest of all files of the unit, so
          that the running service shows which files it has loaded.
        type: str
      probes:
        description: Ports that must answer after the activation.
        type: list
        elements: dict
        suboptions:
          address: {type: str, default: 127.0.0.1, description: Address to connect to.}
          port: {type: int, required: true, description: TCP port.}
          tls: {type: bool, default: false, description: Whether to require a TLS 1.3 handshake.}
          starttls: {type: str, choices: [postgres], description: Protocol that requests the handshake.}
          server_name: {type: str, description: Server name for the handshake.}
          certificate_path: {type: path, description: PEM file whose first certificate must be presented.}
      restart:
        description: Restarts the running service although no file differs.
        type: bool
        default: false
      known_good:
        description: Files that are recorded while the running service uses every value of them.
        type: list
        elements: path
      known_good_contains:
        description: >-
          Text that the output of O(units[].live_command) contains while the service uses every value of its files,
          none of which waits for a restart.
        type: str
      probe_seconds:
        description: Seconds until the verification must succeed.
        type: int
        default: 10
author: [Slipway]
attributes:
  check_mode: {support: full, description: Reports what would change.}
  diff_mode: {support: full, description: Returns the differences.}
"""

EXAMPLES = r"""
- name: Configure the time service
  slipway.platform.configuration:
    name: base
    units:
      - name: time
        files:
          - path: /etc/chrony/chrony.conf
            content: "{{ lookup('ansible.builtin.template', 'etc/chrony/chrony.conf.j2') }}"
            validate: [chronyd, -p, -f, "%s"]
        service: chrony
        on_change: restart
"""

RETURN = r"""
units:
  description: Reasons for the change of each unit, by name; empty for an unchanged unit.
  type: dict
  returned: always
"""

from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.configuration import (
    ConfigurationError,
    Plan,
    ServiceState,
    apply,
    diff,
    forget_verified,
    plan,
    plan_reactivation,
    record_known_good,
    record_verified,
    services,
    test,
    unit_from,
)
from ansible_collections.slipway.platform.plugins.module_utils.configuration_host import RealHost


class QuietModule(AnsibleModule):
    """Does not log its invocation to the host's journal: the options hold complete files."""

    def _log_invocation(self) -> None:
        pass


def _options() -> dict[str, Any]:
    text: dict[str, Any] = {"type": "str"}
    words: dict[str, Any] = {"type": "list", "elements": "str"}
    placed: dict[str, Any] = {
        "path": {"type": "path", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    file = placed | {
        "content": text,
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "mode": {"type": "str", "default": "0644"},
        "validate": words,
        "sensitive": {"type": "bool", "default": False},
        "target": {"type": "path"},
    }
    folder = placed | {
        "mode": {"type": "str", "default": "0755"},
        "exclusive": {"type": "bool", "default": False},
    }
    probe = {
        "address": {"type": "str", "default": "127.0.0.1"},
        "port": {"type": "int", "required": True},
        "tls": {"type": "bool", "default": False},
        "starttls": {"type": "str", "choices": ["postgres"]},
        "server_name": text,
        "certificate_path": {"type": "path"},
    }
    unit = {
        "name": {"type": "str", "required": True},
        "applies": {"type": "bool", "default": True},
        "files": {"type": "list", "elements": "dict", "options": file},
        "folders": {"type": "list", "elements": "dict", "options": folder},
        "test": words,
        "commands": {"type": "list", "elements": "list"},
        "commands_on_rollback": {"type": "bool", "default": True},
        "lock_timeout_seconds": {"type": "int", "default": 0},
        "service": text,
        "unmask": {"type": "bool", "default": False},
        "on_change": {"type": "str", "choices": ["reload", "restart", "none"], "default": "reload"},
        "live_command": words,
        "live_contains": text,
        "live_lines": words,
        "live_exact": {"type": "bool", "default": False},
        "digest_mark": text,
        "probes": {"type": "list", "elements": "dict", "options": probe},
        "probe_seconds": {"type": "int", "default": 10},
        "restart": {"type": "bool", "default": False},
        "known_good": {"type": "list", "elements": "path"},
        "known_good_contains": text,
    }
    return {
        "name": {"type": "str", "required": True},
        "units": {"type": "list", "elements": "dict", "required": True, "options": unit},
    }


def main() -> None:
    build: Callable[..., AnsibleModule] = QuietModule
    module = build(argument_spec=_options(), supports_check_mode=True)
    host = RealHost(module, str(module.params["name"]))
    units = [unit_from(options) for options in module.params["units"] if options["applies"]]
    outdated = [unit_from(options) for options in module.params["units"] if not options["applies"]]
    plans: list[Plan] = []
    shown: list[dict[str, str]] = []
    try:
        known = services(units, host)
        for unit in units:
            planned = plan(unit, host, known.get(unit.service, ServiceState()))
            plans.append(planned)
            shown += diff(planned)
        # All units are tested before the first is changed.
        for planned in plans:
            test(planned, host, missing_program_ok=module.check_mode)
        plans = [plan_reactivation(planned, host) for planned in plans]
        for planned in plans:
            if module.check_mode:
                continue
            if planned.changed:
                apply(planned, host)
            else:
                record_known_good(planned.unit, host, planned.live_output)
                record_verified(planned.unit, host, planned.live_output)
        for unit in outdated if not module.check_mode else ():
            forget_verified(unit, host)
    except ConfigurationError as error:
        module.fail_json(msg=str(error), diff=shown)
    finally:
        host.close()
    module.exit_json(
        changed=any(planned.changed for planned in plans),
        units={planned.unit.name: planned.reasons() for planned in plans},
        diff=shown,
    )


if __name__ == "__main__":
    main()
