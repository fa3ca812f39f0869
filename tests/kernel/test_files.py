"""Small kernel files: what is read again is what they say now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kernel.fixtures import MIB, Machine
from tierd.errors import GoneError, MalformedError
from tierd.kernel.files import OpenFile
from tierd.kernel.topology import free_in, free_memory


def test_free_memory_is_read_anew_from_one_open_file(tmp_path: Path) -> None:
    machine = Machine(tmp_path).write()
    with free_memory(machine.root, 0) as meminfo:
        for free in (700 * MIB, 3 * MIB, 0):
            machine.write_free(0, free)
            assert free_in(meminfo) == free
        machine.put(meminfo.path, "Node 0 MemTotal: 5 kB\n")
        with pytest.raises(MalformedError, match="MemFree"):
            free_in(meminfo)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GoneError, match="nothing"):
        OpenFile(tmp_path / "nothing")


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = len(os.listdir("/proc/self/fd"))
    with OpenFile(tmp_path / "file") as file:
        assert file.read() == b"x"
    assert len(os.listdir("/proc/self/fd")) == before
