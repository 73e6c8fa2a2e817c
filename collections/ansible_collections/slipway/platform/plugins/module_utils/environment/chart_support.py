"""Which Kubernetes a chart's version supports: the table of all charts of the platform."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .model import Environment, Fault, listed
from .versions import RKE2

SUPPORT = {
    "ceph_csi": {"3.17": ("1.33", "1.36")},
    "cert_manager": {"1.20": ("1.32", "1.35"), "1.21": ("1.33", "1.36")},
    "rancher": {"2.14": ("1.33", "1.35"), "2.15": ("1.34", "1.36"), "2.16": ("1.35", "1.37")},
}
"""Role → minor version of its chart → oldest and newest minor version of Kubernetes."""
MINOR = re.compile(r"v?(\d+\.\d+)\.\d+")


def numbers(minor: str) -> tuple[int, ...]:
    return tuple(int(part) for part in minor.split("."))


def faults(environment: Environment) -> Iterator[Fault]:
    kubernetes = RKE2.fullmatch(environment.text("rke2_version"))
    for role, supported in SUPPORT.items():
        name = f"{role}_version"
        version = environment.text(name)
        match = MINOR.match(version)
        if match is None:
            continue  # not declared, or a fault of its format
        if match[1] not in supported:
            yield environment.fault(
                name, f"{name}: {version} is not supported", f"Choose a version of {listed(supported)}."
            )
        elif kubernetes is not None:
            oldest, newest = supported[match[1]]
            minor = f"{kubernetes[1]}.{kubernetes[2]}"
            if not numbers(oldest) <= numbers(minor) <= numbers(newest):
                yield environment.fault(
                    name,
                    f"{name}: {version} supports Kubernetes {oldest} to {newest}, but rke2_version is {minor}",
                    f"Choose another {name} or a patch of {oldest} to {newest} for rke2_version.",
                )
