"""Hint faults and hardware samples, read from rings that are written as the kernel writes them.

No machine with PEBS or IBS was at hand: for those, these rings are all there is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.fixtures import Machine
from tests.kernel.fixtures.rings import FakeKernel, lost, memory_sample, sample
from tierd.core.model import ProcessId, ProcessView
from tierd.errors import TierdError
from tierd.kernel import perf
from tierd.kernel.hardware_samples import HardwareSamples
from tierd.kernel.hint_faults import HintFaults
from tierd.kernel.perf import RING_PAGES
from tierd.kernel.scanning import ScanRate

BLOCK = 128 << 20
DRAM, SLOW = 0, 1
L1, L3, RAM, PMEM, UNKNOWN = 1, 3, 0xD, 0xE, 0xF


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """PERF_EVENT_IOC_ENABLE and _DISABLE, which a file does not take."""
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(perf.fcntl, "ioctl", lambda fd, request, argument: calls.append((fd, request)))
    return calls


@pytest.fixture
def cpus(tmp_path: Path) -> Iterator[list[FakeKernel]]:
    made = [FakeKernel(tmp_path / f"cpu{number}", RING_PAGES) for number in range(2)]
    yield made
    for cpu in made:
        os.close(cpu.descriptor)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """DRAM in blocks 0 and 1, slow memory in 8 and 9."""
    made = Machine(tmp_path / "machine").write()
    made.put(made.root.memory_blocks / "block_size_bytes", f"{BLOCK:x}\n")
    for node, blocks in ((DRAM, (0, 1)), (SLOW, (8, 9))):
        for block in blocks:
            (made.root.nodes / f"node{node}/memory{block}").mkdir(parents=True)
    return made


def hardware(machine: Machine, cpus: list[FakeKernel]) -> HardwareSamples:
    source = HardwareSamples("PEBS", (cpu.descriptor for cpu in cpus), machine.root, frozenset({DRAM}))
    source.start()
    return source


def test_hint_faults(cpus: list[FakeKernel], enabled: list[tuple[int, int]], tmp_path: Path) -> None:
    size = os.open(tmp_path / "size", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    source = HintFaults((cpu.descriptor for cpu in cpus), ScanRate({"scan_size_mb": size}))
    assert not enabled, "nothing is read before start"
    source.start()
    assert [request for _, request in enabled] == [0x2400, 0x2400]
    cpus[1].write(sample(0x2000, pid=9, time=2_000_000_000) + lost(4))
    cpus[0].write(sample(0x3FFF, pid=8, time=3_000_000_000))
    seen = source.read()
    assert (seen.pid.tolist(), seen.page.tolist(), seen.time.tolist()) == ([9, 8], [2, 3], [2.0, 3.0])
    assert seen.lost == 4 and not len(source.read())
    source.steer(1.0)
    source.steer(4 / 256)
    assert (tmp_path / "size").read_text() == "256\n4\n"
    source.stop()
    assert [request for _, request in enabled[2:]] == [0x2401, 0x2401]
    source.stop()
    os.close(size)


def test_once_it_is_known_who_is_placed_others_are_counted_only(
    cpus: list[FakeKernel], enabled: list[tuple[int, int]]
) -> None:
    """A server on which processes start all the time has far more page faults than hint faults."""
    source = HintFaults((cpu.descriptor for cpu in cpus), ScanRate({}))
    source.start()
    source.watch([ProcessView(ProcessId(8, 1), "db", 0, "/db", 1 << 30)])
    cpus[0].write(sample(0x2000, pid=9, time=2) + sample(0x3000, pid=8, time=4) + lost(5))
    cpus[1].write(sample(0x4000, pid=8, time=3) + sample(0x5000, pid=7, time=1))
    seen = source.read()
    assert (seen.page.tolist(), seen.others, seen.lost) == ([4, 3], 2, 5)
    source.watch([])
    cpus[0].write(sample(0x3000, pid=8, time=4))
    seen = source.read()
    assert (len(seen), seen.others) == (0, 1)
    source.stop()


def test_samples_of_slow_memory_only(
    machine: Machine, cpus: list[FakeKernel], enabled: list[tuple[int, int]]
) -> None:
    source = hardware(machine, cpus)
    fast, slow = BLOCK + 0x5000, 9 * BLOCK + 0x5000
    cpus[0].write(
        memory_sample(0x10000, slow, time=5_000_000_000)
        + memory_sample(0x20000, fast)
        + lost(3)
        + memory_sample(0x30000, 0)  # the kernel had no physical address
        + memory_sample(0x40000, 5 * BLOCK)  # no such memory
        + memory_sample(0x50000, 1 << 50)
    )
    cpus[1].write(memory_sample(0x60000, slow, pid=4, time=4_000_000_000))
    seen = source.read()
    assert (seen.page.tolist(), seen.pid.tolist()) == ([0x60, 0x10], [4, 7])
    assert seen.time.tolist() == [4.0, 5.0] and seen.lost == 3
    source.stop()


@pytest.mark.parametrize(
    ("level", "counts"), [(L1, False), (2, False), (L3, False), (0xB, False), (RAM, True), (PMEM, True)]
)
def test_what_a_cache_served_gains_nothing_in_dram(
    machine: Machine, cpus: list[FakeKernel], enabled: list[tuple[int, int]], level: int, counts: bool
) -> None:
    source = hardware(machine, cpus)
    cpus[0].write(memory_sample(0x10000, 8 * BLOCK, level=level))
    assert len(source.read()) == counts
    source.stop()


def test_an_address_that_the_kernel_did_not_find_is_on_no_node(
    machine: Machine, cpus: list[FakeKernel], enabled: list[tuple[int, int]]
) -> None:
    """Block 0, with which it would be taken for memory, may be slow."""
    (machine.root.nodes / "node0/memory0").rename(machine.root.nodes / "node1/memory0")
    source = hardware(machine, cpus)
    cpus[0].write(memory_sample(0x10000, 0) + memory_sample(0x20000, 64))
    assert source.read().page.tolist() == [0x20]
    source.stop()


@pytest.mark.parametrize("level", [0, UNKNOWN, 9, 0xC])
def test_a_level_that_the_cpu_does_not_tell_counts(
    machine: Machine, cpus: list[FakeKernel], enabled: list[tuple[int, int]], level: int
) -> None:
    source = hardware(machine, cpus)
    cpus[0].write(memory_sample(0x10000, 8 * BLOCK, level=level))
    assert len(source.read()) == 1
    source.stop()


def test_kernel_addresses_are_nobody_s_pages(
    machine: Machine, cpus: list[FakeKernel], enabled: list[tuple[int, int]]
) -> None:
    """IBS cannot leave the kernel out."""
    source = hardware(machine, cpus)
    cpus[0].write(memory_sample(0xFFFF888000001000, 8 * BLOCK) + memory_sample(0x7FFF00001000, 8 * BLOCK))
    assert source.read().page.tolist() == [0x7FFF00001]
    cpus[0].write(memory_sample(0xFFFF888000001000, 8 * BLOCK))
    assert not len(source.read_everything())
    source.stop()


def test_the_self_test_sees_dram_as_well(
    machine: Machine, cpus: list[FakeKernel], enabled: list[tuple[int, int]]
) -> None:
    source = hardware(machine, cpus)
    cpus[0].write(memory_sample(0x10000, 0x1000, level=L1))
    assert source.read_everything().page.tolist() == [0x10]
    source.stop()


def test_memory_that_came_online_since(
    machine: Machine, cpus: list[FakeKernel], enabled: list[tuple[int, int]]
) -> None:
    source = hardware(machine, cpus)
    (machine.root.nodes / "node1/memory40").mkdir()
    cpus[0].write(memory_sample(0x10000, 40 * BLOCK + 7) + memory_sample(0x20000, 41 * BLOCK))
    assert source.read().page.tolist() == [0x10]
    source.stop()


def test_without_memory_blocks_it_does_not_start(
    machine: Machine, cpus: list[FakeKernel], enabled: list[tuple[int, int]]
) -> None:
    (machine.root.memory_blocks / "block_size_bytes").unlink()
    with pytest.raises(TierdError):
        hardware(machine, cpus)
