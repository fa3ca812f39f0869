"""memory.numa_stat: bytes by node, of the kinds that can move."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.kernel.fixtures import MIB, Machine, fail_reading, numa_stat
from tierd.errors import DeniedError, GoneError, MalformedError
from tierd.kernel.occupancy import Held, read_held, read_in_dram, read_occupancy

CGROUP = "/system.slice/db.service"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.put(where(made), numa_stat({0: 100 * MIB, 1: 900 * MIB}, huge={0: 64 * MIB, 1: 0}))
    return made


def where(machine: Machine) -> Path:
    return machine.root.cgroup / CGROUP.lstrip("/") / "memory.numa_stat"


def test_anonymous_and_file_memory_by_node(machine: Machine) -> None:
    assert read_occupancy(machine.root, CGROUP) == {0: 100 * MIB + 4096, 1: 900 * MIB + 4096}


def test_other_kinds_on_request(machine: Machine) -> None:
    assert read_occupancy(machine.root, CGROUP, names=("anon_thp",)) == {0: 64 * MIB, 1: 0}
    assert read_occupancy(machine.root, CGROUP, names=("no_such_kind",)) == {}


def test_empty_lines_and_nothing_at_all(machine: Machine) -> None:
    machine.put(where(machine), "\nanon N0=5\n\n")
    assert read_occupancy(machine.root, CGROUP) == {0: 5}
    machine.put(where(machine), "")
    assert read_occupancy(machine.root, CGROUP) == {}


@pytest.mark.parametrize("pair", ["0=5", "N0", "N0=", "N0=many", "Nx=5", "N=5", "N0=-5", "N0=²", "N²=5"])
def test_malformed(machine: Machine, pair: str) -> None:
    machine.put(where(machine), f"anon N0=5 {pair}\n")
    with pytest.raises(MalformedError, match="numa_stat"):
        read_occupancy(machine.root, CGROUP)


def test_gone(machine: Machine) -> None:
    with pytest.raises(GoneError):
        read_occupancy(machine.root, "/system.slice/other.service")


def test_denied(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_reading(monkeypatch, where(machine), errno.EACCES)
    with pytest.raises(DeniedError):
        read_occupancy(machine.root, CGROUP)


def test_what_several_cgroups_hold_in_dram_and_elsewhere(machine: Machine) -> None:
    """A cgroup that ends meanwhile takes nothing from what the others hold."""
    text = "anon N0=5 N1=7 N2=1\nfile N0=20 N1=400 N2=0\nfile_mapped N0=20 N1=30 N2=0\n"
    machine.put(where(machine).parent.parent / "web.service" / "memory.numa_stat", text)
    cgroups = [CGROUP, "/system.slice/gone.service", "/system.slice/web.service"]
    held = read_held(machine.root, cgroups, {0, 2})
    assert held == Held(100 * MIB + 4096 + 26, 900 * MIB + 4096 + 407, 900 * MIB + 37)
    assert read_held(machine.root, [], {0}) == Held(0, 0, 0)
    assert read_in_dram(machine.root, cgroups, {0, 2}, ("anon", "file")) == held.dram
    assert read_in_dram(machine.root, [CGROUP], {0}, ("anon_thp",)) == 64 * MIB
