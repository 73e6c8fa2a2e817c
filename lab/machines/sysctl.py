"""Machine-wide kernel settings: those a lab needs are set while any lab is there, and all that hosts are known to
change are put back when the last one goes.

What was found at first is kept under /run: after a restart of the machine the kernel has its own values again, and so
has this file.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = Path("/run/slipway")

NEEDED = {
    # Hosts reach the outside through this machine.
    "net/ipv4/ip_forward": 1,
    # 128 instances are used up by about 25 hosts; init then exits with "Too many open files".
    "fs/inotify/max_user_instances": 8192,
    "fs/inotify/max_user_watches": 1048576,
    # Neighbour entries of all namespaces share one table.
    "net/ipv4/neigh/default/gc_thresh3": 8192,
    "kernel/keys/maxkeys": 20000,
}

WRITTEN_BY_HOSTS = (
    # A host's sysctl.d reaches the one kernel: distribution defaults, hardening roles, RKE2, cephadm.
    "fs/aio-max-nr",
    "fs/file-max",
    "fs/nr_open",
    "fs/protected_fifos",
    "fs/protected_hardlinks",
    "fs/protected_regular",
    "fs/protected_symlinks",
    "fs/suid_dumpable",
    "kernel/core_pattern",
    "kernel/core_uses_pid",
    "kernel/dmesg_restrict",
    "kernel/kptr_restrict",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/perf_event_paranoid",
    "kernel/pid_max",
    "kernel/printk",
    "kernel/randomize_va_space",
    "kernel/sysrq",
    "kernel/threads-max",
    "kernel/yama/ptrace_scope",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "net/core/bpf_jit_harden",
    "vm/dirty_background_ratio",
    "vm/dirty_ratio",
    "vm/max_map_count",
    "vm/min_free_kbytes",
    "vm/mmap_min_addr",
    "vm/overcommit_memory",
    "vm/overcommit_ratio",
    "vm/panic_on_oom",
    "vm/swappiness",
    "vm/vfs_cache_pressure",
)


class Sysctls:
    """The share of one lab in the machine's kernel settings."""

    def __init__(self, lab: str, root: Path = Path("/proc/sys"), folder: Path = FOLDER) -> None:
        self._lab = lab
        self._root = root
        self._folder = folder

    @property
    def _saved(self) -> Path:
        return self._folder / "sysctl.json"

    @property
    def _labs(self) -> Path:
        return self._folder / "labs"

    def acquire(self) -> list[str]:
        """Say that this lab is there, and raise what it needs; values that are high enough stay."""
        changed = []
        with self._locked():
            self._labs.mkdir(parents=True, exist_ok=True)
            (self._labs / self._lab).touch()
            if not self._saved.exists():
                found = {key: value for key in (*NEEDED, *WRITTEN_BY_HOSTS) if (value := self._read(key)) is not None}
                self._saved.write_text(json.dumps(found, indent=1))
            for key, wanted in NEEDED.items():
                value = self._read(key)
                if value is not None and int(value) < wanted and self._write(key, str(wanted)):
                    changed.append(f"set {key.replace('/', '.')} to {wanted}")
        return changed

    def release(self, alive: Callable[[str], bool]) -> list[str]:
        """Say that this lab is gone. With the last one (a lab that is not `alive` does not count) all values return."""
        restored: list[str] = []
        with self._locked():
            (self._labs / self._lab).unlink(missing_ok=True)
            for other in list(self._labs.iterdir()) if self._labs.is_dir() else []:
                if not alive(other.name):
                    other.unlink()
            if (self._labs.is_dir() and any(self._labs.iterdir())) or not self._saved.exists():
                return restored
            for key, value in json.loads(self._saved.read_text()).items():
                if self._read(key) != value and self._write(key, value):
                    restored.append(f"put {key.replace('/', '.')} back to {value}")
            self._saved.unlink()
        return restored

    def _read(self, key: str) -> str | None:
        try:
            return (self._root / key).read_text().strip()
        except OSError:
            return None

    def _write(self, key: str, value: str) -> bool:
        try:
            (self._root / key).write_text(value)
        except OSError as error:
            log.warning("%s stays at %s: %s", key, self._read(key), error)
            return False
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
