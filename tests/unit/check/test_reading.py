"""An environment is read as Ansible reads it: its files, precedence, vault, and the command line."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.template import trust_as_template

from tests.unit.check.conftest import CEPH, HOSTS, PLATFORM, REPOSITORY, VAULT, Inventory


def messages(inventory: Inventory) -> list[str]:
    return [str(fault) for fault in inventory.faults()]


def test_files_with_another_extension_count(sound: Inventory) -> None:
    (sound.folder / CEPH).rename(sound.folder / "group_vars/ceph.yaml")
    (sound.folder / VAULT).rename(sound.folder / "group_vars/all/vault.yaml")
    assert messages(sound) == []


def test_secrets_of_the_command_line_count(sound: Inventory) -> None:
    secrets = yaml.safe_load((sound.folder / VAULT).read_text())
    (sound.folder / VAULT).unlink()
    assert len(secrets) > 5
    assert sound.faults(extra_variables=secrets) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("platform_domain", "example_com", 'platform_domain: "example_com" is no DNS name, set in --extra-vars.'),
        ("check_servers_limit", "abc", 'check_servers_limit: "abc" is no whole number, set in --extra-vars.'),
        ("check_servers_limit", 0, "check_servers_limit: 0 is out of range, set in --extra-vars. Choose 1 to 10000."),
        ("op_check_api_enabled", "maybe", 'op_check_api_enabled: "maybe" is neither true nor false'),
        ("op_chek_api_enabled", True, "op_chek_api_enabled: is read by nothing"),
        ("op_postgresql_begin_anew", True, "op_postgresql_begin_anew: is no longer known"),
        ("rke2_servers", ["a"], "rke2_servers: would replace on every host what playbooks/rke2.yml sets"),
        ("rke2_token", trust_as_template("{{ nothing }}"), "rke2_token: cannot be resolved, set in --extra-vars."),
    ],
)
def test_the_command_line_is_validated_as_files_are(sound: Inventory, name: str, value: object, message: str) -> None:
    (found,) = [str(fault) for fault in sound.faults(extra_variables={name: value})]
    assert message in found


def test_an_unresolvable_value_hides_no_other_fault(sound: Inventory) -> None:
    sound.set("platform_network_cidr", '"{{ nothing_defines_this }}"')
    sound.set("rke2_etcd_snapshot_schedule", "hourly")
    sound.set("ceph_fsid", "prod")
    found = "\n".join(messages(sound))
    assert "platform_network_cidr: cannot be resolved ('nothing_defines_this' is undefined)" in found
    assert 'rke2_etcd_snapshot_schedule: "hourly" is no cron expression' in found
    assert 'ceph_fsid: "prod" is no UUID' in found


def test_only_what_runs_is_required(sound: Inventory) -> None:
    """Without hosts of the database and of an object storage, their values are not needed."""
    sound.edit(HOSTS, r"^    postgresql:.*\n(?: {6,}.*\n?)+", "    postgresql: { hosts: {} }\n")
    sound.add(PLATFORM, "s3_snapshot_enabled: false")
    for name in ("region", "writers", "readers"):
        sound.remove(f"platform_object_storage_{name}")
    text = (sound.folder / VAULT).read_text().splitlines(keepends=True)
    kept = [line for line in text if not line.startswith(("object_storage", "postgresql_", "  app"))]
    (sound.folder / VAULT).write_text("".join(kept))
    for name in ("endpoint", "bucket", "ca_certificate", "lock_mode", "lock_days", "expire_days"):
        sound.remove(f"platform_object_storage_{name}", "group_vars/all/defaults.yml")
    assert messages(sound) == []


def test_every_value_of_a_name_in_another_environment_counts(sound: Inventory) -> None:
    fsid = "fe94d781-67a9-44c0-bef8-f96df8775826"
    sound.beside("stage", PLATFORM, "ceph_fsid: 11111111-67a9-44c0-bef8-f96df8775826")
    sound.beside("lab", "group_vars/ceph/x.yaml", f"ceph_fsid: {fsid}")
    # Its secrets have another password.
    (sound.folder.parent / "lab/group_vars/vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3131\n")
    (sound.folder.parent / "lab/group_vars/object_storage.yml").write_text(
        "ceph_fsid: 22222222-67a9-44c0-bef8-f96df8775826\n"
    )
    (found,) = messages(sound)
    assert f"ceph_fsid: {fsid} of group ceph is that of lab too" in found


def test_a_value_that_ansible_overrides_is_a_fault(sound: Inventory) -> None:
    """group_vars/all/ takes precedence over a group in the hosts' file."""
    sound.tune("rke2_server", "rke2_network_mtu", "1400")
    sound.set("rke2_network_mtu", "1450")
    (found,) = messages(sound)
    assert "rke2_network_mtu: the value for rke2_server has no effect" in found


def test_values_of_a_further_inventory_are_validated(sound: Inventory, tmp_path: Path) -> None:
    (tmp_path / "more/group_vars").mkdir(parents=True)
    (tmp_path / "more/hosts.yml").write_text("all: { vars: { base_journal_max_mb: 1 } }\n")
    (tmp_path / "more/group_vars/all.yml").write_text("base_journal_max_days: 0\n")
    found = "\n".join(str(fault) for fault in sound.faults(before=[tmp_path / "more/hosts.yml"]))
    assert re.search(r"base_journal_max_mb: 1 is out of range, set in \S+/more/hosts.yml:1", found)
    assert re.search(r"base_journal_max_days: 0 is out of range, set in \S+/more/group_vars/all.yml:1", found)


def test_a_further_inventory_may_link_to_files_of_the_first(sound: Inventory, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/hosts.yml").write_text("all: {}\n")
    (tmp_path / "more/group_vars").symlink_to(sound.folder / "group_vars")
    assert messages(sound) == []
    assert [str(fault) for fault in sound.faults(before=[tmp_path / "more/hosts.yml"])] == []


def test_a_file_that_ansible_does_not_read_is_a_fault(sound: Inventory) -> None:
    sound.add("group_vars/rke2_server/main.yml", "rke2_network_mtu: 1400")
    sound.add("group_vars/rke2_server.yml", "rke2_network_mtu: 1400")
    (found,) = messages(sound)
    assert (
        "rke2_server.yml: Ansible does not read this file, set in inventories/prod/group_vars/rke2_server.yml" in found
    )


def check(inventory: Path, *arguments: str) -> str:
    run = subprocess.run(
        [REPOSITORY / ".venv/bin/ansible-playbook", "playbooks/check.yml", "-i", inventory, *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2
    return run.stdout


def test_a_file_in_place_of_the_folder_is_one_fault(sound: Inventory) -> None:
    output = check(sound.folder / "hosts.yml")
    assert f"hosts.yml: is no folder, but an environment's inventory is one. Run it with -i {sound.folder}." in output
    assert "faults in" not in output


def test_options_of_check_itself_are_listed_with_the_others(sound: Inventory) -> None:
    sound.set("check_servers_limit", "abc")
    sound.set("platform_domain", "example_com")
    output = check(sound.folder, "-e", "op_check_api_enabled={{ nothing }}")
    for message in (
        'check_servers_limit: "abc" is',
        'platform_domain: "example_com" is',
        "op_check_api_enabled: cannot be",
    ):
        assert message in output
