"""The processes that a caller asks for: which, whose, how many, and at what cost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.fixtures import MIB, Machine
from tests.service.fake_daemon import topology
from tierd.core.classes import DEFAULT_CLASS, ClassRule, DramShare, ServiceClass
from tierd.core.model import Topology
from tierd.core.policy import Policy, ProcessMatch, ProcessSelection
from tierd.errors import DeniedError, GoneError, InvalidError
from tierd.kernel.paths import Root
from tierd.service import process_rows
from tierd.service.process_rows import ProcessQuery, ProcessRow, list_processes, process_query

GOLD = ServiceClass("gold", (ClassRule(command="post*"),), DramShare(guaranteed=True))
POLICY = Policy(
    ProcessSelection(exclude=(ProcessMatch(unit="sshd.service"),)), classes=(GOLD, DEFAULT_CLASS)
)
TIERS = topology()
WHERE = "7f00 default anon=3 N0={} N1={} kernelpagesize_kB=4\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path).write()
    made.add_process(7, "/app.slice/db.service", command=b"postgres", resident=100 * MIB)
    made.add_process(8, "/app.slicer", command=b"make", resident=300 * MIB)
    made.add_process(9, "/sshd.service", command=b"sshd", resident=200 * MIB)
    made.add_process(10, "/app.slice", command=b"postgres", resident=8 * MIB)
    made.add_process(2, "/", command=b"kthreadd", resident=0)
    for pid in (7, 8, 9, 10):
        made.put(f"proc/{pid}/numa_maps", WHERE.format(pid, 2))
    made.put("proc/meminfo", "")
    return made


def rows(
    machine: Machine,
    keys: dict[str, Any] | None = None,
    limit: int = 200,
    only_user: int | None = None,
    tiers: Topology = TIERS,
    clock: Callable[[], float] = lambda: 0.0,
) -> tuple[ProcessRow, ...]:
    query = process_query(keys or {}, limit)
    return list_processes(machine.root, query, only_user, POLICY, tiers, clock=clock)


def pids(found: tuple[ProcessRow, ...]) -> list[int]:
    return [row.process.id.pid for row in found]


def test_the_largest_come_first_with_class_place_and_whether_they_are_placed(machine: Machine) -> None:
    found = rows(machine)
    assert pids(found) == [8, 9, 7, 10]
    assert [row.service_class for row in found] == ["default", "default", "gold", "gold"]
    assert [row.placed for row in found] == [True, False, True, False]
    assert (found[2].dram, found[2].slow, found[2].process.resident) == (7 * 4096, 2 * 4096, 100 * MIB)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"class": "gold"}, [7, 10]),
        ({"cgroup": "/app.slice"}, [7, 10]),
        ({"cgroup": "/app.slice/"}, [7, 10]),
        ({"cgroup": "/app.slice/db.service"}, [7]),
        ({"cgroup": "/"}, [8, 9, 7, 10]),
        ({"class": "default", "cgroup": "/app.slicer"}, [8]),
        ({"class": "gold", "cgroup": "/sshd.service"}, []),
        ({"uid": os.getuid()}, [8, 9, 7, 10]),
        ({"uid": os.getuid() + 1}, []),
    ],
)
def test_filters(machine: Machine, keys: dict[str, Any], expected: list[int]) -> None:
    assert pids(rows(machine, keys)) == expected


def test_no_more_is_read_than_the_rows_ask_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counting(root: Root, pid: int) -> dict[int, int]:
        read.append(pid)
        return {}

    monkeypatch.setattr(process_rows, "bytes_by_node", counting)
    assert pids(rows(machine, limit=2)) == [8, 9] and read == [8, 9]
    assert pids(rows(machine, {"class": "gold"}, limit=1)) == [7] and read == [8, 9, 7]


def test_where_memory_is_has_two_seconds_in_all(machine: Machine) -> None:
    now = iter(range(100))
    found = rows(machine, clock=lambda: float(next(now)))
    assert pids(found) == [8, 9, 7, 10]
    assert [row.dram is None for row in found] == [False, True, True, True]


def test_what_is_not_known_is_left_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {row.dram for row in rows(machine, tiers=Topology(()))} == {None}

    def denied(root: Root, pid: int) -> dict[int, int]:
        raise DeniedError("no")

    monkeypatch.setattr(process_rows, "bytes_by_node", denied)
    assert [(row.dram, row.slow) for row in rows(machine)] == [(None, None)] * 4


def test_others_are_not_shown_also_under_a_number_that_was_their_s(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows(machine, only_user=os.getuid() + 1) == ()
    assert rows(machine, {"uid": os.getuid()}, only_user=os.getuid() + 1) == ()

    def other_by_now(root: Root, pid: int) -> dict[int, int]:
        machine.add_process(pid, "/app.slice", start=6000)
        return {}

    monkeypatch.setattr(process_rows, "bytes_by_node", other_by_now)
    assert rows(machine, only_user=os.getuid()) == ()


def test_a_process_that_ends_meanwhile_is_left_out(machine: Machine) -> None:
    (machine.path / "proc/8/numa_maps").unlink()
    (machine.path / "proc/9/stat").unlink()
    assert pids(rows(machine, limit=2)) == [7, 10]


@pytest.mark.parametrize(
    ("keys", "limit", "words"),
    [
        ({}, 0, "limit is 1 to 200, not 0"),
        ({}, 201, "limit is 1 to 200, not 201"),
        ({"command": "x"}, 5, "no filter 'command'"),
        ({"class": 5}, 5, "the filter 'class' takes a string"),
        ({"cgroup": True}, 5, "the filter 'cgroup' takes a string"),
        ({"cgroup": "app.slice"}, 5, "takes a path that starts with /, not 'app.slice'"),
        ({"uid": "root"}, 5, "the filter 'uid' takes the number of a user"),
        ({"uid": True}, 5, "the filter 'uid' takes the number of a user"),
        ({"uid": -1}, 5, "the filter 'uid' takes the number of a user"),
        ({"uid": 1.0}, 5, "the filter 'uid' takes the number of a user"),
    ],
)
def test_what_cannot_be_asked(keys: dict[str, Any], limit: int, words: str) -> None:
    with pytest.raises(InvalidError) as caught:
        process_query(keys, limit)
    assert words in str(caught.value)


def test_a_class_that_the_policy_does_not_have(machine: Machine) -> None:
    with pytest.raises(GoneError, match="the policy has no class golden"):
        rows(machine, {"class": "golden"})
    plain = list_processes(machine.root, ProcessQuery(9, "default"), None, Policy(), TIERS)
    assert pids(plain) == [8, 9, 7, 10]
