"""Ansible module: run one step of a restore of etcd on an RKE2 server, once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_restore_step
short_description: Run one step of a restore of etcd on an RKE2 server, once
description:
  - Stores the completed step in a record on the server; a completed step changes nothing, so that a restore that was
    killed is resumed.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Returns whether the step would change the server.
options:
  step:
    type: str
    required: true
    choices: [recorded, stopped, moved, reset, finished]
    description:
      - V(recorded) stores O(record). V(stopped) disables and stops rke2-server and kills all of its processes.
      - V(moved) renames etcd's data directory; for a reset without a snapshot the target copies it.
      - V(reset) runs C(rke2 server --cluster-reset), on the target only. V(finished) removes the downloaded snapshot.
  node_name:
    type: str
    required: true
    description: The node's name in Kubernetes.
  record:
    type: dict
    description: With O(step=recorded), the restore; see module_utils/rke2_restore.py, next_record.
  timeout_seconds:
    type: int
    default: 600
    description: Timeout of the reset in seconds.
"""

EXAMPLES = r"""
- name: Stop RKE2 and kill all of its processes
  slipway.platform.rke2_restore_step:
    step: stopped
    node_name: prod-rke2-server-1
"""

RETURN = r"""
previous:
  description: Path of the previous data directory of etcd on this server; empty if there was none.
  returned: always
  type: str
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import rke2_restore
from ansible_collections.slipway.platform.plugins.module_utils.output import shortened
from ansible_collections.slipway.platform.plugins.module_utils.rke2_plan import RESTORE_RECORD
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import (
    BINARY,
    DATA,
    journal_tail,
    read_restore,
    read_service,
)
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

UNIT = "rke2-server.service"
RESET_UNIT = "slipway-rke2-reset.service"
TERMINATION_SECONDS = 60
KILLALL = "/usr/local/bin/rke2-killall.sh"
DATABASE = DATA / "server/db"
RESET_FLAG = DATABASE / "reset-flag"
"""RKE2 writes it early in a reset, removes it at the next start, and rejects another reset until then."""
PROPERTIES = (
    # As in RKE2's own units.
    "EnvironmentFile=-/etc/default/rke2-server",
    "EnvironmentFile=-/etc/sysconfig/rke2-server",
    "EnvironmentFile=-/usr/local/lib/systemd/system/rke2-server.env",
    "Delegate=yes",
    "LimitNOFILE=1048576",
    "LimitNPROC=infinity",
    "TasksMax=infinity",
)


class StepError(Exception):
    """A step failed; the text holds the reason."""


def write_record(record: dict[str, Any]) -> None:
    path = Path(RESTORE_RECORD)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(record, indent=1))
        file.flush()
        os.fsync(descriptor)
    part.replace(path)


def run(*command: str, timeout: int = 120) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False)
    if done.returncode != 0:
        reason = shortened(done.stderr.strip() or done.stdout, 500)
        raise StepError(f"{' '.join(command[:2])} exited with {done.returncode}: {reason}")


def etcd_processes(processes: Path = Path("/proc")) -> list[int]:
    found = []
    for process in processes.glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text(errors="replace").split("\0")
        except OSError:
            continue  # it has ended
        if Path(words[0]).name == "etcd" and f"--config-file={DATABASE / 'etcd/config'}" in words:
            found.append(int(process.name))
    return found


def terminate_etcd() -> None:
    """End etcd in order, before everything is killed.

    Killed, its log can be behind the data that it has applied. A reset without a snapshot goes on from the log, so that
    members which join never get the difference (seen with etcd 3.5.16).
    """
    for number in etcd_processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGTERM)
    with contextlib.suppress(NotMet):  # it is killed next
        wait_until(
            "etcd",
            etcd_processes,
            lambda found: [f"process {number} runs" for number in found],
            timeout_seconds=TERMINATION_SECONDS,
            interval_seconds=0.5,
        )


def stop() -> None:
    """Stop RKE2 and all of its processes; etcd outlives the service. Disabled, a reboot does not start the old data."""
    if read_service(RESET_UNIT)["found"]:
        run("systemctl", "stop", RESET_UNIT)
    if read_service(UNIT)["found"]:
        run("systemctl", "disable", "--now", UNIT)
    terminate_etcd()
    if Path(KILLALL).exists():
        run(KILLALL, timeout=300)


def move(record: dict[str, Any], *, copy: bool) -> str:
    """Rename or copy etcd's data directory; the path of the previous one. A repeated call changes nothing."""
    current = DATABASE / "etcd"
    suffix = re.sub(r"[^0-9TZ]", "", record["started_at"])
    previous = DATABASE / f"etcd-before-restore-{suffix}"
    if previous.exists():
        return str(previous)
    if not current.exists():
        return ""
    if copy:
        part = DATABASE / f".etcd-before-restore-{suffix}"
        shutil.rmtree(part, ignore_errors=True)
        run("cp", "--archive", "--reflink=auto", str(current), str(part), timeout=1800)
        part.rename(previous)
    else:
        current.rename(previous)
    return str(previous)


def reset(record: dict[str, Any], timeout: int) -> None:
    """Reset etcd to this server as its only member, on the snapshot or on the local data. A repeated call starts over.

    In a unit of its own, which survives the run of Ansible, and which a later run can stop.
    """
    stop()
    RESET_FLAG.unlink(missing_ok=True)
    arguments = [str(BINARY), "server", "--cluster-reset", "--server="]
    if record["snapshot"]:
        # The verified local file; with S3 in the configuration, RKE2 would download the snapshot by name.
        arguments += ["--etcd-s3=false", f"--cluster-reset-restore-path={record['snapshot']['path']}"]
    properties = [f"--property={entry}" for entry in (*PROPERTIES, f"RuntimeMaxSec={timeout}")]
    command = ["systemd-run", f"--unit={RESET_UNIT}", "--collect", "--wait", "--quiet", *properties, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout + 60, check=False)
    if done.returncode != 0 or not RESET_FLAG.exists():
        raise StepError(f"rke2 server --cluster-reset exited with {done.returncode}. {journal_tail(RESET_UNIT, 15)}")


def apply(step: str, record: dict[str, Any], node_name: str, timeout: int) -> dict[str, Any]:
    """Run the step; returns the record to store."""
    target = record["target"] == node_name
    if step == "stopped":
        stop()
    elif step == "moved":
        stop()  # A reboot since the last step may have started RKE2 again.
        return record | {"previous": move(record, copy=target and record["request"]["reset_only"])}
    elif step == "reset":
        if not target:
            raise StepError(f"etcd is reset on {record['target']}")
        reset(record, timeout)
    elif step == "finished" and record["snapshot"] and record["snapshot"]["path"] != record["request"]["file"]:
        Path(record["snapshot"]["path"]).unlink(missing_ok=True)
    return record


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "step": {
                "type": "str",
                "required": True,
                "choices": ["recorded", "stopped", "moved", "reset", "finished"],
            },
            "node_name": {"type": "str", "required": True},
            "record": {"type": "dict"},
            "timeout_seconds": {"type": "int", "default": 600},
        },
        required_if=[("step", "recorded", ["record"])],
        supports_check_mode=True,
    )
    step, node_name = module.params["step"], module.params["node_name"]
    record = read_restore()
    if step == "recorded":
        present, wanted = record, module.params["record"]
        record = present if present and present["started_at"] == wanted["started_at"] else wanted
        changed = record is not present
    elif record is None or (module.check_mode and record["step"] == "finished"):
        # Only in check mode, in which the step before has stored no record.
        module.exit_json(changed=True, previous="")
    else:
        changed = rke2_restore.pending(step, record["step"])
    if changed and not module.check_mode:
        try:
            record = apply(step, record, node_name, module.params["timeout_seconds"])
            write_record(record | {"step": step})
        except (StepError, OSError, subprocess.TimeoutExpired) as error:
            module.fail_json(
                msg=f"{node_name}: step {step} of the restore failed: {error}. Correct the cause, then run the same "
                "command again; it resumes at this step."
            )
    module.exit_json(changed=changed, previous=record["previous"])


if __name__ == "__main__":
    main()
