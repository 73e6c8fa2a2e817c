"""The report of a test run: times, budgets, processor usage."""

from __future__ import annotations

from pathlib import Path

from tests.support import report
from tests.support.cpu import Sample, Usage, parse, usage
from tests.support.tracks import Layer, Result

STAT = "cpu  100 5 50 800 40 3 2 1 7 7\ncpu0 50 0 0 0 0 0 0 0 0 0\n"


def test_guest_time_is_not_counted_twice() -> None:
    assert parse(STAT, 9.0) == Sample(9.0, busy=161, total=1001)


def test_usage_is_the_busy_share_and_the_mostly_idle_time() -> None:
    samples = [Sample(0, 0, 0), Sample(1, 180, 200), Sample(3, 220, 400), Sample(4, 360, 600)]
    assert usage(samples) == Usage(busy_percent=60.0, idle_seconds=2)
    assert usage([Sample(0, 5, 5), Sample(0, 5, 5)]) == Usage(0.0, 0)


def test_layers_over_budget_or_not_passed_are_marked() -> None:
    lint, site = Layer("lint", "true", 200), Layer("site", "true", 2_000)
    lines = report.layers([Result(lint, 1204.4, "passed"), Result(site, 20, "interrupted")], 1300, 1200)
    assert lines == [
        "layer  seconds  budget",
        "lint     1,204     200  OVER BUDGET by 1,004 s",
        "site        20   2,000  interrupted",
        "total    1,300   1,200  OVER BUDGET by 100 s",
    ]


def test_stages_show_processor_usage() -> None:
    lines = report.stages([("site", 1500.0, Usage(62.5, 300.0))])
    assert lines[1].split() == ["site", "1,500", "62", "300"]


def test_slowest_tests_of_all_reports_are_first(tmp_path: Path) -> None:
    for name, seconds in (("one", 1.5), ("two", 1200.25)):
        (tmp_path / f"{name}.xml").write_text(
            f'<testsuites><testsuite><testcase classname="tests.{name}" name="test_it" time="{seconds}"/>'
            '<testcase classname="tests.fast" name="test_it" time="0.001"/></testsuite></testsuites>'
        )
    assert report.slowest(tmp_path, 2) == [
        "seconds  test",
        "1,200.2  tests.two::test_it",
        "    1.5  tests.one::test_it",
    ]
