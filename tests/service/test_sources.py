"""Which source is used, and why the others are not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.kernel.fixtures import Machine
from tierd.core.access import Accesses
from tierd.core.model import ProcessView
from tierd.errors import TierdError
from tierd.kernel.damon_regions import DamonRegions
from tierd.kernel.hardware_samples import HardwareSamples
from tierd.kernel.hint_faults import HintFaults
from tierd.kernel.self_test import FreshPages
from tierd.service.sources import NO_SOURCE, Candidate, Found, NoSource, find_sources, select

FAULTS = {"perf.0": 10, "perf.1": 11}
OURS = {"scan_size_mb": 20, "demotion_enabled": 21}
PEBS = {"PEBS.0": 30}


class Source:
    period = None
    looks = None
    reason = "made up"

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name = name
        self.error = error
        self.log: list[str] = []

    def start(self) -> None:
        self.log.append("start")
        if self.error is not None:
            raise self.error

    def watch(self, processes: Sequence[ProcessView]) -> None:
        pass

    def read(self) -> Accesses:
        return NoSource().read()

    def steer(self, effort: float) -> None:
        pass

    def stop(self) -> None:
        self.log.append("stop")


def candidate(source: Source, lacking: str = "") -> Candidate:
    return Candidate(source, FreshPages, source.read, lacking)


def verdicts(*texts: str) -> Callable[..., str]:
    """Stands for the self-test."""
    waiting = list(texts)
    return lambda look, touch, deadline: waiting.pop(0)


def test_the_first_that_sees_is_used_and_stays_started() -> None:
    first, second = Source("first"), Source("second")
    found = Found([candidate(first, "not ours"), candidate(second)], {"third": "no such thing"})
    chosen = select(found, verdicts(""))
    assert chosen.source is first and first.log == ["start"] and second.log == []
    assert chosen.lacking == "not ours" and chosen.missing == ()
    assert chosen.reason == (
        "made up; it saw tierd touch memory of its own; not used: second (not needed), third (no such thing)"
    )


def test_one_that_does_not_see_is_stopped_and_named() -> None:
    first, second = Source("first"), Source("second")
    chosen = select(Found([candidate(first), candidate(second)]), verdicts("it is blind", ""))
    assert chosen.source is second and first.log == ["start", "stop"] and second.log == ["start"]
    assert chosen.reason.startswith("instead of first (it is blind); made up") and chosen.missing == ()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EPERM, os.strerror(errno.EPERM)), "Operation not permitted"),
        (TierdError("odd"), "odd"),
    ],
)
def test_one_that_does_not_start(error: Exception, words: str) -> None:
    first, second = Source("first", error), Source("second")
    chosen = select(Found([candidate(first), candidate(second)]), verdicts(""))
    assert chosen.source is second and first.log == ["start", "stop"]
    assert f"first ({words})" in chosen.reason


def test_none_that_sees_is_a_missing_feature() -> None:
    found = Found([candidate(Source("first")), candidate(Source("second"))], {"third": "no such thing"})
    chosen = select(found, verdicts("it is blind", "it is blind"))
    assert isinstance(chosen.source, NoSource) and chosen.lacking == NO_SOURCE
    assert chosen.reason == "first and second (it is blind), third (no such thing)"
    (missing,) = chosen.missing
    assert (
        "first and second (it is blind)" in missing.feature and NO_SOURCE in missing.loss and missing.remedy
    )
    assert not len(chosen.source.read())


def test_none_at_all_has_been_named_by_the_helper() -> None:
    chosen = select(Found([], {"first": "its events are not open"}))
    assert isinstance(chosen.source, NoSource) and chosen.missing == ()
    assert chosen.reason == "first (its events are not open)"


def test_a_source_that_is_silent_fails_the_real_test() -> None:
    source = Source("silent")
    chosen = select(Found([candidate(source)]))
    assert isinstance(chosen.source, NoSource) and "it delivered nothing" in chosen.reason
    assert source.log == ["start", "stop"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path).write()


def pebs(machine: Machine) -> None:
    for name, text in {
        "type": "4",
        "events/mem-loads": "event=0xcd,umask=0x1,ldlat=3",
        "format/event": "config:0-7",
        "format/umask": "config:8-15",
        "format/ldlat": "config1:0-15",
    }.items():
        machine.put(machine.root.event_sources / "cpu" / name, text)


def test_a_virtual_machine(machine: Machine) -> None:
    found = find_sources(machine.root, {**FAULTS, **OURS})
    assert [type(candidate.source) for candidate in found.candidates] == [HintFaults]
    assert found.candidates[0].lacking == ""
    assert found.absent == {
        "PEBS": "not in this CPU, or hidden",
        "IBS": "not in this CPU, or hidden",
        "DAMON": "this kernel has no DAMON",
        "soft-dirty bits": found.absent["soft-dirty bits"],
    }
    assert "capabilities cannot be read" in found.absent["soft-dirty bits"]


def test_hint_faults_come_before_hardware(machine: Machine) -> None:
    pebs(machine)
    found = find_sources(machine.root, {**PEBS, **FAULTS, **OURS})
    assert [candidate.source.name for candidate in found.candidates] == ["hint faults", "PEBS"]
    assert isinstance(found.candidates[1].source, HardwareSamples)
    assert not any(candidate.lacking for candidate in found.candidates)


def test_without_a_scan_to_steer_hardware_comes_first(machine: Machine) -> None:
    """As on a kernel without NUMA balancing, or with debugfs closed."""
    pebs(machine)
    found = find_sources(machine.root, {**PEBS, **FAULTS, "demotion_enabled": 21})
    assert [candidate.source.name for candidate in found.candidates] == ["PEBS", "hint faults"]
    assert [candidate.lacking for candidate in found.candidates] == [
        "",
        "the kernel's NUMA balancing is not ours to steer",
    ]


def test_where_the_settings_are_somebody_else_s_no_source_places(machine: Machine) -> None:
    pebs(machine)
    found = find_sources(machine.root, {**PEBS, **FAULTS})
    assert len(found.candidates) == 2 and all(candidate.lacking for candidate in found.candidates)
    assert found.candidates[0].source.name == "hint faults"


def test_a_cpu_whose_events_were_not_opened(machine: Machine) -> None:
    pebs(machine)
    assert find_sources(machine.root, {**FAULTS, **OURS}).absent["PEBS"] == "its events could not be opened"


def test_a_topology_that_cannot_be_read(machine: Machine) -> None:
    pebs(machine)
    (machine.root.nodes / "has_memory").write_text("nonsense\n")
    found = find_sources(machine.root, {**PEBS, **FAULTS, **OURS})
    assert [candidate.source.name for candidate in found.candidates] == ["hint faults"]
    assert "PEBS" in found.absent


def test_without_descriptors(machine: Machine) -> None:
    found = find_sources(machine.root, {})
    assert not found.candidates and found.absent["hint faults"] == "its events are not open"


def test_damon_that_the_helper_has_set_up_comes_after_all_that_can_place(machine: Machine) -> None:
    """As on a kernel without NUMA balancing: page faults are seen, but no hint faults come."""
    doors = {"DAMON.0": 40, "DAMON.1": 41, "damon_state.0": 42, "damon_target.0": 43, "demotion_enabled": 21}
    found = find_sources(machine.root, {**FAULTS, **doors})
    assert [candidate.source.name for candidate in found.candidates] == ["DAMON", "hint faults"]
    chosen = found.candidates[0]
    assert isinstance(chosen.source, DamonRegions) and not chosen.lacking and "DAMON" not in found.absent
    assert round(chosen.deadline, 3) == 6.0, "three reports of two seconds"
    pebs(machine)
    found = find_sources(machine.root, {**FAULTS, **PEBS, **doors})
    assert [candidate.source.name for candidate in found.candidates] == ["PEBS", "DAMON", "hint faults"]


def test_the_self_test_has_the_candidate_s_time() -> None:
    given: list[float] = []
    source = Source("slow")

    def test(look: object, touch: object, deadline: float) -> str:
        given.append(deadline)
        return "it is blind"

    select(Found([Candidate(source, FreshPages, source.read, deadline=6.0)]), test)
    assert given == [6.0]


def test_damon_that_is_not_set_up_is_not_used_and_its_user_is_named(machine: Machine) -> None:
    machine.put(machine.root.damon / "nr_kdamonds", "0\n")
    free = find_sources(machine.root, {**FAULTS, **OURS})
    assert free.absent["DAMON"] == "it is not set up"
    machine.put(machine.root.modules / "damon_stat/parameters/enabled", "Y\n")
    taken = find_sources(machine.root, {**FAULTS, **OURS})
    assert taken.absent["DAMON"] == "in use by damon_stat"
    assert [candidate.source.name for candidate in taken.candidates] == ["hint faults"]


DAMON = {"DAMON.0": 40, "DAMON.1": 41, "damon_state.0": 42, "damon_target.0": 43}


def test_soft_dirty_bits_come_last_and_only_with_the_capability(machine: Machine) -> None:
    machine.put(machine.root.proc / "self/status", "CapEff:\t0000000000880006\n")
    found = find_sources(machine.root, {**FAULTS, **OURS, **DAMON})
    names = ["hint faults", "DAMON", "soft-dirty bits"]
    assert [candidate.source.name for candidate in found.candidates] == names
    machine.put(machine.root.proc / "self/status", "CapEff:\t0000000000880004\n")
    found = find_sources(machine.root, {**FAULTS, **OURS})
    assert "takes CAP_DAC_OVERRIDE" in found.absent["soft-dirty bits"]
    assert [candidate.source.name for candidate in found.candidates] == ["hint faults"]


def test_hint_faults_that_do_not_see_leave_the_place_to_damon(machine: Machine) -> None:
    found = find_sources(machine.root, {**FAULTS, **OURS, **DAMON})
    behind = Source("DAMON")
    found = Found([found.candidates[0], candidate(behind)], found.absent)
    chosen = select(found, verdicts(""))  # the descriptors are no events, so they do not even start
    assert chosen.source is behind and chosen.reason.startswith("instead of hint faults (")


def test_the_one_source_that_may_be_used(machine: Machine) -> None:
    found = find_sources(machine.root, {**FAULTS, **OURS, **DAMON}, "DAMON")
    assert [candidate.source.name for candidate in found.candidates] == ["DAMON"]
    assert found.absent["hint faults"] == "TIERD_SOURCE names another"


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("DAMON", "DAMON (this kernel has no DAMON)"),
        ("damon", '"damon" (TIERD_SOURCE says so, and there is'),
    ],
)
def test_the_one_that_may_be_used_and_cannot(machine: Machine, only: str, words: str) -> None:
    chosen = select(find_sources(machine.root, {**FAULTS, **OURS}, only), verdicts())
    assert isinstance(chosen.source, NoSource) and chosen.lacking == NO_SOURCE
    assert words in chosen.reason and "hint faults (TIERD_SOURCE names another)" in chosen.reason
    (missing,) = chosen.missing
    assert words in missing.feature and "TIERD_SOURCE" in missing.remedy
