"""Inventory plugin: addresses and volumes of an environment's servers in Hetzner Cloud (docs/adr/0004)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hcloud
short_description: Addresses of an environment's servers in Hetzner Cloud
description:
  - Adds the servers that carry the environment's owner label, with their public address as C(ansible_host), the
    reverse DNS name of that address as C(hcloud_dns_ptr), all public addresses, IPv4 first, as C(hcloud_addresses), and
    their volumes as C(hcloud_volumes), by the name after the server's, each with C(id), C(size_gb) and C(path).
  - Complements the static C(hosts.yml), which declares the machines. Servers that it does not declare are skipped, so
    that no play changes them.
  - Adds the groups of all services, empty where C(hosts.yml) has none, so that a platform may lack a service.
  - Adds no server without a token. If the API rejects the token, it prints one warning and adds none, so that reading
    the inventory never requires the cloud; C(playbooks/check.yml) fails the run in that case.
  - If the environment names a proxy (C(http_proxy), C(https_proxy)), adds a local C(api_endpoint) and the servers'
    addresses to C(no_proxy), for this run and its modules on the controller.
  - If the API is unreachable, it prints a warning and adds the cached values of the last successful read, so that the
    hosts can still be operated.
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
      - Further owner labels whose servers may be declared in C(hosts.yml), for machines with a lifecycle of their own.
    type: list
    elements: str
    default: []
  last_known_path:
    description:
      - File that caches the last response of the API; templates are rendered, a relative path starts at the inventory.
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
from urllib.parse import urlsplit

from ansible.errors import AnsibleError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.slipway.platform.plugins.module_utils import proxies
from ansible_collections.slipway.platform.plugins.module_utils.cloud import Cloud, CloudError
from ansible_collections.slipway.platform.plugins.module_utils.plan import ENVIRONMENT_LABEL
from ansible_collections.slipway.platform.plugins.plugin_utils.inventory import static_inventory

GROUP = "hcloud"
SERVICES = ("load_balancer", "rke2_server", "rke2_agent", "ceph", "object_storage", "postgresql", "gitlab_runner")
"""Groups that plays name."""
REFUSALS = frozenset({"unauthorized", "forbidden"})
"""Error codes for a rejected token; the cache is not used then."""


def addresses(server: dict[str, Any]) -> list[str]:
    """Public addresses of the server: its IPv4 address, and the first address of its IPv6 network."""
    public = server["public_net"]
    found = [str(public["ipv4"]["ip"])] if public.get("ipv4") else []
    return found + ([str(ip_network(public["ipv6"]["ip"])[1])] if public.get("ipv6") else [])


def address(server: dict[str, Any]) -> str | None:
    return next(iter(addresses(server)), None)


def reverse_name(server: dict[str, Any]) -> str:
    """Reverse DNS name of that address; empty if none is set."""
    public, own_address = server["public_net"], address(server)
    if public.get("ipv4"):
        return str(public["ipv4"].get("dns_ptr") or "")
    names = (public.get("ipv6") or {}).get("dns_ptr") or []
    return next(
        (str(entry["dns_ptr"]) for entry in names if ip_address(entry["ip"]) == ip_address(own_address or "::")), ""
    )


def volumes_of(server: dict[str, Any], volumes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Volumes of the server, by name without the server's name as prefix."""
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
    return found | ({"ansible_host": own_address} if (own_address := address(server)) else {})


def write_cache(path: Path, known: dict[str, dict[str, Any]]) -> None:
    """Cache the hosts' variables for a time when the API is unreachable. Failing to write it is no error."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps({"asked": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", "servers": known}))
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def read_cache(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Time of the last successful read and the hosts' variables; empty without a cache."""
    try:
        found = json.loads(path.read_text())
        return str(found["asked"]), dict(found["servers"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}


def encrypted_files(folder: Path) -> list[Path]:
    """Files of variables that need a vault password."""
    files = [path for path in sorted((folder / "group_vars").rglob("*")) if path.is_file()]
    return [path for path in files if path.read_bytes().startswith(b"$ANSIBLE_VAULT;")]


class InventoryModule(BaseInventoryPlugin):
    NAME = "slipway.platform.hcloud"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith("hcloud.yml")

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        declared = static_inventory(Path(path).parent, loader)
        # Not those of hosts.yml: their names have the line that `check` reports.
        for group in {GROUP, *SERVICES} - set(declared.groups):
            inventory.add_group(group)
        # Ansible's own error, which follows, names neither the file nor a remedy.
        if not loader._vault.secrets and (encrypted := encrypted_files(Path(path).parent)):
            self.display.warning(
                f"{encrypted[0]}: it is encrypted, and there is no vault password. Set ANSIBLE_VAULT_PASSWORD_FILE to "
                "a file that holds it, or add --vault-password-file."
            )
        known = self._read_servers(Path(path))
        # Hosts are reached without a proxy, by SSH and by the API of Kubernetes.
        proxies.bypass(os.environ, [own for found in known.values() for own in found.get("hcloud_addresses", ())])
        for name, found in known.items():
            if declared.hosts and name not in declared.hosts:
                self.display.v(f"{name} is not in hosts.yml")
                continue
            inventory.add_host(name, group=GROUP)
            for variable, value in found.items():
                inventory.set_variable(name, variable, value)

    def _read_servers(self, path: Path) -> dict[str, dict[str, Any]]:
        """Name → variables of each server, from the API or, if it is unreachable, from the cache."""
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
        host = urlsplit(endpoint).hostname or ""
        proxies.bypass(os.environ, [host] if proxies.is_local(host) else [])
        cache_path = path.parent / last_known
        try:
            owners = [self.get_option("environment"), *self.get_option("beside")]
            cloud, owner = Cloud(endpoint, token), f"{ENVIRONMENT_LABEL} in ({','.join(owners)})"
            servers = cloud.list("servers", [("label_selector", owner)])
            volumes = cloud.list("volumes", [("label_selector", owner)])
        except CloudError as error:
            read_at, known = ("", {}) if error.code in REFUSALS else read_cache(cache_path)
            self.display.warning(
                f"Addresses of servers are those of {read_at}: {error}"
                if read_at
                else f"No addresses of servers are known: {error}"
            )
            return known
        known = {server["name"]: variables(server, volumes) for server in servers}
        write_cache(cache_path, known)
        return known
