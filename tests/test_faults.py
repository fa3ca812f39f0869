"""What the fault matrix makes of what it sees, without a guest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.dev import faults
from tests.faults import case, groups, never
from tests.faults.case import Look, Seen, read_look, unhurt
from tests.faults.errnos import REFUSALS
from tests.verify import table
from tests.verify.table import Row, Stage
from tests.vm import host, image

GOOD = Look(
    pid=300,
    restarts=0,
    seconds=100,
    hung=0,
    splats=0,
    kills=0,
    descriptors=40,
    resident=60_000,
    checks=10,
    bad=0,
    alive=2,
    blocks=31,
    stray=0,
)
LATER = replace(GOOD, seconds=130, checks=20)


def test_a_look_is_read_by_names_and_what_is_missing_is_nothing() -> None:
    text = (
        "pid 300\nrestarts 2\nseconds 90\nhung 0\nresident\nchecks 7\nbad 0\nalive 2\nblocks 31\nstray 0\n"
    )
    found = read_look(text)
    assert (found.pid, found.restarts, found.checks, found.resident, found.descriptors) == (300, 2, 7, 0, 0)
    names = {line.split()[1] for line in case._LOOK.splitlines() if line.startswith("echo ")}
    assert names == set(Look.__dataclass_fields__)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hung": 1}, "1 hung tasks"),
        ({"splats": 2}, "2 warnings or bugs in the kernel's log"),
        ({"kills": 1}, "1 processes killed for want of memory"),
        ({"restarts": 1}, "1 restarts, not 0"),
        ({"bad": 3}, "3 bad chunks"),
        ({"checks": 10}, "memory was not checked"),
        ({"alive": 1}, "1 of 2 bystanders alive"),
        ({"stray": 1}, "1 memory blocks outside ZONE_MOVABLE"),
        ({"descriptors": 44}, "44 descriptors, 40 before"),
        ({"resident": 70_000}, "70000 KiB resident, 60000 before"),
    ],
)
def test_whatever_is_the_worse_for_it_is_told(change: dict[str, int], words: str) -> None:
    assert unhurt(GOOD, LATER, [], 0) == []
    assert unhurt(GOOD, replace(LATER, **change), [], 0) == [words]


def test_another_process_of_the_daemon_may_hold_more_and_be_the_only_one_asked_for() -> None:
    again = replace(LATER, pid=301, restarts=1, descriptors=90, resident=90_000)
    assert unhurt(GOOD, again, [], 1) == []
    assert unhurt(GOOD, again, [], None) == []
    assert unhurt(GOOD, LATER, [], 1) == ["0 restarts, not 1"]
    # started by hand meanwhile, systemd counts from zero
    assert unhurt(replace(GOOD, restarts=4), replace(again, restarts=0), [], 0) == []


def test_the_journal_shows_no_inside_and_no_address_and_is_not_flooded() -> None:
    trace = [{"MESSAGE": "Traceback (most recent call last):"}, {"TIERD_EVENT": "internal-error"}]
    assert unhurt(GOOD, LATER, trace, 0) == ["2 tracebacks"]
    known = [{"MESSAGE": "pages at 0x7f0123456000"}, {"MESSAGE": "region 0x1234567890abcdef, 12345678901"}]
    assert unhurt(GOOD, LATER, known, 0) == ["1 addresses in the journal"]
    lines = [{"MESSAGE": "x"}] * 150
    assert unhurt(GOOD, LATER, lines, 0) == ["150 lines in 1.0 minutes"]
    assert unhurt(GOOD, replace(LATER, seconds=220), lines, 0) == []


def test_a_case_holds_when_it_happened_and_nothing_is_the_worse() -> None:
    assert case.figure(Seen(1), "7.3").holds
    assert not case.figure(Seen(0), "7.3").holds
    assert not case.figure(Seen(1, ["a fault"]), "7.3").holds
    assert not case.figure(Seen(1, never={case.LOST: (1, 5)}), "7.3").holds
    assert "happened 3 times; as asked; a fault" == case.figure(Seen(3, ["a fault"], "as asked"), "7.3").text


def test_what_may_never_be_is_added_up_over_all_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(never, "RESULTS", tmp_path)
    (tmp_path / "service.json").write_text(
        '{"rows": {"authorisation-7.3": {"values":'
        ' {"wrong": ["x"], "cells": {"root": {"a": "yes", "b": "no"}}}}}}'
    )
    counts = case.counted(GOOD, replace(LATER, bad=1), [{"MESSAGE": "x"}])
    rows = {name: {"values": {"never": counts}} for name in ("one", "two")}
    found = never.all_of({**rows, "three": {"values": {"kernel": "7.3"}}})
    assert found[case.CORRUPTED] == (2 << 20, 20 << 20)
    assert found[case.HUNG] == (0, 2) and found[case.TRACEBACKS] == (0, 2)
    assert found[case.AUTHORISATION] == (1, 2) and case.WRONG not in found
    lines = dict(zip(case.NEVER, never.lines(found), strict=True))
    assert lines[case.HUNG].split()[0] == "holds" and lines[case.HUNG].endswith(" 0 of 2")
    assert lines[case.CORRUPTED].split()[0] == "SHORT"
    assert lines[case.WRONG].split()[0] == "SHORT", "what nobody has looked at does not hold"


def test_the_tables_that_are_kept_can_be_counted() -> None:
    found = never.all_of(never.kept(never.TABLE))
    assert found[case.AUTHORISATION][1] >= 240 and found[case.LOST][1] >= 100


def test_rows_have_names_of_their_own_and_each_group_ends_with_its_settings() -> None:
    rows = list(groups.rows(groups.GROUPS, image.kernel_names(earlier=True)))
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    for name in groups.IN_A_SCENE:
        own = [row for row in rows if row.name.startswith(f"{name}-") and row.name.endswith("-7.3")]
        assert own[-1].name == f"{name}-settings-7.3" and len(own) > 2
    assert any(row.name == "boots-cgroup-v1-6.1" for row in rows)
    assert not any(row.name == "boots-cgroup-v1-7.3" for row in rows)


def test_each_call_that_is_refused_has_its_name_and_its_errnos() -> None:
    assert len({refusal.name for refusal in REFUSALS}) == len(REFUSALS)
    assert all(refusal.errnos and refusal.calls for refusal in REFUSALS)


def test_the_rows_that_are_asked_for_are_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run(name: str, rows: Iterable[Row], stage: Stage, *, keep: Path | None) -> int:
        ran.extend(row.name for row in rows)
        return 0

    monkeypatch.setattr(host, "prepare", lambda: None)
    monkeypatch.setattr(never, "all_of", lambda rows: {case.HUNG: (1, 2)})
    monkeypatch.setattr(table, "run", run)
    assert faults.main(["--list", "--group", "owners", "--kernel", "7.3"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["owners-hot-7.3", "owners-pushed-7.3", "owners-settings-7.3"]
    # a hung task is not got over because the rows hold
    assert faults.main(["--group", "kills", "--kernel", "6.12"]) == 1
    assert ran == ["kills-under-load-6.12", "kills-settings-6.12"]
    assert "hung tasks" in capsys.readouterr().out
    ran.clear()
    faults.main(["--long", "--group", "kills", "--kernel", "6.12"])
    assert len(ran) == 12
    ran.clear()
    faults.main(["--long", "--row", "properties", "--row", "boots-cgroup-v1-6.1"])
    assert ran == ["boots-cgroup-v1-6.1", "properties"]
    with pytest.raises(SystemExit):
        faults.main(["--row", "nothing"])
