"""The play of Rancher in an environment without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.playbooks import run_playbook

VALUES = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_host": "192.0.2.1",
    "platform_domain": "example.com",
    "platform_ingress_mode": "terminate",
    "platform_ca_certificate": "",
    "platform_chart_mirror": "",
    "platform_chart_mirror_ca_certificate": "",
}


@pytest.mark.parametrize("enabled", [False, True])
def test_the_password_is_required_with_rancher_only(tmp_path: Path, enabled: bool) -> None:
    groups = {"rke2_server": {"hosts": {"server-1": None}}, "load_balancer": {"hosts": {"lb-1": None}}}
    inventory = tmp_path / "hosts.yml"
    values = {**VALUES, "rancher_enabled": enabled}
    inventory.write_text(yaml.safe_dump({"all": {"children": groups, "vars": values}}))
    code, output = run_playbook(tmp_path, inventory, "playbooks/rancher.yml")
    assert (code != 0) == enabled, output
    assert ("rancher_admin_password" in output) == enabled
