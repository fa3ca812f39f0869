"""Which nodes a cgroup's processes may have memory on."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.kernel.fixtures import Machine, fail_reading
from tierd.kernel.cpusets import read_allowed_nodes


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.put("sys/fs/cgroup/cpuset.mems.effective", "0-3\n")
    made.put("sys/fs/cgroup/vm.slice/cpuset.mems.effective", "0,2\n")
    made.put("sys/fs/cgroup/vm.slice/a.scope/vcpu0/cgroup.procs", "")
    made.put("sys/fs/cgroup/db.slice/cpuset.mems.effective", "\n")
    return made


@pytest.mark.parametrize(
    ("cgroup", "nodes"),
    [
        ("/", {0, 1, 2, 3}),
        ("/vm.slice", {0, 2}),
        ("/vm.slice/a.scope", {0, 2}),
        ("/vm.slice/a.scope/vcpu0", {0, 2}),
        ("/vm.slice/gone.scope", {0, 2}),
        ("/user.slice/x", {0, 1, 2, 3}),
        ("/db.slice", set()),
    ],
)
def test_the_nearest_cpuset_says_it(machine: Machine, cgroup: str, nodes: set[int]) -> None:
    assert read_allowed_nodes(machine.root, cgroup) == nodes


def test_without_the_controller_nothing_is_known(tmp_path: Path) -> None:
    assert read_allowed_nodes(Machine(tmp_path).root, "/a/b") is None


@pytest.mark.parametrize("code", [0, errno.EMFILE, errno.EACCES])
def test_what_cannot_be_read_allows_no_node(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    cpuset = machine.put("sys/fs/cgroup/vm.slice/cpuset.mems.effective", "0-x\n")
    if code:
        fail_reading(monkeypatch, cpuset, code)
    assert read_allowed_nodes(machine.root, "/vm.slice/a.scope") == set()


def test_many_questions_cost_one_look_each(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from tierd.kernel import cpusets

    read, looks = cpusets.read_text, []
    monkeypatch.setattr(cpusets, "read_text", lambda path: (looks.append(path), read(path))[1])
    known: dict = {}
    deep = "/vm.slice/a.scope/vcpu0" + "/x" * 1500
    for cgroup in ("/vm.slice/a.scope/vcpu0", "/vm.slice/a.scope/vcpu1", "/vm.slice/a.scope", deep):
        assert read_allowed_nodes(machine.root, cgroup, known) == {0, 2}
    assert len(looks) == len(set(looks)) == 4 + 1500
