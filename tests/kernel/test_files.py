"""Small kernel files: what is read again is what they say now. Files of tierd's own: whole, or an error."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.fixtures import MIB, Machine
from tierd.errors import DeniedError, GoneError, MalformedError
from tierd.kernel.drained import mark_drained, read_drained
from tierd.kernel.files import OpenFile, write_all
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


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may become larger than `size` bytes meanwhile: what a disk that is full does, a write that
    crosses it is short, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def short_writes(patch: pytest.MonkeyPatch, most: int) -> None:
    write = os.write
    patch.setattr(os, "write", lambda descriptor, content: write(descriptor, bytes(content[:most])))


def test_a_write_is_continued_until_all_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 3
    with (tmp_path / "it").open("wb") as file, monkeypatch.context() as patch:
        short_writes(patch, 100)
        write_all(file.fileno(), content)
        assert (tmp_path / "it").read_bytes() == content
        patch.setattr(os, "write", lambda *_: 0)
        with pytest.raises(OSError) as raised:
            write_all(file.fileno(), content)
        assert raised.value.errno == errno.ENOSPC
    with (tmp_path / "it").open("wb") as file, room_for(500), pytest.raises(OSError):
        write_all(file.fileno(), content)


def test_what_is_drained_is_remembered_whole_or_as_it_was(tmp_path: Path) -> None:
    mark_drained(tmp_path, frozenset({1}), None)
    with room_for(150), pytest.raises(DeniedError):
        mark_drained(tmp_path, frozenset(range(1, 9)), None)
    assert [entry.iset_id for entry in read_drained(tmp_path)] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["drained.json"]
