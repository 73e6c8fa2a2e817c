"""Growth of the time of a run without changes with the number of hosts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from lab.bench.goals import Figure

FEW, MANY = 3, 30
GROUPS = ("load_balancer", "rke2_server", "ceph", "object_storage", "postgresql")


def hosts(count: int) -> dict[str, object]:
    """An inventory of agents only, with addresses outside those of the lab's hosts."""
    names = {
        f"lab-many-{number}": {"provision_private_ip": f"10.90.1.{100 + number}"} for number in range(1, count + 1)
    }
    # A placement group of type spread holds ten servers at most.
    agents = {"hosts": names, "vars": {"provision_placement_group": ""}}
    return {"all": {"children": {group: {"hosts": {}} for group in GROUPS} | {"rke2_agent": agents}}}


def per_host(inventory: Path, play: Callable[[str, Path], float]) -> Iterator[Figure]:
    """`play` runs a playbook with an inventory and returns the seconds it took."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        many = Path(folder) / "lab"
        shutil.copytree(inventory, many)
        seconds = {}
        for count in (FEW, MANY):
            (many / "hosts.yml").write_text(yaml.safe_dump(hosts(count)), encoding="utf-8")
            play("playbooks/provision.yml", many)
            play("playbooks/base.yml", many)
            seconds[count] = play("playbooks/base.yml", many) / count
    note = f"{seconds[FEW]:.2f} s for each of {FEW}, {seconds[MANY]:.2f} s for each of {MANY}"
    yield Figure(
        f"base.yml without changes: time per host with {MANY // FEW} times the hosts",
        seconds[MANY] / seconds[FEW],
        "times",
        2,
        note,
    )
