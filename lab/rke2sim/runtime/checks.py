"""What RKE2 demands of a host before it starts."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

from .config import Config
from .log import Fatal

SYSCTLS = {
    "vm.panic_on_oom": "0",
    "vm.overcommit_memory": "1",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
}


def sysctl(name: str) -> str:
    return Path("/proc/sys", *name.split(".")).read_text().strip()


def host_checks(config: Config) -> None:
    """The CIS profile wants kernel settings and the etcd user; protect-kernel-defaults wants the settings alone."""
    profile = config.text("profile")
    faults = []
    if profile == "cis" or config.flag("protect-kernel-defaults"):
        for name, wanted in SYSCTLS.items():
            if (seen := sysctl(name)) != wanted:
                faults.append(f"invalid kernel parameter value {name}={seen} - expected {wanted}")
    if profile in ("cis", "etcd") and config.role == "server":
        try:
            pwd.getpwnam("etcd")
        except KeyError:
            faults.append("missing required user: unknown user etcd")
        try:
            grp.getgrnam("etcd")
        except KeyError:
            faults.append("missing required group: unknown group etcd")
    if faults:
        raise Fatal("; ".join(faults))
    if (policy := config.text("audit-policy-file")) and not Path(policy).is_file():
        raise Fatal(f"audit-policy-file {policy}: no such file or directory")
