"""Page-fault rings: every record counted, whatever lies between them, and across the ring's end."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierd.kernel.perf import RECORD, RING_PAGES, FaultStream, Ring, parse_records

LOST, SAMPLE, THROTTLE = 2, 9, 5
# struct perf_event_mmap_page: data_head and data_tail
HEAD, TAIL = 1024, 1032


def sample(address: int, pid: int = 7, time: int = 1_000_000_000, tid: int = 8) -> bytes:
    """PERF_RECORD_SAMPLE with TID, TIME and ADDR (the order of perf_event_open(2))."""
    return struct.pack("<IHHIIQQ", SAMPLE, 2, 32, pid, tid, time, address)


def lost(count: int, *, with_id: bool = False) -> bytes:
    """PERF_RECORD_LOST; with sample_id_all the kernel puts 16 bytes of TID and TIME behind it."""
    tail = struct.pack("<IIQ", 7, 8, 99) if with_id else b""
    return struct.pack("<IHHQQ", LOST, 0, 24 + len(tail), 1, count) + tail


def other(payload: int, kind: int = THROTTLE) -> bytes:
    return struct.pack("<IHH", kind, 0, 8 + payload) + bytes(payload)


def test_the_record_is_as_long_as_the_kernel_s() -> None:
    assert RECORD.itemsize == len(sample(0)) == 32


def test_samples() -> None:
    records, missing = parse_records(sample(0x7F0000001234, pid=5, time=17) + sample(0x1000, pid=6, time=18))
    assert missing == 0
    assert records["address"].tolist() == [0x7F0000001234, 0x1000]
    assert (records["pid"].tolist(), records["time"].tolist()) == ([5, 6], [17, 18])


def test_nothing() -> None:
    records, missing = parse_records(b"")
    assert len(records) == 0 and records.dtype == RECORD and missing == 0


@pytest.mark.parametrize("with_id", [False, True])
def test_lost_records_are_counted(with_id: bool) -> None:
    gap = lost(5, with_id=with_id)
    records, missing = parse_records(gap + sample(1 << 12) + lost(1000) + gap + sample(2 << 12) + lost(1))
    assert missing == 5 + 1000 + 5 + 1
    assert (records["address"] >> np.uint64(12)).tolist() == [1, 2]


@pytest.mark.parametrize("size", range(33))
def test_data_that_ends_within_a_record(size: int) -> None:
    """Never seen from a kernel; it must end neither in a loop nor in an error."""
    records, missing = parse_records(sample(1 << 12) + sample(2 << 12)[:size])
    assert len(records) == (2 if size == 32 else 1) and missing == 0


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
    assert len(records) * RECORD.itemsize <= len(data) and missing >= 0


class FakeKernel:
    """Writes records into a file that is laid out like a mapped ring."""

    def __init__(self, path: Path, pages: int) -> None:
        self.size = pages * mmap.PAGESIZE
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self.descriptor, self.size + mmap.PAGESIZE)

    def word(self, offset: int) -> int:
        return int(struct.unpack("<Q", os.pread(self.descriptor, 8, offset))[0])

    def start_at(self, position: int) -> None:
        for offset in (HEAD, TAIL):
            os.pwrite(self.descriptor, struct.pack("<Q", position), offset)

    def write(self, data: bytes) -> None:
        head = self.word(HEAD)
        assert head + len(data) - self.word(TAIL) <= self.size, "the kernel does not overwrite"
        for offset, byte in enumerate(data):
            place = mmap.PAGESIZE + (head + offset) % self.size
            os.pwrite(self.descriptor, bytes([byte]), place)
        os.pwrite(self.descriptor, struct.pack("<Q", head + len(data)), HEAD)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[FakeKernel]:
    made = FakeKernel(tmp_path / "ring", 1)
    yield made
    os.close(made.descriptor)


def addresses(ring: Ring) -> list[int]:
    return [int(address) for address in ring.read()[0]["address"]]


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
    assert writer.word(TAIL) == writer.word(HEAD) == 96
    ring.close()


@pytest.mark.parametrize("behind_the_end", [0, 8, 16, 24, 32, 40])
def test_records_across_the_end_of_the_ring(writer: FakeKernel, behind_the_end: int) -> None:
    writer.start_at(5 * writer.size + writer.size - 64 + behind_the_end)
    ring = Ring(writer.descriptor, pages=1)
    writer.write(sample(0x1000) + lost(3) + sample(0x2000) + sample(0x3000))
    records, missing = ring.read()
    assert records["address"].tolist() == [0x1000, 0x2000, 0x3000] and missing == 3
    ring.close()


@pytest.mark.parametrize("start", [0, 4096 - 32, 2048 + 8])
def test_a_ring_that_is_full(writer: FakeKernel, start: int) -> None:
    """Head and tail then point to one place, as they do when it is empty."""
    writer.start_at(start)
    ring = Ring(writer.descriptor, pages=1)
    writer.write(b"".join(sample(n << 12) for n in range(writer.size // 32)))
    assert addresses(ring) == [n << 12 for n in range(writer.size // 32)]
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
        records, missing = ring.read()
        assert records["address"].tolist() == list(numbers) and missing == count
        written += count
    ring.close()
    os.close(writer.descriptor)


def test_the_rings_of_all_cpus_are_one_stream_in_order_of_time(tmp_path: Path) -> None:
    cpus = [FakeKernel(tmp_path / f"cpu{number}", RING_PAGES) for number in range(3)]
    cpus[0].write(sample(0x7000, pid=10, time=3_500_000_000) + sample(0x9FFF, pid=10, time=5_000_000_000))
    cpus[1].write(lost(4) + sample(0x8123, pid=11, time=4_000_000_000) + lost(2))
    stream = FaultStream(cpu.descriptor for cpu in cpus)
    faults = stream.read()
    assert faults.page.tolist() == [7, 8, 9]
    assert faults.pid.tolist() == [10, 11, 10] and faults.pid.dtype == np.int32
    assert faults.time.tolist() == [3.5, 4.0, 5.0], "in seconds"
    assert faults.lost == 6 and len(faults) == 3
    again = stream.read()
    assert (len(again), again.lost) == (0, 0)
    stream.close()
    assert all(os.fstat(cpu.descriptor) for cpu in cpus), "the descriptors stay the caller's"
    for cpu in cpus:
        os.close(cpu.descriptor)


def test_no_rings_no_faults() -> None:
    stream = FaultStream([])
    stream.enable(True)
    assert len(stream.read()) == 0
    stream.close()
