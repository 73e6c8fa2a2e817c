"""An operation of which `--limit` leaves out hosts is refused, instead of being done in part or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.playbooks import REPOSITORY, run_playbook

OPERATIONS = REPOSITORY / "playbooks/operations"
GROUPS = {"rke2_server": ["server-1"], "ceph": ["ceph-1", "ceph-2", "ceph-3"], "postgresql": ["db-1", "db-2"]}
CEPH = {"replace_ceph_host": "-eop_replace_ceph_host_name=ceph-3", "replace_ceph_osd": "-eop_replace_ceph_osd_id=1"}


@pytest.mark.parametrize(
    ("operation", "limit", "left_out"),
    [
        ("list_snapshots", "server-1", "localhost"),
        ("list_snapshots", "server-1,localhost", ""),
        ("create_runner", "server-1", "localhost"),
        ("replace_ceph_host", "ceph-1,ceph-2,localhost", "ceph-3"),
        ("replace_ceph_host", "ceph", "localhost"),
        ("replace_ceph_host", "ceph,localhost", ""),
        ("replace_ceph_osd", "ceph-3,localhost", "ceph-1, ceph-2"),
        ("upgrade_postgresql", "db-2", ""),
    ],
)
def test_an_operation_needs_its_hosts_within_the_limit(
    operation: str, limit: str, left_out: str, tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts.yml"
    children = {group: {"hosts": {host: {} for host in hosts}} for group, hosts in GROUPS.items()}
    inventory.write_text(yaml.safe_dump({"all": {"children": children, "vars": {"platform_environment": "trial"}}}))
    options = [CEPH[operation]] if operation in CEPH else []
    code, output = run_playbook(tmp_path, inventory, OPERATIONS / f"{operation}.yml", "--limit", limit, *options)
    assert code != 0, output
    refused = f"--limit leaves out {left_out}, where {operation} works too. Add them, or run without --limit."
    assert (refused in " ".join(output.split())) == bool(left_out), output
