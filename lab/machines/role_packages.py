"""The Debian packages that the platform's roles install, read from the roles themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lab.machines.base import MachineError

ROLES = Path(__file__).resolve().parents[2] / "roles"
LISTS = {
    "base": ("__base_own_packages",),
    "ceph": ("__ceph_packages",),
    "gitlab_runner": ("__gitlab_runner_own_packages",),
    "load_balancer": ("__load_balancer_own_packages", "__load_balancer_acme_packages"),
    "postgresql": ("__postgresql_packages",),
    "postgresql_backup": ("__postgresql_backup_packages",),
    "rke2": ("__rke2_packages",),
    "s3_snapshot": ("__s3_snapshot_packages",),
}
"""Role → the lists in its vars/main.yml, or in the files of vars/main/."""
POSTGRESQL_VERSION = "{{ postgresql_version }}"


def read(release: str, roles: Path = ROLES) -> tuple[str, ...]:
    """All packages for a Debian release (`13`), with the PostgreSQL version of this release."""
    packages: set[str] = set()
    for role, names in LISTS.items():
        path = roles / role / "vars/main"
        files = sorted(path.glob("*.yml")) or [path.with_suffix(".yml")]
        variables: dict[str, Any] = {}
        for file in files:
            variables |= yaml.safe_load(file.read_text(encoding="utf-8"))
        for name in names:
            packages.update(_packages(path, name, variables, release))
    return tuple(sorted(packages))


def _packages(path: Path, name: str, variables: dict[str, Any], release: str) -> list[str]:
    packages = variables.get(name)
    if not isinstance(packages, list):
        raise MachineError(f"{path} has no list {name}. Correct LISTS in lab/machines/role_packages.py.")
    version = variables.get("__postgresql_distro_versions", {}).get(release, "")
    resolved = [str(package).replace(POSTGRESQL_VERSION, version) for package in packages]
    if unresolved := [package for package in resolved if "{{" in package]:
        raise MachineError(f"{path}: {', '.join(unresolved)} in {name} cannot be resolved. Extend {__name__}.")
    return resolved
