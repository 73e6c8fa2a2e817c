"""The machines that selected scenarios require, and the command line of Molecule."""

from __future__ import annotations

import pytest

from tests import molecule, role
from tests.molecule import MACHINES, command, environment, limit
from tests.support.labs import REPOSITORY


def test_every_scenario_is_known() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "molecule").glob("*/converge.yml")}
    assert folders == set(MACHINES)


def test_machines_are_the_union_of_all_scenarios() -> None:
    assert limit(["check", "load_balancer_acme", "load_balancer"]) == "load_balancer,localhost"
    assert limit(["ceph", "base"]) == "ceph,load_balancer,postgresql,rke2_agent,rke2_server,localhost"
    assert limit(["provision"]) == "localhost"


def test_default_is_all_scenarios() -> None:
    assert command(["ceph"])[3:] == ["--scenario-name", "ceph"]
    assert command([])[4::2] == list(MACHINES)
    with pytest.raises(ValueError, match=r"cephh: unknown scenario[.] Name some of: base, ceph"):
        command(["ceph", "cephh"])


def test_state_is_in_the_lab_and_times_are_per_scenario() -> None:
    given = {"SLIPWAY_LAB": "test2", "SLIPWAY_TEST_JUNIT": "/logs", "PYTEST_ADDOPTS": "-x"}
    result = environment(["check"], given)
    assert result["MOLECULE_EPHEMERAL_DIRECTORY"] == "/var/lib/slipway/test2/molecule/run"
    assert result["PYTEST_ADDOPTS"] == "-x --junitxml=/logs/molecule-$MOLECULE_SCENARIO_NAME.xml"
    assert "PYTEST_ADDOPTS" not in environment(["check"], {})


@pytest.mark.parametrize("main", [molecule.main, role.main])
def test_an_unknown_name_is_an_error(main: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(main) and main(["nothing"]) == 2
    assert "base, ceph" in capsys.readouterr().err
