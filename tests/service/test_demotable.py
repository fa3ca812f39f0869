"""Which cgroups may be asked for pages of DRAM."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.kernel.fixtures import MIB, Machine, fail_reading
from tierd.core.policy import ProcessMatch, ProcessSelection
from tierd.kernel.generations import Generations
from tierd.service.demotable import ANSWER_SECONDS, Demotable
from tierd.service.placed import PlacedProcesses

DRAM, SLOW = 0, 1
EXCLUDING = ProcessSelection(exclude=(ProcessMatch(cgroup="/web"),))


class Asked:
    def __init__(self, machine: Machine) -> None:
        self.machine, self.now = machine, 100.0
        self.placed = PlacedProcesses(machine.root)
        self.demotable = Demotable(machine.root, self.placed)
        self.demotable.adopt(EXCLUDING)
        self.sharing: set[str] = set()

    def __call__(self, cgroup: str) -> bool:
        self.placed.refresh(EXCLUDING, 64 * MIB)
        self.demotable.look(self.now, {SLOW}, self.sharing)
        return self.demotable.selects(cgroup)


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    machine = Machine(tmp_path)
    machine.add_process(100, "/db", resident=256 * MIB)
    machine.add_process(101, "/db", resident=9 * MIB)
    machine.add_process(200, "/web", resident=256 * MIB)
    for pid in range(300, 340):
        machine.add_process(pid, "/pool", resident=30 * MIB)
    machine.charge("/tmpfs", 500 * MIB)
    return Asked(machine)


def test_the_policy_selects_it(asked: Asked) -> None:
    assert asked("/db") and not asked("/web")


def test_small_processes_are_left_alone(asked: Asked) -> None:
    """What goes down of theirs would never come up again."""
    assert not asked("/pool")


@pytest.mark.parametrize(("shared", "may"), [(200 * MIB, False), (50 * MIB, True)])
def test_what_processes_share_for_the_most_part_stays(asked: Asked, shared: int, may: bool) -> None:
    """PostgreSQL's buffers: what goes down of them does not come up. A child of Redis shares as well, while
    it writes a snapshot, and hands everything back."""
    where = asked.machine.root.cgroup / "db/memory.numa_stat"
    where.write_text(f"anon N0={100 * MIB} N1=0\nshmem N0={shared} N1=0\n")
    assert asked("/db")
    asked.sharing = {"/db"}
    assert asked("/db") is may
    where.unlink()
    asked.now += ANSWER_SECONDS
    assert asked("/db")


def test_page_cache_is_no_process_s_own(asked: Asked) -> None:
    asked("/pool")
    assert asked.demotable.caches("/pool") and not asked.demotable.caches("/web")
    asked.machine.put("sys/fs/cgroup/pool/cpuset.mems.effective", "0\n")
    asked.now += ANSWER_SECONDS
    asked("/pool")
    assert not asked.demotable.caches("/pool")


def test_memory_that_no_process_stands_for_goes_down(asked: Asked) -> None:
    """Files in tmpfs that a job has left, and cgroups that are gone while their memory is not."""
    assert asked("/tmpfs") and asked("/gone")


@pytest.mark.parametrize(("nodes", "may"), [("0", False), ("0,1", True), ("1", True), ("0,2", False)])
def test_a_cpuset_without_slow_memory_keeps_it_in_dram(asked: Asked, nodes: str, may: bool) -> None:
    asked.machine.put("sys/fs/cgroup/cpuset.mems.effective", "0-2\n")
    asked.machine.put("sys/fs/cgroup/db/cpuset.mems.effective", f"{nodes}\n")
    assert asked("/db") is may


def named_by_lru_gen(machine: Machine, name: bytes) -> str:
    where = machine.put("lru_gen", b"memcg 24 " + name + b"\n node 0\n 41 9120 60 0 \n")
    descriptor = os.open(where, os.O_RDONLY)
    (line,) = Generations(descriptor).read()
    os.close(descriptor)
    return line.cgroup


@pytest.mark.parametrize("name", [b"/even", b"/odd\xff"])
def test_a_name_that_is_not_utf_8_is_no_way_around_any_rule(asked: Asked, name: bytes) -> None:
    """Whoever was given a subtree may make a cgroup of any name."""
    below = asked.machine.root.cgroup / os.fsdecode(name).lstrip("/")
    asked.machine.put(below / "cgroup.procs", "900\n")
    cgroup = named_by_lru_gen(asked.machine, name)
    assert not asked(cgroup), "its one process is too small to be placed"
    (below / "cgroup.procs").write_text("")
    asked.now += ANSWER_SECONDS
    assert asked(cgroup)
    asked.machine.put(below / "cpuset.mems.effective", "0\n")
    asked.now += ANSWER_SECONDS
    assert not asked(cgroup) and not asked.demotable.caches(cgroup)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.EIO, errno.EACCES])
@pytest.mark.parametrize(
    ("cgroup", "file"),
    [
        ("/pool", "cgroup.procs"),
        ("/db", "cpuset.mems.effective"),
        ("/tmpfs", "cpuset.mems.effective"),
        ("/db", "memory.numa_stat"),
    ],
)
def test_what_cannot_be_read_speaks_against_asking(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, cgroup: str, file: str, code: int
) -> None:
    asked.placed.refresh(EXCLUDING, 64 * MIB)
    monkeypatch.setattr(asked.placed, "refresh", lambda *arguments: None)
    asked.sharing = {"/db"}
    fail_reading(monkeypatch, asked.machine.root.cgroup / cgroup.lstrip("/") / file, code)
    assert not asked(cgroup)


def test_an_answer_holds_for_some_seconds_and_a_new_policy_at_once(asked: Asked) -> None:
    assert asked("/db")
    asked.machine.put("sys/fs/cgroup/db/cpuset.mems.effective", "0\n")
    assert asked("/db")
    asked.now += ANSWER_SECONDS
    assert not asked("/db")
    asked.machine.put("sys/fs/cgroup/db/cpuset.mems.effective", "0-1\n")
    asked.demotable.adopt(ProcessSelection())
    assert asked("/db")
