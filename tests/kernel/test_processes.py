"""Processes through their cgroups: whom the policy selects, and names made to mislead."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel.fixtures import MIB, Machine, fail_reading
from tierd.core.model import ProcessId
from tierd.core.policy import ProcessMatch, ProcessSelection
from tierd.errors import GoneError, MalformedError
from tierd.kernel.paths import Root
from tierd.kernel.processes import ProcessWatch, read_cgroup, same_process, selected_processes

ALL = ProcessSelection()
DB = "/system.slice/db.service"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path).write()
    (made.root.cgroup).mkdir(parents=True)
    return made


def pids(machine: Machine, selection: ProcessSelection = ALL, minimum: int = 64 * MIB) -> set[int]:
    return {view.id.pid for view in selected_processes(machine.root, selection, minimum)}


def test_a_process_as_it_is(machine: Machine) -> None:
    machine.add_process(100, DB, command=b"postgres", resident=300 * MIB, start=4711)
    (view,) = selected_processes(machine.root, ALL, 64 * MIB)
    assert view.id == ProcessId(100, 4711)
    assert (view.command, view.cgroup, view.resident) == ("postgres", DB, 300 * MIB)
    assert view.uid == os.getuid()


def test_small_processes_are_left_alone(machine: Machine) -> None:
    machine.add_process(100, DB, resident=64 * MIB)
    machine.add_process(101, DB, resident=64 * MIB - 4096)
    machine.add_process(102, "/small.slice", resident=MIB)
    assert pids(machine) == {100}
    assert pids(machine, minimum=0) == {100, 101, 102}


def test_kernel_threads_are_never_selected(machine: Machine) -> None:
    machine.add_process(2, "/odd.slice", command=b"kthreadd", resident=0)
    assert pids(machine, minimum=0) == set()


def test_tierd_itself_is_never_selected(machine: Machine) -> None:
    machine.add_process(os.getpid(), "/system.slice/tierd.service")
    machine.add_process(100, "/system.slice/tierd.service")
    assert pids(machine) == {100}


def test_include_and_exclude(machine: Machine) -> None:
    machine.add_process(100, DB)
    machine.add_process(101, "/system.slice/web.service")
    machine.add_process(102, "/user.slice/user-1000.slice/a.scope")
    system = ProcessMatch(cgroup="/system.slice/*")
    assert pids(machine, ProcessSelection((system,))) == {100, 101}
    assert pids(machine, ProcessSelection((system,), (ProcessMatch(unit="web.service"),))) == {100}
    assert pids(machine, ProcessSelection((ProcessMatch(unit="user-1000.slice"),))) == {102}
    assert pids(machine, ProcessSelection((), ())) == set()


def test_a_cgroup_below_one_that_is_not_selected(machine: Machine) -> None:
    machine.add_process(100, "/a/b/c")
    assert pids(machine, ProcessSelection((ProcessMatch(cgroup="/a/b/c"),))) == {100}


def test_without_the_memory_controller_processes_are_found(machine: Machine) -> None:
    machine.add_process(100, "/a/b")
    (machine.root.cgroup / "a/b/memory.current").unlink()
    assert pids(machine) == {100}


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert pids(Machine(tmp_path)) == set()


@pytest.mark.parametrize("name", ["stat", "statm"])
@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM, errno.EIO])
def test_one_process_that_cannot_be_read_hides_no_other(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    machine.add_process(100, DB)
    machine.add_process(101, DB)
    fail_reading(monkeypatch, machine.root.proc / "100" / name, code)
    assert pids(machine) == {101}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stat", ""),
        ("stat", "100 (x) S 1 2 3"),
        ("stat", "100 x S " + "1 " * 40),
        ("stat", ")100( S " + "1 " * 40),
        ("stat", "100 (x) S " + "no " * 40),
        ("statm", ""),
        ("statm", "1"),
        ("statm", "many many 1"),
        ("statm", "5 ² 1"),
    ],
)
def test_malformed(machine: Machine, name: str, text: str) -> None:
    machine.add_process(100, DB)
    machine.add_process(101, DB)
    machine.put(f"proc/100/{name}", text)
    assert pids(machine) == {101}


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EOPNOTSUPP, errno.EACCES])
def test_one_cgroup_that_cannot_be_read_hides_no_other(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """EOPNOTSUPP: a threaded cgroup."""
    machine.add_process(100, "/a")
    machine.add_process(101, "/b")
    fail_reading(monkeypatch, machine.root.cgroup / "a/cgroup.procs", code)
    assert pids(machine) == {101}


@pytest.mark.parametrize("text", ["", "max\n", "-"])
def test_a_malformed_charge_hides_no_other_cgroup(machine: Machine, text: str) -> None:
    machine.add_process(100, "/a")
    machine.add_process(101, "/b")
    machine.put(machine.root.cgroup / "a/memory.current", text)
    assert 101 in pids(machine)


def test_cgroups_nested_deeper_than_python_s_stack(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user with a delegated cgroup can make them; the daemon must not end on them."""
    machine.add_process(100, DB)
    depth = 300
    deepest = machine.root.cgroup
    for _ in range(depth):
        deepest /= "d"
    deepest.mkdir(parents=True)
    (deepest / "cgroup.procs").write_text("")
    frames = len(__import__("inspect").stack())
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(frames + 150)
    try:
        found = pids(machine)
    finally:
        sys.setrecursionlimit(before)
    assert found == {100}


def test_links_are_not_followed(machine: Machine) -> None:
    machine.add_process(100, DB)
    (machine.root.cgroup / "loop").symlink_to(machine.root.cgroup)
    assert pids(machine) == {100}


HOSTILE = [
    b") R 1 1 (",
    b"a\nb",
    b"\xff\xfe\x80",
    b"x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 (y",
    b"\x1b[31mred",
    b"",
    b"((((",
    b"))))",
    "\u202egnp.exe".encode(),
    b"\r\t\x00",
]


@pytest.mark.parametrize("command", HOSTILE)
def test_names_made_to_mislead(machine: Machine, command: bytes) -> None:
    machine.add_process(100, DB, command=command, start=4711)
    (view,) = selected_processes(machine.root, ALL, 64 * MIB)
    assert view.id == ProcessId(100, 4711), "the name must not shift the other fields"
    assert view.command.isprintable() and len(view.command) <= 64
    assert same_process(machine.root, ProcessId(100, 4711))


@given(st.binary(max_size=64), st.integers(0, 1 << 60))
def test_any_bytes_in_a_name(tmp_path_factory: pytest.TempPathFactory, command: bytes, start: int) -> None:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    machine.add_process(100, DB, command=command, start=start)
    (view,) = selected_processes(machine.root, ALL, 0)
    assert view.id.start == start and view.command.isprintable()


def test_a_number_that_another_process_has_now(machine: Machine) -> None:
    machine.add_process(100, DB, start=4711)
    meant = ProcessId(100, 4711)
    assert same_process(machine.root, meant)
    machine.add_process(100, DB, start=9999)
    assert not same_process(machine.root, meant)
    (machine.root.proc / "100/stat").unlink()
    assert not same_process(machine.root, meant)
    machine.put("proc/100/stat", "100 (x")
    assert not same_process(machine.root, meant)


def test_the_cgroup_of_a_process(machine: Machine) -> None:
    machine.put("proc/100/cgroup", "12:cpuset:/old\n1:name=systemd:/x\n0::/a/b c\x0bd\n")
    assert read_cgroup(machine.root, 100) == "/a/b c\x0bd"
    machine.put("proc/100/cgroup", b"0::/odd\xff\n")
    assert read_cgroup(machine.root, 100) == os.fsdecode(b"/odd\xff"), "as os.scandir spells it"
    machine.put("proc/100/cgroup", "12:cpuset:/old\n")
    with pytest.raises(MalformedError, match="unified"):
        read_cgroup(machine.root, 100)
    with pytest.raises(GoneError):
        read_cgroup(machine.root, 101)


def test_a_real_process_and_its_end() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        stat = Path(f"/proc/{child.pid}/stat").read_text()
        meant = ProcessId(child.pid, int(stat.rpartition(")")[2].split()[19]))
        assert same_process(Root(), meant)
        assert not same_process(Root(), ProcessId(child.pid, meant.start + 1))
    finally:
        child.kill()
        child.wait()
    assert not same_process(Root(), meant)


def test_a_watch_sees_a_process_end() -> None:
    """A real one: its descriptor is the kernel's."""
    child = subprocess.Popen(["sleep", "60"])
    start = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    try:
        with ProcessWatch(Root(), ProcessId(child.pid, start)) as watch:
            assert watch.alive
            child.kill()
            child.wait()
            assert not watch.alive
        with pytest.raises(GoneError):
            ProcessWatch(Root(), ProcessId(child.pid, start))
        with pytest.raises(GoneError, match="another one"):
            ProcessWatch(Root(), ProcessId(os.getpid(), start - 1))
    finally:
        child.kill()
