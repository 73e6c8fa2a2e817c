"""Which machines a choice of scenarios needs, and how Molecule is called."""

from __future__ import annotations

import pytest

from tests import molecule, role
from tests.molecule import MACHINES, command, environment, limit
from tests.support.labs import REPOSITORY


def test_every_scenario_is_known() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "molecule").glob("*/converge.yml")}
    assert folders == set(MACHINES)


def test_machines_are_those_that_any_of_the_scenarios_needs() -> None:
    assert limit(["check", "load_balancer_acme", "load_balancer"]) == "load_balancer,localhost"
    assert limit(["ceph", "base"]) == "ceph,load_balancer,postgresql,rke2_agent,rke2_server,localhost"
    assert limit(["provision"]) == "localhost"


def test_all_scenarios_run_unless_some_are_named() -> None:
    assert command(["ceph"])[3:] == ["--scenario-name", "ceph"]
    assert command([])[4::2] == list(MACHINES)
    with pytest.raises(ValueError, match=r"cephh: unknown scenario[.] Name some of: base, ceph"):
        command(["ceph", "cephh"])


def test_what_molecule_remembers_is_in_the_lab_and_times_are_kept_by_scenario() -> None:
    given = {"SLIPWAY_LAB": "test2", "SLIPWAY_TEST_JUNIT": "/logs", "PYTEST_ADDOPTS": "-x"}
    made = environment(["check"], given)
    assert made["MOLECULE_EPHEMERAL_DIRECTORY"] == "/var/lib/slipway/test2/molecule/run"
    assert made["PYTEST_ADDOPTS"] == "-x --junitxml=/logs/molecule-$MOLECULE_SCENARIO_NAME.xml"
    assert "PYTEST_ADDOPTS" not in environment(["check"], {})


@pytest.mark.parametrize("main", [molecule.main, role.main])
def test_an_unknown_name_is_an_error(main: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(main) and main(["nothing"]) == 2
    assert "base, ceph" in capsys.readouterr().err
