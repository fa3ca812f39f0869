"""The scan settings, written only when they change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierd.kernel.scanning import SCAN_DOORS, ScanRate


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Files that show every write, one behind the other."""
    opened = {name: os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in SCAN_DOORS}
    yield opened
    for descriptor in opened.values():
        os.close(descriptor)


def test_the_size(doors: dict[str, int], tmp_path: Path) -> None:
    rate = ScanRate(doors)
    assert rate.available
    for size in (256, 256, 256, 4, 4, 256):
        rate.set_size(size)
    assert (tmp_path / "scan_size_mb").read_text() == "256\n4\n256\n"


def task_scan_min(doors: Path, resident: int) -> int:
    """Milliseconds, as kernel/sched/fair.c has it, of a task of so many MiB when the kernel first looks."""
    size, period = (
        int((doors / name).read_text().split()[-1]) for name in ("scan_size_mb", "scan_period_min_ms")
    )
    windows = 2560 // size if size < 2560 else 1
    return max(1000 // windows, period // -(-resident // size))


@pytest.mark.parametrize("resident", [20, 64, 120])
def test_a_process_that_starts_at_rest_is_looked_at_no_more_often(
    doors: dict[str, int], tmp_path: Path, resident: int
) -> None:
    """It keeps the period that it begins with, and has touched some tens of MiB by then."""
    rate = ScanRate(doors)
    rate.prepare()
    rate.set_size(256)
    assert task_scan_min(tmp_path, resident) == 100
    for size in (64, 16, 4):
        rate.set_size(size)
        assert 50 <= task_scan_min(tmp_path, resident) <= 400
    rate.set_size(256)
    assert task_scan_min(tmp_path, resident) == 100


@pytest.mark.parametrize("size", [0, -5])
def test_the_kernel_takes_no_size_below_one(doors: dict[str, int], tmp_path: Path, size: int) -> None:
    ScanRate(doors).set_size(size)
    assert (tmp_path / "scan_size_mb").read_text() == "1\n"


def test_prepare_shortens_the_periods_and_leaves_the_size(doors: dict[str, int], tmp_path: Path) -> None:
    ScanRate(doors).prepare()
    values = {name: (tmp_path / name).read_text() for name in SCAN_DOORS}
    assert values.pop("scan_size_mb") == ""
    assert all(0 < int(text) <= 1000 for text in values.values())
    assert int(values["scan_period_min_ms"]) <= int(values["scan_period_max_ms"])


def test_doors_that_are_not_there(tmp_path: Path) -> None:
    rate = ScanRate({})
    assert not rate.available
    rate.prepare()
    rate.set_size(256)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_tried_again(doors: dict[str, int], tmp_path: Path) -> None:
    """A value that the kernel did not take does not count as written."""
    closed = os.open(tmp_path / "scan_size_mb", os.O_RDONLY)
    rate = ScanRate({"scan_size_mb": closed})
    for _ in range(2):
        with pytest.raises(OSError, match="Bad file descriptor"):
            rate.set_size(9)
    os.close(closed)
