"""Reading small kernel files, with the failures named: gone, denied, malformed; and writing tierd's own
whole."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tierd.errors import DeniedError, GoneError, MalformedError

_GONE = {errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.ENOTDIR}


_CHUNK: Final = 1 << 16


@contextlib.contextmanager
def named_errors(path: Path | str) -> Iterator[None]:
    """What the system refuses of `path` in the block is raised as GoneError, DeniedError or
    MalformedError."""
    try:
        yield
    except OSError as error:
        if error.errno in _GONE:
            raise GoneError(f"{path}: does not exist") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise DeniedError(f"{path}: permission denied") from error
        raise MalformedError(f"{path}: {error.strerror}") from error


def read_bytes(path: Path | str) -> bytes:
    """All that the file says. Raises GoneError, DeniedError, MalformedError."""
    # system calls, and no file object: that costs more than the kernel's answer does
    with named_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            chunks = []
            while chunk := os.read(descriptor, _CHUNK):
                chunks.append(chunk)
        finally:
            os.close(descriptor)
    return b"".join(chunks)


def read_text(path: Path | str) -> str:
    """The file's text; bytes that are not UTF-8 are replaced. Raises GoneError, DeniedError,
    MalformedError."""
    return read_bytes(path).decode("utf-8", errors="replace")


class OpenFile:
    """A small kernel file that is read again and again: for a `with` block, and a third of the price of
    opening it each time. Raises like read_text, and so does `read`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with named_errors(path):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self) -> bytes:
        """What it says now, up to 4096 bytes."""
        with named_errors(self.path):
            return os.pread(self._descriptor, 4096, 0)


def read_int(path: Path | str, base: int = 10) -> int:
    """The file's one integer. Raises like read_text."""
    text = read_text(path).strip()
    try:
        return int(text, base)
    except ValueError:
        raise MalformedError(f"{path}: expected a number, found {text[:40]!r}") from None


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content` from where the file stands. Raises OSError, also where nothing more is taken.

    For files of tierd's own, of which the system may take a part where a disk or a quota is full; a setting
    of the kernel is one write.
    """
    rest = memoryview(content)
    while rest:
        taken = os.write(descriptor, rest)
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[taken:]


def parse_list(text: str) -> tuple[int, ...]:
    """A kernel list such as ``0-3,7`` (nodes, CPUs) as numbers. Raises ValueError."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        if not part:
            continue
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)
