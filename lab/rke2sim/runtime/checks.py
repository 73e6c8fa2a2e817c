"""RKE2's checks of the host before its start."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

import yaml

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
    """The CIS profile requires kernel settings and the etcd user; protect-kernel-defaults only the settings."""
    profile = config.text("profile")
    faults = []
    if profile == "cis" or config.flag("protect-kernel-defaults"):
        for name, wanted in SYSCTLS.items():
            if (actual := sysctl(name)) != wanted:
                faults.append(f"invalid kernel parameter value {name}={actual} - expected {wanted}")
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
    for name in ("audit-policy-file", "pod-security-admission-config-file"):
        if (path := config.text(name)) and not Path(path).is_file():
            raise Fatal(f"{name} {path}: no such file or directory")
    check_audit_policy(config)
    check_registries(Path(config.text("private-registry") or "/etc/rancher/rke2/registries.yaml"))


def check_audit_policy(config: Config) -> None:
    """With the CIS profile the API server needs an audit policy, and does not start with an empty one."""
    default = "/etc/rancher/rke2/audit-policy.yaml" if config.text("profile") == "cis" else ""
    path = Path(config.text("audit-policy-file") or default)
    if config.role != "server" or not path.is_file():
        return
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as fault:
        raise Fatal(f"loading audit policy file: failed to read {path}: {fault}") from fault
    if not isinstance(content, dict) or not content.get("rules"):
        raise Fatal(f"loading audit policy file: loaded illegal policy with 0 rules from file {path}")


def check_registries(path: Path) -> None:
    """The simulation pulls no images, but rejects a file that RKE2 could not read."""
    if not path.exists():
        return
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as fault:
        raise Fatal(f"failed to parse {path}: {fault}") from fault
    known = {"mirrors", "configs", "auths"}
    if not isinstance(content, dict) or set(content) - known:
        raise Fatal(f"{path} has other keys than {', '.join(sorted(known))}")
    for host, mirror in (content.get("mirrors") or {}).items():
        if set(mirror or {}) - {"endpoint", "endpoints", "rewrite", "rewrites"}:
            raise Fatal(f"{path}: the mirror of {host} has other keys than endpoint and rewrite")
