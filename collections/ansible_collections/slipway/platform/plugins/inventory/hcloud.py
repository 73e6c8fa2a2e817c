"""Where the environment's machines are: the addresses that Hetzner Cloud gave them (docs/adr/0004)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hcloud
short_description: Addresses of an environment's servers in Hetzner Cloud
description:
  - Adds the servers that carry the environment's owner label, with their public address as C(ansible_host), the
    name that reverse DNS has for it as C(hcloud_dns_ptr), all public addresses, IPv4 first, as C(hcloud_addresses), and
    their volumes as C(hcloud_volumes), by the name behind the server's, each with C(id), C(size_gb) and C(path).
  - Beside the static C(hosts.yml) that says which machines are wanted. A server that it does not name is left out, so
    that no play touches it.
  - Without a token it adds nothing. When the API refuses it says so in one sentence and adds nothing, so that reading
    the inventory never needs the cloud; C(playbooks/check.yml) is where a run stops for it.
  - When the API cannot be reached it says so and adds what was so when it last could be, so that the hosts can be
    operated meanwhile.
author: [Slipway]
options:
  plugin:
    description: Name of this plugin.
    type: str
    required: true
    choices: [slipway.platform.hcloud]
  environment:
    description: Name of the environment.
    type: str
    required: true
  beside:
    description:
      - Further owner labels whose servers may be named in C(hosts.yml), of machines that do not come and go with the
        environment.
    type: list
    elements: str
    default: []
  last_known_path:
    description:
      - File that keeps what the API said last; templates are rendered, a relative one begins at the inventory.
    type: str
    default: .state/hcloud.json
  api_token:
    description: Token of the project; templates are rendered.
    type: str
    default: ""
    env:
      - name: HCLOUD_TOKEN
  api_endpoint:
    description: Address of the API, ending in C(/v1); templates are rendered.
    type: str
    default: https://api.hetzner.cloud/v1
    env:
      - name: HCLOUD_ENDPOINT
"""

EXAMPLES = r"""
plugin: slipway.platform.hcloud
environment: prod
"""

import contextlib
import json
import os
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.slipway.platform.plugins.module_utils.cloud import Cloud, CloudError
from ansible_collections.slipway.platform.plugins.module_utils.plan import ENVIRONMENT_LABEL
from ansible_collections.slipway.platform.plugins.plugin_utils.inventory import static_hosts

GROUP = "hcloud"
REFUSALS = frozenset({"unauthorized", "forbidden"})
"""What the API says of a token; it was asked, so nothing older is believed."""


def addresses(server: dict[str, Any]) -> list[str]:
    """Where the server is reached from outside: its IPv4 address, and the first of its IPv6 network."""
    public = server["public_net"]
    found = [str(public["ipv4"]["ip"])] if public.get("ipv4") else []
    return found + ([str(ip_network(public["ipv6"]["ip"])[1])] if public.get("ipv6") else [])


def address(server: dict[str, Any]) -> str | None:
    return next(iter(addresses(server)), None)


def reverse_name(server: dict[str, Any]) -> str:
    """What reverse DNS answers for that address; empty where it is no name of its own."""
    public, where = server["public_net"], address(server)
    if public.get("ipv4"):
        return str(public["ipv4"].get("dns_ptr") or "")
    names = (public.get("ipv6") or {}).get("dns_ptr") or []
    return next((str(entry["dns_ptr"]) for entry in names if ip_address(entry["ip"]) == ip_address(where or "::")), "")


def volumes_of(server: dict[str, Any], volumes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The server's volumes, each by its name without the server's."""
    return {
        volume["name"].removeprefix(f"{server['name']}-"): {
            "id": volume["id"],
            "size_gb": volume["size"],
            "path": volume["linux_device"],
        }
        for volume in sorted(volumes, key=lambda volume: volume["name"])
        if volume["server"] == server["id"]
    }


def variables(server: dict[str, Any], volumes: list[dict[str, Any]]) -> dict[str, Any]:
    found = {
        "hcloud_id": server["id"],
        "hcloud_status": server["status"],
        "hcloud_server_type": server["server_type"]["name"],
        "hcloud_location": server["location"]["name"],
        "hcloud_addresses": addresses(server),
        "hcloud_dns_ptr": reverse_name(server),
        "hcloud_volumes": volumes_of(server, volumes),
    }
    return found | ({"ansible_host": where} if (where := address(server)) else {})


def keep(path: Path, known: dict[str, dict[str, Any]]) -> None:
    """For a time when the API cannot be asked; a folder that cannot be written costs only that."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps({"asked": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", "servers": known}))
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def kept(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """When the API was last asked and what it said then; nothing when it never was from here."""
    try:
        found = json.loads(path.read_text())
        return str(found["asked"]), dict(found["servers"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}


class InventoryModule(BaseInventoryPlugin):
    NAME = "slipway.platform.hcloud"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith("hcloud.yml")

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        inventory.add_group(GROUP)
        known = self._ask(Path(path))
        wanted = static_hosts(Path(path).parent)
        for name, found in known.items():
            if wanted and name not in wanted:
                self.display.v(f"{name} is not in hosts.yml")
                continue
            inventory.add_host(name, group=GROUP)
            for variable, value in found.items():
                inventory.set_variable(name, variable, value)

    def _ask(self, path: Path) -> dict[str, dict[str, Any]]:
        """Name → variables of each server, as the API has them now or, when it cannot be reached, last had them."""
        try:
            token, endpoint, last_known = (
                str(self.templar.template(self.get_option(option)) or "")
                for option in ("api_token", "api_endpoint", "last_known_path")
            )
        except AnsibleError as error:
            self.display.warning(f"No addresses of servers are known: {error}")
            return {}
        if not token:
            self.display.v(f"{path}: no token, so no addresses")
            return {}
        place = path.parent / last_known
        try:
            owners = [self.get_option("environment"), *self.get_option("beside")]
            cloud, owner = Cloud(endpoint, token), f"{ENVIRONMENT_LABEL} in ({','.join(owners)})"
            servers = cloud.list("servers", [("label_selector", owner)])
            volumes = cloud.list("volumes", [("label_selector", owner)])
        except CloudError as error:
            asked, known = ("", {}) if error.code in REFUSALS else kept(place)
            self.display.warning(
                f"Addresses of servers are those of {asked}: {error}"
                if asked
                else f"No addresses of servers are known: {error}"
            )
            return known
        known = {server["name"]: variables(server, volumes) for server in servers}
        keep(place, known)
        return known
