"""An operation whose plays --limit would leave out is refused, instead of succeeding with nothing done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.playbooks import REPOSITORY, run_playbook

OPERATIONS = REPOSITORY / "playbooks/operations"
HOSTS = "all: {children: {rke2_server: {hosts: {server-1: {}}}}, vars: {platform_environment: trial}}\n"
REFUSAL = "--limit leaves out localhost, where the operation works too. Add it: --limit 'server-1,localhost'."


@pytest.mark.parametrize("operation", ["list_snapshots", "create_runner"])
@pytest.mark.parametrize("limit", ["server-1", "server-1,localhost"])
def test_an_operation_needs_localhost_within_the_limit(operation: str, limit: str, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(HOSTS)
    code, output = run_playbook(tmp_path, inventory, OPERATIONS / f"{operation}.yml", "--limit", limit)
    assert code == 2, output
    assert (f"{operation}: {REFUSAL}" in " ".join(output.split())) == (limit == "server-1"), output
