"""Page-fault rings: every record counted, whatever lies between them, and across the ring's end."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel.fixtures.rings import (
    HEAD,
    LOST,
    TAIL,
    THROTTLE,
    FakeKernel,
    lost,
    memory_sample,
    other,
    sample,
)
from tierd.kernel.perf import (
    FAULT_LAYOUT,
    MEMORY_LAYOUT,
    RING_PAGES,
    Ring,
    SampleStream,
    accesses,
    parse_records,
)


def test_the_record_is_as_long_as_the_kernel_s() -> None:
    assert FAULT_LAYOUT.itemsize == len(sample(0)) == 40
    assert MEMORY_LAYOUT.itemsize == len(memory_sample(0, 0)) == 56


def test_samples_of_memory_accesses() -> None:
    """The order in which the kernel writes them is that of the header file, not that of the bits."""
    data = memory_sample(0x7F0000001238, 0x140001238, pid=5, time=17, level=0xE, cpu=130)
    records, missing = parse_records(lost(2) + data + lost(1, with_id=True) + data, MEMORY_LAYOUT)
    assert missing == 3 and len(records) == 2
    assert [int(records[name][0]) for name in ("pid", "tid", "time", "cpu")] == [5, 8, 17, 130]
    assert int(records["address"][0]) == 0x7F0000001238
    assert int(records["physical_address"][0]) == 0x140001238
    assert int(records["data_source"][0]) >> 33 & 0xF == 0xE


def test_records_of_another_layout_are_left_out() -> None:
    records, _ = parse_records(sample(0x1000) + memory_sample(0x2000, 0x3000) + sample(4), MEMORY_LAYOUT)
    assert records["address"].tolist() == [0x2000]


def test_samples() -> None:
    records, missing = parse_records(sample(0x7F0000001234, pid=5, time=17) + sample(0x1000, pid=6, time=18))
    assert missing == 0
    assert records["address"].tolist() == [0x7F0000001234, 0x1000]
    assert (records["pid"].tolist(), records["time"].tolist()) == ([5, 6], [17, 18])


def test_nothing() -> None:
    records, missing = parse_records(b"")
    assert len(records) == 0 and records.dtype == FAULT_LAYOUT and missing == 0


@pytest.mark.parametrize("with_id", [False, True])
def test_lost_records_are_counted(with_id: bool) -> None:
    gap = lost(5, with_id=with_id)
    records, missing = parse_records(gap + sample(1 << 12) + lost(1000) + gap + sample(2 << 12) + lost(1))
    assert missing == 5 + 1000 + 5 + 1
    assert (records["address"] >> np.uint64(12)).tolist() == [1, 2]


@pytest.mark.parametrize("size", range(41))
def test_data_that_ends_within_a_record(size: int) -> None:
    """Never seen from a kernel; it must end neither in a loop nor in an error."""
    records, missing = parse_records(sample(1 << 12) + sample(2 << 12)[:size])
    assert len(records) == (2 if size == 40 else 1) and missing == 0


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_record_that_claims_to_be_shorter_than_its_header(size: int) -> None:
    records, _ = parse_records(sample(1 << 12) + struct.pack("<IHH", THROTTLE, 0, size) + sample(2 << 12))
    assert len(records) == 1, "nothing behind it can be trusted"


def test_a_lost_record_without_its_count() -> None:
    records, missing = parse_records(other(0, kind=LOST) + sample(1 << 12))
    assert len(records) == 1 and missing == 0


PARTS = st.one_of(
    st.tuples(st.just("sample"), st.integers(0, (1 << 64) - 1)),
    st.tuples(st.just("lost"), st.integers(0, 1 << 40)),
    st.tuples(st.just("other"), st.integers(0, 8).map(lambda words: 8 * words)),
)


@given(st.lists(PARTS, max_size=80))
def test_any_mixture(parts: list[tuple[str, int]]) -> None:
    make = {"sample": sample, "lost": lost, "other": other}
    records, missing = parse_records(b"".join(make[kind](value) for kind, value in parts))
    assert records["address"].tolist() == [value for kind, value in parts if kind == "sample"]
    assert missing == sum(value for kind, value in parts if kind == "lost")


@given(st.binary(max_size=300))
def test_any_bytes_at_all(data: bytes) -> None:
    records, missing = parse_records(data)
    assert len(records) * FAULT_LAYOUT.itemsize <= len(data) and missing >= 0


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[FakeKernel]:
    made = FakeKernel(tmp_path / "ring", 1)
    yield made
    os.close(made.descriptor)


def addresses(ring: Ring) -> list[int]:
    return [int(address) for address in parse_records(ring.read())[0]["address"]]


def test_a_ring_gives_each_record_once(writer: FakeKernel) -> None:
    ring = Ring(writer.descriptor, pages=1)
    assert addresses(ring) == []
    writer.write(sample(0x1000) + sample(0x2000))
    assert addresses(ring) == [0x1000, 0x2000]
    assert addresses(ring) == []
    writer.write(sample(0x3000))
    assert addresses(ring) == [0x3000]
    ring.close()


def test_reading_makes_room(writer: FakeKernel) -> None:
    ring = Ring(writer.descriptor, pages=1)
    writer.write(sample(0x1000) * 3)
    assert writer.word(TAIL) == 0
    ring.read()
    assert writer.word(TAIL) == writer.word(HEAD) == 120
    ring.close()


@pytest.mark.parametrize("behind_the_end", [0, 8, 16, 24, 32, 40, 48])
def test_records_across_the_end_of_the_ring(writer: FakeKernel, behind_the_end: int) -> None:
    writer.start_at(5 * writer.size + writer.size - 80 + behind_the_end)
    ring = Ring(writer.descriptor, pages=1)
    writer.write(sample(0x1000) + lost(3) + sample(0x2000) + sample(0x3000))
    records, missing = parse_records(ring.read())
    assert records["address"].tolist() == [0x1000, 0x2000, 0x3000] and missing == 3
    ring.close()


@pytest.mark.parametrize("start", [0, 4096 - 40, 2048 + 8])
def test_a_ring_that_is_full(writer: FakeKernel, start: int) -> None:
    """Head and tail then point to one place, as they do when it is empty."""
    writer.start_at(start)
    ring = Ring(writer.descriptor, pages=1)
    count, left = divmod(writer.size, 40)
    writer.write(b"".join(sample(n << 12) for n in range(count)) + other(left - 8))
    assert addresses(ring) == [n << 12 for n in range(count)]
    assert addresses(ring) == []
    ring.close()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 40).map(lambda n: 8 * n), st.lists(st.integers(0, 20), max_size=12))
def test_rounds_of_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, start: int, rounds: list[int]
):
    writer = FakeKernel(tmp_path_factory.mktemp("ring") / "ring", 1)
    writer.start_at(start)
    ring = Ring(writer.descriptor, pages=1)
    written = 0
    for count in rounds:
        numbers = range(written, written + count)
        writer.write(b"".join(sample(n) + lost(1) for n in numbers))
        records, missing = parse_records(ring.read())
        assert records["address"].tolist() == list(numbers) and missing == count
        written += count
    ring.close()
    os.close(writer.descriptor)


def test_the_rings_of_all_cpus_are_one_stream_in_order_of_time(tmp_path: Path) -> None:
    cpus = [FakeKernel(tmp_path / f"cpu{number}", RING_PAGES) for number in range(3)]
    cpus[0].write(sample(0x7000, pid=10, time=3_500_000_000) + sample(0x9FFF, pid=10, time=5_000_000_000))
    cpus[1].write(lost(4) + sample(0x8123, pid=11, time=4_000_000_000, cpu=1) + lost(2))
    stream = SampleStream(cpu.descriptor for cpu in cpus)
    faults = accesses(*stream.read())
    assert faults.page.tolist() == [7, 8, 9]
    assert faults.pid.tolist() == [10, 11, 10] and faults.pid.dtype == np.int32
    assert faults.time.tolist() == [3.5, 4.0, 5.0], "in seconds"
    assert faults.cpu.tolist() == [0, 1, 0] and faults.cpu.dtype == np.int32
    assert faults.lost == 6 and len(faults) == 3
    records, missing = stream.read()
    assert (len(records), missing) == (0, 0)
    stream.close()
    assert all(os.fstat(cpu.descriptor) for cpu in cpus), "the descriptors stay the caller's"
    for cpu in cpus:
        os.close(cpu.descriptor)


def test_a_descriptor_that_is_no_event_leaves_no_ring_behind(tmp_path: Path) -> None:
    good = FakeKernel(tmp_path / "cpu0", RING_PAGES)
    with open(tmp_path / "empty", "w+b") as file, pytest.raises(OSError, match="not an event"):
        SampleStream([good.descriptor, file.fileno()])
    os.close(good.descriptor)
    assert str(tmp_path / "cpu0") not in Path("/proc/self/maps").read_text()


def test_rings_that_have_all_run_over_are_read_about_as_fast_as_full_ones() -> None:
    """A server's hundred CPUs, after a second in which everybody was faulting. Before, each gap had all that
    follows looked through anew: a hundred times as long."""

    def seconds(ring: bytes) -> float:
        begun = time.process_time()
        parse_records(ring * 128)
        return time.process_time() - begun

    full = sample(1 << 12) * 4000
    overrun = sample(1 << 12) * 2000 + lost(7) + sample(1 << 12) * 2000
    usual = min(seconds(full) for _ in range(3))
    assert min(seconds(overrun) for _ in range(3)) < 8 * usual + 0.05
    records, missing = parse_records(overrun * 128)
    assert (len(records), missing) == (128 * 4000, 128 * 7)


def test_no_rings_no_faults() -> None:
    stream = SampleStream([])
    stream.enable(True)
    assert len(stream.read()[0]) == 0
    stream.close()
