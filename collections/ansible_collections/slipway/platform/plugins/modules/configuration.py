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

import errno
import grp
import os
import pwd
import shutil
import socket
import ssl
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.configuration import (
    UNFINISHED,
    ConfigurationError,
    FileState,
    Folder,
    FolderState,
    Plan,
    Probe,
    Result,
    ServiceState,
    apply,
    diff,
    plan,
    plan_reactivation,
    record_known_good,
    services,
    staged_path,
    test,
    unit_from,
)
from ansible_collections.slipway.platform.plugins.module_utils.postgresql_tls import request_tls

STATE_FOLDER = Path("/var/lib/slipway")
# In memory, and readable by root alone.
STAGING_FOLDER = Path("/run")


class QuietModule(AnsibleModule):
    """Does not log its invocation to the host's journal: the options hold complete files."""

    def _log_invocation(self) -> None:
        pass


class RealHost:
    """The host that the module runs on."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.records = STATE_FOLDER / str(module.params["name"])
        self.staging = tempfile.mkdtemp(prefix="slipway-staging-", dir=STAGING_FOLDER)
        # For parent directories and files that commands create, independent of the umask that sudo sets.
        os.umask(0o022)

    def read(self, path: str) -> FileState | None:
        try:
            found = Path(path).lstat()
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise ConfigurationError(f"{path} cannot be written: a part of its path is a file") from error
        if stat.S_ISDIR(found.st_mode):
            raise ConfigurationError(f"{path} is a directory, but should be a file. Move the directory")
        link, content = "", b""
        if stat.S_ISLNK(found.st_mode):
            link = str(Path(path).readlink())
        else:
            content = Path(path).read_bytes()
        return FileState(content, stat.S_IMODE(found.st_mode), _user(found.st_uid), _group(found.st_gid), link)

    def read_folder(self, path: str) -> FolderState | None:
        try:
            found = Path(path).stat()
        except FileNotFoundError:
            return None
        return FolderState(stat.S_IMODE(found.st_mode), _user(found.st_uid), _group(found.st_gid))

    def list_files(self, folder: str) -> list[str]:
        try:
            with os.scandir(folder) as entries:
                return [entry.path for entry in entries if not entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def write(self, path: str, state: FileState) -> None:
        target = Path(path)
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if state.link or target.is_symlink():
            self.remove(path)
        if state.link:
            target.symlink_to(state.link)
            return
        with tempfile.NamedTemporaryFile(dir=self.staging, delete=False) as file:
            file.write(state.content)
        try:
            Path(file.name).chmod(state.mode)
            shutil.chown(file.name, state.owner, state.group)
        except LookupError as error:
            raise ConfigurationError(
                f"the owner of {path} cannot be set to {state.owner}:{state.group}: {error}"
            ) from error
        # atomic_move keeps mode and owner of a replaced file, so both are set again.
        self.module.atomic_move(file.name, path, unsafe_writes=True)
        target.chmod(state.mode)
        shutil.chown(path, state.owner, state.group)

    def remove(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def make_folder(self, folder: Folder) -> None:
        Path(folder.path).mkdir(mode=0o755, parents=True, exist_ok=True)
        Path(folder.path).chmod(folder.mode)
        shutil.chown(folder.path, folder.owner, folder.group)

    def staged(self, path: str) -> str:
        return staged_path(self.staging, path)

    def stage(self, path: str, content: bytes) -> str:
        staged = Path(self.staged(path))
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(content)
        staged.chmod(0o600)
        return str(staged)

    def run(self, command: Sequence[str]) -> Result:
        program = self.module.get_bin_path(command[0], opt_dirs=["/usr/sbin", "/sbin"])
        if program is None:
            return Result(None, f"the program {command[0]} is not installed")
        code, out, err = self.module.run_command([program, *command[1:]], environ_update={"LC_ALL": "C.UTF-8"})
        return Result(code, out + err)

    def probe(self, probe: Probe) -> str | None:
        return probe_port(probe)

    def _record(self, unit: str, kind: str) -> Path:
        return self.records / f"{unit}.{kind}.json"

    def read_record(self, unit: str, kind: str = UNFINISHED) -> str | None:
        try:
            return self._record(unit, kind).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def write_record(self, unit: str, text: str, kind: str = UNFINISHED) -> None:
        self.records.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self.records / f"{unit}.new"
        new.touch(mode=0o600)
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._record(unit, kind))

    def remove_record(self, unit: str) -> None:
        self._record(unit, UNFINISHED).unlink(missing_ok=True)


def probe_port(probe: Probe) -> str | None:
    """Connect, with a handshake if required. Return the fault, or None."""
    try:
        with socket.create_connection((probe.address, probe.port), timeout=3) as connection:
            if not probe.tls:
                return None
            if probe.starttls == "postgres" and not request_tls(connection):
                return f"{probe} offers no TLS"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            # The certificate is compared with the file, which is stricter than a verification of its chain.
            context.verify_mode = ssl.CERT_NONE
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            with context.wrap_socket(connection, server_hostname=probe.server_name or None) as channel:
                presented = channel.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        return f"{probe} rejects a TLS 1.3 handshake for {probe.server_name or 'no name'}: {error.reason or error}"
    except OSError as error:
        reason = "no listener" if error.errno == errno.ECONNREFUSED else str(error)
        return f"{probe} does not answer: {reason}"
    if not probe.certificate_path:
        return None
    try:
        text = Path(probe.certificate_path).read_text(encoding="ascii")
        first = text[text.index("-----BEGIN CERTIFICATE") :].split("-----END CERTIFICATE-----")[0]
        expected = ssl.PEM_cert_to_DER_cert(first + "-----END CERTIFICATE-----\n")
    except (OSError, ValueError) as error:
        return f"the certificate {probe.certificate_path} cannot be read: {error}"
    if presented != expected:
        return f"{probe} presents another certificate for {probe.server_name} than {probe.certificate_path}"
    return None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


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
    host = RealHost(module)
    units = [unit_from(options) for options in module.params["units"] if options["applies"]]
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
    except ConfigurationError as error:
        module.fail_json(msg=str(error), diff=shown)
    finally:
        shutil.rmtree(host.staging, ignore_errors=True)
    module.exit_json(
        changed=any(planned.changed for planned in plans),
        units={planned.unit.name: planned.reasons() for planned in plans},
        diff=shown,
    )


if __name__ == "__main__":
    main()
