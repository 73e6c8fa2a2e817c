"""One boot of a host: a rootful podman container with systemd as its first process."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.machines import namespaces
from lab.machines.base import HostSpec, MachineError
from lab.machines.commands import CommandError, run
from lab.machines.volumes import Device
from lab.machines.watch import Init

log = logging.getLogger(__name__)

LAB_LABEL = "slipway.lab"
SERVER_LABEL = "slipway.server"

# Signals by which systemd powers off and reboots (systemd(1)); exit codes of a PID namespace after reboot(2) of init.
POWER_BUTTON = 38
REBOOT_BUTTON = 39
EXIT_REBOOT = 129
EXIT_POWEROFF = 130

BOOT_FOLDER = "/run/machine"
ENTRYPOINT = """\
#!/bin/sh
# Runs once before init, which it then executes.
# podman mounts its own files here; hostnamectl and others replace them by a rename, which a mount point rejects.
for file in /etc/hostname /etc/hosts /etc/resolv.conf; do
    umount "$file" 2>/dev/null
done
# A privileged container sees the disks of the machine and of all hosts: remove all, then create this host's own.
find /dev -xdev -type b -delete
# No udevd runs in a host (see images.py): without its records, device units never become active.
mkdir -p /dev/disk/by-id /run/udev/data /run/udev/tags/systemd
while read -r major minor node serial; do
    mknod -m 660 "/dev/$node" b "$major" "$minor"
    ln -s "../../$node" "/dev/disk/by-id/scsi-$serial"
    printf 'S:disk/by-id/scsi-%s\\nI:1\\nE:ID_BUS=scsi\\nE:ID_SERIAL=%s\\nG:systemd\\nQ:systemd\\nV:1\\n' \\
        "$serial" "$serial" >"/run/udev/data/b$major:$minor"
    : >"/run/udev/tags/systemd/b$major:$minor"
done <MACHINE/devices
# As on a real machine, where systemd does it: the kubelet and CSI drivers pass mounts on.
mount --make-rshared /
mkdir -p /etc/containers/containers.conf.d
cp MACHINE/containers.conf /etc/containers/containers.conf.d/10-machine.conf
exec /sbin/init
""".replace("MACHINE", BOOT_FOLDER)


@dataclass(frozen=True, slots=True)
class Facts:
    """Properties of this machine that determine how a host is started."""

    cgroup_version: int
    runtime: str | None
    cores: int
    open_files: int
    processes: int

    @classmethod
    def detect(cls) -> Facts:
        return cls(
            cgroup_version=2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
            runtime="runc" if shutil.which("runc") else None,
            cores=os.cpu_count() or 1,
            # Without CAP_SYS_RESOURCE this process's hard limit is the maximum.
            open_files=_limit(resource.RLIMIT_NOFILE, 1048576),
            processes=_limit(resource.RLIMIT_NPROC, 32768),
        )


def _limit(which: int, wanted: int) -> int:
    hard = resource.getrlimit(which)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)


def engine_configuration(facts: Facts) -> str:
    """containers.conf(5) of a host: containers in it cannot get higher limits than the host has."""
    limits = json.dumps([f"nofile={facts.open_files}:{facts.open_files}", f"nproc={facts.processes}:{facts.processes}"])
    text = f"[containers]\ndefault_ulimits = {limits}\n"
    if facts.cgroup_version == 1:
        # Otherwise every call warns about cgroup v1 on standard error, which programs parse.
        text += '[engine]\nenv = ["PODMAN_IGNORE_CGROUPSV1_WARNING=1"]\n'
    return text


def init_arguments(cgroup_version: int) -> list[str]:
    """Arguments of podman that run systemd as init.

    On cgroup v1, `--systemd=always` mounts the machine's systemd hierarchy into every container: hosts share one tree
    and remove each other's cgroups. A private cgroup namespace and environment variables of systemd replace the option.
    On v2 the option works.
    """
    common = [
        "--cgroupns=private",
        "--stop-signal=37",
        "--env=container=podman",
        "--tmpfs=/run:rw,mode=755,exec",
        "--tmpfs=/run/lock:rw,mode=755",
        "--tmpfs=/tmp:rw,mode=1777,exec",
    ]
    if cgroup_version == 2:
        return [*common, "--systemd=always"]
    return [
        *common,
        "--systemd=false",
        "--env=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
        "--env=SYSTEMD_PROC_CMDLINE=systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
    ]


@dataclass(frozen=True, slots=True)
class Boot:
    """Parameters of one start."""

    lab: str
    container: str
    namespace: Path
    spec: HostSpec
    folder: Path
    root: Path
    mounts: tuple[tuple[Path, str], ...]

    @property
    def boot_folder(self) -> Path:
        return self.folder / "boot"

    @property
    def pid_file(self) -> Path:
        return self.folder / "pid"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"


def machine_mounts() -> tuple[tuple[Path, str], ...]:
    """The kernel modules of this machine, if it has any; a host loads a module into the shared kernel."""
    modules = Path("/lib/modules", os.uname().release).resolve()
    return ((modules, f"/usr/lib/modules/{modules.name}"),) if modules.is_dir() else ()


def run_arguments(boot: Boot, facts: Facts) -> list[str]:
    """The `podman run` command of one start."""
    spec = boot.spec
    limits = {"nofile": facts.open_files, "nproc": facts.processes}
    return [
        "podman",
        *(["--runtime", facts.runtime] if facts.runtime else []),
        "run",
        "--detach",
        "--replace",
        "--privileged",
        "--tty",
        f"--name={boot.container}",
        f"--hostname={spec.name}",
        f"--label={LAB_LABEL}={boot.lab}",
        f"--label={SERVER_LABEL}={spec.server_id}",
        *init_arguments(facts.cgroup_version),
        f"--network=ns:{boot.namespace}",
        "--no-hosts",
        "--dns=none",
        f"--cpus={max(1, min(spec.cores, facts.cores))}",
        f"--memory={int(spec.memory_gb * 1024)}m",
        "--pids-limit=0",
        "--shm-size=256m",
        *(f"--ulimit={name}={value}:{value}" for name, value in limits.items()),
        f"--pidfile={boot.pid_file}",
        "--log-driver=k8s-file",
        f"--log-opt=path={boot.console}",
        "--log-opt=max-size=1mb",
        f"--volume={boot.boot_folder}:{BOOT_FOLDER}:ro,exec",
        *(f"--volume={source}:{target}:ro" for source, target in machine_mounts()),
        *(f"--volume={source}:{target}:rw,exec,dev,suid,rprivate" for source, target in boot.mounts),
        "--rootfs",
        str(boot.root),
        f"{BOOT_FOLDER}/init",
    ]


def start(boot: Boot, facts: Facts, devices: Sequence[Device]) -> int:
    """Start a host and return the process id of its init."""
    boot.boot_folder.mkdir(exist_ok=True)
    init = boot.boot_folder / "init"
    init.write_text(ENTRYPOINT)
    init.chmod(0o755)
    (boot.boot_folder / "containers.conf").write_text(engine_configuration(facts))
    (boot.boot_folder / "devices").write_text("".join(device.line + "\n" for device in devices))
    boot.pid_file.unlink(missing_ok=True)
    argv = run_arguments(boot, facts)
    try:
        run(argv)
    except CommandError as first:
        log.info("server %s: the first start failed, retrying: %s", boot.spec.name, first)
        remove(boot.container)
        try:
            run(argv)
        except CommandError as error:
            remove(boot.container)
            raise MachineError(f"server {boot.spec.name}: start failed: {error}") from error
    return int(boot.pid_file.read_text())


def exit_code(container: str) -> int | None:
    """Exit code of the container; None when podman has no record of it."""
    try:
        return int(run(["podman", "wait", container], timeout=60).strip())
    except (CommandError, ValueError):
        return None


def remove(container: str) -> None:
    """Remove the container, running or not."""
    _run_with_retries(["podman", "rm", "--force", "--time=0", "--ignore", container])


def remove_all(lab: str) -> None:
    """Remove all containers of the lab. They are killed together first, since podman removes one after the other."""
    found = records(lab).values()
    inits = [init for item in found if item.running and (init := Init.of(item.server_id, item.pid))]
    for init in inits:
        init.send(signal.SIGKILL)
    for init in inits:
        init.wait(10)
        init.close()
    if found:
        _run_with_retries(["podman", "rm", "--force", "--time=0", "--ignore", *(record.container for record in found)])


def _run_with_retries(argv: list[str], tries: int = 20) -> str:
    """Run podman, with retries: it fails while another podman cleans up after a container, or when a container is
    removed while it lists them."""
    for left in reversed(range(tries)):
        try:
            return run(argv)
        except CommandError:
            if not left:
                raise
            time.sleep(0.3)
    return ""


@dataclass(frozen=True, slots=True)
class Record:
    """State of a host's container in podman."""

    server_id: int
    container: str
    running: bool
    pid: int
    exit_code: int


def records(lab: str) -> dict[int, Record]:
    """All containers of the lab, by server id."""
    answer = _run_with_retries(["podman", "ps", "--all", f"--filter=label={LAB_LABEL}={lab}", "--format=json"])
    rows: list[dict[str, Any]] = json.loads(answer or "[]")
    found = {}
    for row in rows:
        server_id = int(row["Labels"][SERVER_LABEL])
        found[server_id] = Record(
            server_id, row["Names"][0], row["State"] == "running", int(row["Pid"]), int(row["ExitCode"])
        )
    return found


def enter(pid: int, script: str) -> str:
    """Run a shell script as root in the mount and PID namespace of the host."""
    return run(["nsenter", f"--target={pid}", "--mount", "--pid", "--", "/bin/sh", "-s"], stdin=script)


def namespace_of(pid: int) -> tuple[int, int]:
    """Identity of a process's network namespace."""
    status = Path(f"/proc/{pid}/ns/net").stat()
    return status.st_dev, status.st_ino


def holds_namespace(pid: int, name: str) -> bool:
    """Whether the process is in the named namespace."""
    path = namespaces.path(name)
    if not path.exists():
        return False
    status = path.stat()
    return (status.st_dev, status.st_ino) == namespace_of(pid)


def read_console(path: Path, limit: int = 64 * 1024) -> str:
    """The tail of a host's console output, without podman's time stamps and stream names."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * limit))
        raw = file.read().decode(errors="replace")
    lines = []
    for row in raw.splitlines():
        parts = row.split(" ", 3)
        text = parts[3] if len(parts) == 4 and parts[1] in ("stdout", "stderr") else row
        if text.strip():
            lines.append(text.rstrip())
    return "\n".join(lines)[-limit:]
