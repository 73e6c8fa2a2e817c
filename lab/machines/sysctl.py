"""Machine-wide kernel settings. Those that labs need are set while any lab exists; with the last one, these and all
that hosts are known to change are restored.

The original values are stored under /run: a restart of the machine resets both the kernel's values and this file.
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
    # This machine is the hosts' router to the internet.
    "net/ipv4/ip_forward": 1,
    # About 25 hosts use 128 instances; beyond, init exits with "Too many open files".
    "fs/inotify/max_user_instances": 8192,
    "fs/inotify/max_user_watches": 1048576,
    # One neighbour table for all namespaces.
    "net/ipv4/neigh/default/gc_thresh3": 8192,
    "kernel/keys/maxkeys": 20000,
}

WRITTEN_BY_HOSTS = (
    # Set in the shared kernel by a host's sysctl.d: distribution defaults, hardening roles, RKE2, cephadm.
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
    """One lab's use of the machine's kernel settings."""

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
        """Register this lab and raise the values it needs; higher values are kept."""
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
        """Unregister this lab. Without another one that is `alive`, restore the original values."""
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
                    restored.append(f"restored {key.replace('/', '.')} to {value}")
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
