"""Warnings: told like problems, and no reason to refuse a policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tierd.config import check as command
from tierd.config.check import check
from tierd.config.report import Mark, Report
from tierd.core.policy import Policy


def test_warnings_are_told_in_the_order_of_the_text_and_are_no_problems() -> None:
    report = Report()
    report.warn(Mark(9, 2), ("engine", "round"), "odd")
    report.warn(Mark(3, 1), (), "odder")
    report.warn(Mark(9, 2), ("engine", "round"), "odd")
    assert not report
    assert report.lines("a.yaml") == ()
    assert report.warnings("a\n.yaml") == (
        "a\\n.yaml:3:1: top level: warning: odder",
        "a\\n.yaml:9:2: engine.round: warning: odd",
    )


def test_more_warnings_than_anybody_reads_are_cut() -> None:
    report = Report()
    for line in range(150, 0, -1):
        report.warn(Mark(line, 1), (), "odd")
    told = report.warnings("a.yaml")
    assert len(told) == 101
    assert told[99].startswith("a.yaml:100:1: ")
    assert told[100] == "a.yaml: warning: more than 100 warnings; the rest is not shown"


@pytest.mark.parametrize(
    ("warnings", "ending"), [((), ""), (("one",), ", 1 warning"), (("a", "b"), ", 2 warnings")]
)
def test_warnings_do_not_make_a_check_fail(
    warnings: tuple[str, ...],
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "load_chosen", lambda _: Policy(origin="a.yaml", warnings=warnings))
    assert check(Path("a.yaml")) == 0
    out, err = capsys.readouterr()
    assert out == f"a.yaml: OK{ending}\n"
    assert err.splitlines() == list(warnings)


def test_what_is_odd_makes_no_other_policy() -> None:
    assert Policy(warnings=("odd",)) == Policy()
