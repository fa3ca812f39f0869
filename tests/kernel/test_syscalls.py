"""The system calls that Python lacks, asked of the kernel that runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tierd.kernel.syscalls import device_number


def test_the_number_of_a_device_is_that_of_stat(tmp_path: Path) -> None:
    null = os.stat("/dev/null").st_rdev
    assert device_number("/dev/null") == f"{os.major(null)}:{os.minor(null)}"
    with open("/dev/null") as opened:
        assert device_number(f"/proc/self/fd/{opened.fileno()}") == device_number("/dev/null")
    file = tmp_path / "file"
    file.touch()
    assert device_number(file) == device_number(tmp_path) == ""
    with pytest.raises(FileNotFoundError, match="gone"):
        device_number(tmp_path / "gone")
    with open(file) as opened:
        file.unlink()
        assert device_number(f"/proc/self/fd/{opened.fileno()}") == ""
