"""The budgets of `make test`, with and without the build of Kubernetes."""

from __future__ import annotations

from pathlib import Path

from lab import mirror
from lab.kubernetes import build
from tests.run import BUILD_SECONDS, STAGES, build_seconds, with_build


def test_a_build_that_is_not_in_the_cache_adds_to_the_budget(tmp_path: Path) -> None:
    assert build_seconds(tmp_path) == BUILD_SECONDS
    (tmp_path / "kubernetes" / build.content_hash(mirror.VERSIONS)).mkdir(parents=True)
    assert build_seconds(tmp_path) == 0


def test_the_layers_beside_the_build_have_more_time() -> None:
    before = [layer.budget_seconds for plan in STAGES[0].plans for layer in plan.layers]
    changed = with_build(STAGES[0], 600)
    after = [layer.budget_seconds for plan in changed.plans for layer in plan.layers]
    assert after == [seconds + 600 for seconds in before]
