"""Runs one role's scenario on persistent hosts: `make role R=ceph`; `make role-down` removes them.

The first call creates and prepares the hosts. Every call converges them, verifies idempotence and check mode, and runs
the role's tests.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from tests import molecule
from tests.support.labs import REPOSITORY, ROLE


def main(arguments: Sequence[str]) -> int:
    if list(arguments) == ["--down"]:
        ROLE.down()
        return 0
    if len(arguments) != 1 or arguments[0] not in molecule.MACHINES:
        print(f"R={' '.join(arguments)}: unknown role. Name one of: {', '.join(molecule.MACHINES)}.", file=sys.stderr)
        return 2
    lab = ROLE.environment()
    up = subprocess.run(["lab", "up", "--only-cloud"], cwd=REPOSITORY, env=lab, check=False)
    if up.returncode:
        return up.returncode
    # Molecule's state is stored per role: which hosts exist, and whether they are prepared.
    done = subprocess.run(
        molecule.command(arguments, "--destroy=never"),
        cwd=REPOSITORY,
        env=molecule.environment(arguments, lab, state=arguments[0]),
        check=False,
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main([argument for argument in sys.argv[1:] if argument]))
