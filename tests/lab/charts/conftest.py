"""The API server of the tests of lab.rke2sim, for the simulations of charts."""

from tests.lab.rke2sim.conftest import cluster, kubernetes, programs

__all__ = ["cluster", "kubernetes", "programs"]
