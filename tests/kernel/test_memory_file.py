"""Files that are memory: whole, unchangeable, and read only when they are what they should be."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from tierd.errors import MalformedError
from tierd.kernel import memory_file
from tierd.kernel.memory_file import read_memory_file, write_memory_file

PIECES = (memoryview(b"heat, "), memoryview(b""), memoryview(b"and more"))


@pytest.fixture
def descriptor() -> Iterator[int]:
    written = write_memory_file("test", PIECES)
    yield written
    os.close(written)


def test_what_was_written_is_read_however_often(descriptor: int) -> None:
    assert read_memory_file(descriptor, 14) == read_memory_file(descriptor, 14) == b"heat, and more"
    assert os.readlink(f"/proc/self/fd/{descriptor}") == "/memfd:test (deleted)"
    assert not os.get_inheritable(descriptor)


def test_nobody_changes_it_any_more(descriptor: int) -> None:
    for change in (
        lambda: os.pwrite(descriptor, b"H", 0),
        lambda: os.ftruncate(descriptor, 0),
        lambda: os.ftruncate(descriptor, 99),
    ):
        with pytest.raises(PermissionError):
            change()


def test_what_is_too_large_or_no_file_is_not_read(descriptor: int) -> None:
    with pytest.raises(MalformedError, match="it has 0 MiB, and 0 MiB is the most"):
        read_memory_file(descriptor, 13)
    reading, writing = os.pipe()
    try:
        with pytest.raises(MalformedError, match="no file"):
            read_memory_file(reading, 14)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_kernel_that_does_not_know_the_newest_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    create = os.memfd_create

    def older(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & 0x8:
            raise OSError(errno.EINVAL, "Invalid argument")
        return create(name, flags)

    monkeypatch.setattr(memory_file.os, "memfd_create", older)
    os.close(write_memory_file("test", PIECES))
    assert len(asked) == 2


def test_a_write_that_fails_leaves_no_descriptor() -> None:
    def pieces() -> Iterator[memoryview]:
        yield PIECES[0]
        raise MemoryError

    before = os.listdir("/proc/self/fd")
    with pytest.raises(MemoryError):
        write_memory_file("test", pieces())
    assert os.listdir("/proc/self/fd") == before
