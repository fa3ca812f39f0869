"""Which events a change makes, which lines they become, and that any text survives the way there."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.service.conftest import lacking
from tierd.core.model import Node, Tier, TierKind, Topology
from tierd.core.state import ClassState, Counters, EngineState, MissingFeature, State
from tierd.service import events
from tierd.service.events import EVENT_TYPES, Event, Priority, events_between, movement_between, status_line
from tierd.service.journal import (
    FIELD_LIMIT,
    MESSAGE_LIMIT,
    Reporter,
    capture_logging,
    default_sink,
    entry,
    to_journal,
    to_stderr,
)

GIB = 1 << 30
DRAM = Tier("memory_tier4", TierKind.DRAM, (Node(0, 2 * GIB, GIB // 2, 1 << 20, True, False, 80),))
PMEM = Tier("memory_tier56", TierKind.SLOW, (Node(1, 4 * GIB, 4 * GIB, 1 << 20, False, True, 300),))
LESS = Tier("memory_tier56", TierKind.SLOW, (Node(1, 3 * GIB, GIB, 1 << 20, False, True, 300),))
DAMON = MissingFeature("DAMON", "large regions are found later", "boot with CONFIG_DAMON")

STEADY = State(engine=EngineState.STEADY, topology=Topology((DRAM, PMEM)), source="hint-faults")
LATE = replace(
    STEADY, classes=(ClassState("late", odd="p.yaml:9:5: classes[1]: warning: class late has no process"),)
)
HOLD = replace(STEADY, engine=EngineState.HOLDING, reason="memory pressure 45 %")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (STEADY, STEADY, []),
        (STEADY, replace(STEADY, reason="other words", processes=9, monotonic=5.0), []),
        (STEADY, replace(STEADY, engine=EngineState.CONVERGING), ["state-changed: converging (was steady)"]),
        (
            STEADY,
            replace(STEADY, engine=EngineState.IDLE, reason="no process is selected"),
            ["state-changed: idle (was steady): no process is selected"],
        ),
        (STEADY, HOLD, ["holding: holding (was steady): memory pressure 45 %"]),
        (
            HOLD,
            replace(HOLD, reason="DRAM at its floor"),
            ["holding: holding (was holding): DRAM at its floor"],
        ),
        (HOLD, STEADY, ["state-changed: steady (was holding)"]),
        (
            State(),
            State(source="hint faults", source_reason="page-exact; not used: \x1b[31mDAMON"),
            ["source-chosen: accesses are seen through: hint faults (page-exact; not used: \\x1b[31mDAMON)"],
        ),
        (
            STEADY,
            replace(STEADY, engine=EngineState.DEGRADED, reason="no source"),
            ["degraded: degraded (was steady): no source"],
        ),
        (STEADY, LATE, ["policy-odd: p.yaml:9:5: classes[1]: warning: class late has no process"]),
        (LATE, LATE, []),
        (LATE, STEADY, []),
        (
            STEADY,
            replace(STEADY, topology=Topology((DRAM,))),
            ["tier-vanished: tier memory_tier56 (slow, node 1): 4.0 GiB is gone"],
        ),
        (
            replace(STEADY, topology=Topology((DRAM,))),
            STEADY,
            ["tier-appeared: tier memory_tier56 (slow, node 1): 4.0 GiB"],
        ),
        (
            STEADY,
            replace(STEADY, topology=Topology((DRAM, LESS))),
            ["tier-resized: tier memory_tier56 (slow, node 1): 3.0 GiB, was 4.0 GiB"],
        ),
        (
            replace(STEADY, blocks={0: (0, 1), 1: (32, 33, 34, 40)}),
            replace(STEADY, topology=Topology((DRAM, LESS)), blocks={0: (0, 1), 1: (32, 41)}),
            [
                "tier-resized: tier memory_tier56 (slow, node 1): 3.0 GiB, was 4.0 GiB: memory blocks"
                " 33-34,40 went offline, memory blocks 41 went online"
            ],
        ),
        (
            replace(STEADY, blocks={1: (32, 33)}),
            replace(STEADY, topology=Topology((DRAM,))),
            [
                "tier-vanished: tier memory_tier56 (slow, node 1): 4.0 GiB is gone: memory blocks 32-33 went"
                " offline"
            ],
        ),
        (
            STEADY,
            replace(STEADY, missing=(DAMON,)),
            ["feature-missing: DAMON: large regions are found later; boot with CONFIG_DAMON"],
        ),
        (replace(STEADY, missing=(DAMON,)), replace(STEADY, missing=(DAMON,)), []),
        (replace(STEADY, missing=(DAMON,)), STEADY, ["feature-returned: DAMON is there again"]),
        (
            STEADY,
            replace(STEADY, engine=EngineState.CONVERGING, missing=(DAMON,)),
            [  # the urgent one first
                "feature-missing: DAMON: large regions are found later; boot with CONFIG_DAMON",
                "state-changed: converging (was steady)",
            ],
        ),
    ],
)
def test_events_between(before: State, after: State, expected: list[str]) -> None:
    found = events_between(before, after)
    assert [f"{event.type.name}: {event.message}" for event in found] == expected
    assert not any(lacking(entry(event)) for event in found)


def test_fields_of_events() -> None:
    before = State(source="hint-faults")
    state, tier = events_between(before, replace(HOLD, topology=Topology((DRAM,))))
    assert dict(state.fields) == {
        "TIERD_STATE": "holding",
        "TIERD_STATE_BEFORE": "starting",
        "TIERD_REASON": "memory pressure 45 %",
        "TIERD_SOURCE": "hint-faults",
    }
    assert dict(tier.fields) == {
        "TIERD_TIER": "memory_tier4",
        "TIERD_TIER_KIND": "dram",
        "TIERD_NODES": "0",
        "TIERD_TOTAL_BYTES": str(2 * GIB),
    }


def moved(state: State, at: float, **counters: int) -> State:
    return replace(state, monotonic=at, counters=Counters(**counters))


def test_movement_between() -> None:
    later = moved(
        STEADY,
        30.0,
        promoted_pages=25600,
        demoted_pages=256,
        huge_pages_split=1,
        huge_pages_rebuilt=3,
        refused_pages=2,
    )
    event = movement_between(STEADY, later)
    assert event is not None
    assert event.message == (
        "promoted 100 MiB, demoted 1.0 MiB, split 1 huge page, rebuilt 3 huge pages, 2 pages refused by the"
        " kernel in 30 s"
    )
    assert event.fields["TIERD_PROMOTED_PAGES"] == "25600" and event.fields["TIERD_SECONDS"] == "30.000"
    assert movement_between(later, replace(later, monotonic=90.0)) is None


def test_status_line() -> None:
    state = replace(
        STEADY,
        engine=EngineState.CONVERGING,
        processes=3,
        cgroups=2,
        bytes_per_second=12e6,
        counters=Counters(promoted_pages=105472),
    )
    tail = "2 tiers, 3 processes in 2 cgroups, 12 MB/s, DRAM 75 % full, 412 MiB promoted"
    assert status_line(state) == f"placing: {tail}"
    assert (
        status_line(replace(state, engine=EngineState.HOLDING, reason="pressure"))
        == f"holding (pressure): {tail}"
    )
    assert status_line(State()) == "starting: 0 processes in 0 cgroups, 0 MB/s"
    assert status_line(replace(State(), processes=1, cgroups=1)) == "starting: 1 process in 1 cgroup, 0 MB/s"


class Lines:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reporter = Reporter(self.events.append)

    def round(self, state: State, now: float) -> None:
        self.reporter.round(state, now)
        self.reporter.tick(now)

    def texts(self) -> list[str]:
        return [f"{event.type.name}: {event.message}" for event in self.events]


def test_one_line_a_second_at_info_and_warnings_at_once() -> None:
    lines = Lines()
    first = replace(STEADY, missing=(DAMON,))
    lines.round(first, 0.0)
    assert [event.type.name for event in lines.events] == ["feature-missing", "state-changed"]
    for second in range(1, 4):
        before = len(lines.events)
        lines.round(replace(first, monotonic=float(second)), float(second))
        assert len(lines.events) - before <= 1
    assert [event.type.name for event in lines.events[2:]] == [
        "source-chosen",
        "tier-appeared",
        "tier-appeared",
    ]  # none is lost


def test_movement_is_summed_up_every_thirty_seconds() -> None:
    lines = Lines()
    for second in range(0, 95):
        lines.round(moved(STEADY, float(second), promoted_pages=256 * second), float(second))
    summaries = [text for text in lines.texts() if text.startswith("moved")]
    assert summaries == ["moved: promoted 30 MiB, demoted 0 B in 30 s"] * 3
    lines.reporter.close(95.0)
    assert lines.texts()[-1] == "moved: promoted 4.0 MiB, demoted 0 B in 4 s"


def test_equal_events_are_folded_with_a_count_and_the_last_word_is_kept() -> None:
    lines = Lines()
    for number in range(100):
        lines.reporter.report(Event(events.INTERNAL, f"it broke ({number})", subject="it"), number / 10)
    lines.reporter.report(Event(events.INTERNAL, "another", subject="other"), 10.0)
    assert lines.texts() == ["internal-error: it broke (0)", "internal-error: another"]
    lines.reporter.tick(59.0)
    assert len(lines.events) == 2
    lines.reporter.tick(61.0)
    assert lines.texts()[2:] == ["internal-error: it broke (99) (99 times in the last minute)"]
    assert lines.events[2].fields["TIERD_REPEATED"] == "99"
    lines.reporter.tick(200.0)
    assert len(lines.events) == 3


def test_what_holds_moves_up_is_told_each_time_it_is_something_else() -> None:
    lines = Lines()
    for second, reason in enumerate(["waits 45 % of the time", "waits 46 % of the time", "demotion is off"]):
        lines.round(replace(HOLD, reason=reason, monotonic=float(second)), float(second))
    holding = [text for text in lines.texts() if text.startswith("holding")]
    assert holding == [
        "holding: holding (was starting): waits 45 % of the time",
        "holding: holding (was holding): demotion is off",
    ]


def test_what_waits_too_long_is_counted() -> None:
    lines = Lines()
    for number in range(100):
        lines.reporter.report(Event(events.NOTED, f"process {number}", subject=str(number)), 0.0)
    for second in range(1, 70):
        lines.reporter.tick(float(second))
    assert len(lines.events) == 65
    assert lines.texts()[-1] == "noted: 36 more lines came too fast to be written"
    lines.reporter.tick(100.0)
    assert len(lines.events) == 65


def test_a_state_that_flaps_makes_few_lines_and_the_last_is_true() -> None:
    lines = Lines()
    states = [replace(STEADY, engine=e) for e in (EngineState.STEADY, EngineState.CONVERGING)]
    for second in range(600):
        lines.round(replace(states[second % 2], monotonic=float(second)), float(second))
    assert len(lines.events) < 30
    lines.reporter.close(600.0)
    assert "converging" in lines.texts()[-1] or "converging" in lines.texts()[-2]


def test_the_queue_is_bounded() -> None:
    lines = Lines()
    for round_number in range(50):
        tiers = tuple(replace(DRAM, name=f"memory_tier{round_number * 10 + i}") for i in range(10))
        lines.round(replace(STEADY, topology=Topology(tiers)), float(round_number))
    lines.reporter.close(60.0)
    assert len([event for event in lines.events if event.type.name == "tier-appeared"]) <= 50 + 64


@given(st.text(alphabet=st.characters()), st.text(alphabet=st.characters()))
def test_a_journal_entry_is_always_valid(message: str, value: str) -> None:
    fields = entry(Event(events.INTERNAL, message, fields={"TIERD_REASON": value}))
    for key, text in fields.items():
        assert key.replace("_", "").isalnum() and key.isupper()
        assert text.replace("\n", "").isprintable()
        text.encode("utf-8")
    assert "\n" not in fields["MESSAGE"] and len(fields["MESSAGE"]) <= MESSAGE_LIMIT
    assert len(fields["TIERD_REASON"]) <= FIELD_LIMIT
    assert (fields["PRIORITY"], fields["TIERD_EVENT"]) == ("3", "internal-error")
    assert fields["MESSAGE_ID"] == events.INTERNAL.message_id


def test_the_journal_is_written_to_where_standard_error_is_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "stream").open("w") as stream:
        facts = os.fstat(stream.fileno())
        before = os.dup(2)
        try:
            os.dup2(stream.fileno(), 2)
            monkeypatch.setenv("JOURNAL_STREAM", f"{facts.st_dev}:{facts.st_ino}")
            assert default_sink() is to_journal
        finally:
            os.dup2(before, 2)
            os.close(before)
    assert default_sink() is to_stderr, "inherited from a terminal that systemd has started"
    monkeypatch.delenv("JOURNAL_STREAM")
    assert default_sink() is to_stderr


def test_notes_wait_until_nothing_else_does_and_are_written_once() -> None:
    lines = Lines()
    for number in (1, 2, 1):
        lines.reporter.report(Event(events.NOTED, f"process {number}", subject=f"process {number}"), 0.0)
    assert not lines.events
    lines.round(STEADY, 0.0)
    for second in range(1, 9):
        lines.reporter.tick(float(second))
    texts = lines.texts()
    assert texts[-2:] == ["noted: process 1", "noted: process 2"] and texts[0].startswith("state-changed")
    for number in range(500):
        lines.reporter.report(Event(events.NOTED, f"process {number}", subject=str(number)), 9.0)
    lines.reporter.close(10.0)
    assert len(lines.events) <= len(texts) + 64 + 2, "the queue is bounded, and one was folded"


def test_libraries_logging_becomes_one_line_without_a_traceback() -> None:
    reported: list[Event] = []
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        capture_logging(reported.append)
        try:
            raise KeyError("inner")
        except KeyError:
            logging.getLogger("some.library").exception("it %s", "failed\nbadly")
        logging.getLogger("some.library").warning("%d", "not a number")
        logging.getLogger("some.library").info("not shown")
        logging.getLogger("tierd.service.moving").debug("not shown")
        logging.getLogger("tierd.service.moving").info("process %d: pages stay\x1b", 7)
        logging.getLogger("pydbus.registration").error("not shown either")
    finally:
        root.handlers[:], root.level = before
        logging.captureWarnings(False)
        logging.getLogger("pydbus.registration").disabled = False
        logging.getLogger("tierd").setLevel(logging.NOTSET)
    assert [(event.type.name, event.message) for event in reported] == [
        ("internal-error", r"some.library: it failed\nbadly"),
        ("internal-error", "some.library: %d"),
        ("noted", r"process 7: pages stay\x1b"),
    ]


def test_message_ids_are_distinct_and_well_formed() -> None:
    assert (
        len({kind.message_id for kind in EVENT_TYPES})
        == len({kind.name for kind in EVENT_TYPES})
        == len(EVENT_TYPES)
    )
    declared = [value for value in vars(events).values() if isinstance(value, events.EventType)]
    assert set(declared) == set(EVENT_TYPES)
    for kind in EVENT_TYPES:
        assert len(kind.message_id) == 32 and int(kind.message_id, 16)
        assert kind.priority in Priority
