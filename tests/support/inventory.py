"""The inventory of testinfra: names, addresses and settings of the hosts under test.

molecule/default/inventory.yml writes it rendered, for the hosts of the scenarios and for the whole site, so that the
same tests run on both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import testinfra
import yaml
from testinfra.host import Host

SCENARIOS = "test"
"""The environment of the scenarios' hosts (molecule/inventory); any other is a whole site."""


@dataclass(frozen=True)
class Inventory:
    path: Path

    @cached_property
    def document(self) -> dict[str, Any]:
        return dict(yaml.safe_load(self.path.read_text())["all"])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Variables of all hosts: platform_domain, rke2_version, …"""
        return dict(self.document["vars"])

    @property
    def is_site(self) -> bool:
        return bool(self.settings["platform_environment"] != SCENARIOS)

    def group(self, name: str) -> list[str]:
        return list(self.document["children"].get(name, {}).get("hosts", {}))

    def address(self, name: str) -> str:
        """Address in the private network."""
        return str(self.document["hosts"][name]["provision_private_ip"])

    def host(self, name: str) -> Host:
        return testinfra.get_host(f"ansible://{name}?ansible_inventory={self.path}")

    @cached_property
    def secrets(self) -> dict[str, Any]:
        return dict(yaml.safe_load(Path(self.settings["secrets_path"]).read_text()))
