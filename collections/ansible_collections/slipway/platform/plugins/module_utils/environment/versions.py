"""Supported versions of RKE2 and of the system image."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .model import Environment, Fault, Origin, listed, show

RKE2 = re.compile(r"v(\d+)\.(\d+)\.(\d+)\+rke2r(\d+)")
RKE2_MINORS = ("1.35", "1.36")
"""Supported upstream and by Rancher 2.15, unless rke2_supported_minors is set."""
IMAGES = ("debian-13", "debian-12")


def faults(environment: Environment) -> Iterator[Fault]:
    setting = environment.settings.get("rke2_version")
    version = environment.value("rke2_version")
    if setting is None or setting.error or not isinstance(version, str):
        return
    minors = environment.texts("rke2_supported_minors") or RKE2_MINORS
    match = RKE2.fullmatch(version)
    if match is not None and (minor := f"{match[1]}.{match[2]}") not in minors:
        yield Fault(
            setting.origin,
            f"rke2_version: {version}, but {minor} is not supported",
            f"Choose a patch of {listed(minors)}.",
        )


def image_faults(environment: Environment) -> Iterator[Fault]:
    seen: set[tuple[Origin, str]] = set()
    for host in environment.hosts:
        setting = host.settings.get("provision_image")
        if setting is None or not isinstance(setting.value, str) or (setting.origin, setting.value) in seen:
            continue
        seen.add((setting.origin, setting.value))
        if setting.value not in IMAGES:
            yield Fault(
                setting.origin,
                f"provision_image: {show(setting.value)} is not supported",
                f"Choose one of {listed(IMAGES)}.",
            )
