"""Why a process has the memory that it has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.fixtures import MIB, Machine
from tierd.core.classes import DEFAULT_CLASS, ClassRule, DramShare, ServiceClass
from tierd.core.policy import EnginePolicy, Policy, ProcessMatch, ProcessSelection
from tierd.core.state import State
from tierd.errors import DeniedError, GoneError
from tierd.kernel.processes import selected_processes
from tierd.service.explaining import explain

GOLD = ServiceClass("gold", (ClassRule(command="post*"),), DramShare(guaranteed=True))
POLICY = Policy(classes=(GOLD, DEFAULT_CLASS))
STATE = State(fates={7: ((90.0, "768 pages came up\x1b[2J"), (40.0, "its cgroup gave 3 pages up"))})


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path).write()
    made.add_process(7, "/db.service", command=b"postgres", resident=100 * MIB)
    made.put("proc/7/numa_maps", "7f00 default anon=3 N0=1 N1=2 kernelpagesize_kB=4\n")
    return made


def test_the_class_the_rule_the_memory_and_what_was_moved(machine: Machine) -> None:
    found = explain(machine.root, 7, POLICY, STATE, 100.0)
    assert (found.service_class, found.promise, found.placed) == ("gold", "guaranteed", True)
    assert found.rule == 'class gold, by match[0] (command: "post*")'
    assert found.nodes == {0: 4096, 1: 8192} and found.process.cgroup == "/db.service"
    assert found.fates == (
        "10 s ago: 768 pages came up\\x1b[2J",
        "60 s ago: its cgroup gave 3 pages up",
    )


def test_a_process_that_is_not_placed(machine: Machine) -> None:
    other = replace(POLICY, processes=ProcessSelection(exclude=(ProcessMatch(unit="db.service"),)))
    assert explain(machine.root, 7, other, State(), 0.0).why_not == "the policy does not select its cgroup"
    large = replace(POLICY, engine=EnginePolicy(minimum_process=200 * MIB))
    found = explain(machine.root, 7, large, State(), 0.0)
    assert not found.placed and found.why_not == "it is smaller than minimum_process (200 MiB)"


def test_in_the_root_cgroup_nothing_is_placed(machine: Machine) -> None:
    machine.add_process(9, "/", resident=100 * MIB)
    machine.put("proc/9/numa_maps", "")
    (placed,) = selected_processes(machine.root, POLICY.processes, MIB)
    assert placed.id.pid == 7
    assert explain(machine.root, 9, POLICY, State(), 0.0).why_not == "it is in no cgroup but the root"


def test_no_such_process(machine: Machine) -> None:
    with pytest.raises(GoneError):
        explain(machine.root, 8, POLICY, State(), 0.0)


def test_another_s_process_is_refused_before_what_takes_long_is_read(machine: Machine) -> None:
    uid = explain(machine.root, 7, POLICY, STATE, 0.0).process.uid
    assert explain(machine.root, 7, POLICY, STATE, 0.0, only_user=uid).process.id.pid == 7
    machine.put("proc/7/numa_maps", "what no reader understands\n")
    with pytest.raises(DeniedError, match="not permitted: process 7 is another user's"):
        explain(machine.root, 7, POLICY, STATE, 0.0, only_user=uid + 1)
