"""Head and tail of what a device holds: read, compared, and kept as files for a while."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tierd.core.capacity import round_up
from tierd.errors import DeniedError, TierdError
from tierd.kernel.files import named_errors

KEPT = Path("/var/lib/tierd/kept")
"""Root's own. systemd-tmpfiles takes away what is older than 30 days (systemd/tierd.tmpfiles)."""

INFO_BLOCK = 8192
"""Bytes from the start of a namespace that ndctl writes zeros over before it destroys it (ndctl/namespace.c,
zero_info_block)."""

_HEADERS = {b"NVDIMM_PFN_INFO\0": "pfn", b"NVDIMM_DAX_INFO\0": "dax", b"BTT_ARENA_INFO\0\0": "btt"}
"""drivers/nvdimm/pfn.h and btt.h. The first two are at 4 KiB, the last there or at the start."""


class KeepError(TierdError):
    """Head and tail could not be kept; nothing is left of the attempt."""


@dataclass(frozen=True, slots=True)
class Edges:
    """Bytes from the start and from the end of `size` bytes; they overlap where it is small."""

    head: bytes
    tail: bytes
    size: int

    @property
    def zeros(self) -> bool:
        """Whether there is nothing else in them."""
        return not any(len(part) - part.count(0) for part in (self.head, self.tail))

    @property
    def info_block(self) -> str:
        """A header of the kernel's in the head: ``pfn``, ``dax`` or ``btt``; else empty."""
        for at in (0, 4096):
            if kind := _HEADERS.get(self.head[at : at + 16]):
                return kind
        return ""


def read_edges(path: Path, start: int, size: int, edge: int, align: int | None = None) -> Edges:
    """The first and the last `edge` bytes of the `size` bytes at `start`.

    align: of a dax device, which can only be mapped; None for a block device or a file. A dax device with
    media errors must not be read: the reader would be killed. Raises GoneError, DeniedError, MalformedError.
    """
    length = min(edge, size)
    with named_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = _read(descriptor, start, length, align)
            tail = _read(descriptor, start + size - length, length, align)
        finally:
            os.close(descriptor)
    return Edges(head, tail, size)


def _read(descriptor: int, start: int, length: int, align: int | None) -> bytes:
    if align is not None:
        first = start // align * align
        whole = round_up(start + length - first, align)
        with mmap.mmap(descriptor, whole, mmap.MAP_SHARED, mmap.PROT_READ, offset=first) as mapped:
            return mapped[start - first : start - first + length]
    found = bytearray()
    while len(found) < length:
        chunk = os.pread(descriptor, length - len(found), start + len(found))
        if not chunk:
            raise OSError(0, f"ends after {start + len(found)} bytes")
        found += chunk
    return bytes(found)


def unchanged(kept: Edges, now: Edges, start: int) -> bool:
    """Whether `now` is what was kept, but for zeros where ndctl writes them; `start`: where the data begins
    in its namespace."""
    if (kept.size, len(kept.head), len(kept.tail)) != (now.size, len(now.head), len(now.tail)):
        return False
    cleared = max(0, INFO_BLOCK - start)
    ahead = now.head[:cleared]
    return (
        now.head[cleared:] == kept.head[cleared:]
        and now.tail == kept.tail
        and (ahead == kept.head[:cleared] or not any(ahead))
    )


def keep(directory: Path, name: str, edges: Edges, about: Mapping[str, object]) -> tuple[Path, ...]:
    """Write ``NAME.head``, ``NAME.tail`` and ``NAME.json`` below `directory`, down to the disk; the files.
    Raises KeepError."""
    text = json.dumps({**about, "size": edges.size}, indent=2).encode() + b"\n"
    parts = {"head": edges.head, "tail": edges.tail, "json": text}
    made: list[Path] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for suffix, content in parts.items():
            path = directory / f"{name}.{suffix}"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            made.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        forget(made)
        words = f"head and tail cannot be kept in {directory}: {error.strerror}"
        raise KeepError(f"{words}; nothing is destroyed that is not kept") from error
    return tuple(made)


def forget(files: Iterable[Path]) -> None:
    """Remove what was kept for a step that was not taken. Raises nothing."""
    for path in files:
        with contextlib.suppress(OSError):
            path.unlink()


def read_kept(directory: Path, name: str) -> Edges | None:
    """What was kept as `name`; None when it is not there. Raises DeniedError."""
    try:
        about = json.loads((directory / f"{name}.json").read_bytes())
        head, tail = ((directory / f"{name}.{part}").read_bytes() for part in ("head", "tail"))
        return Edges(head, tail, int(about["size"]))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise DeniedError(f"{directory}: {error.strerror}") from error
    except (OSError, ValueError, KeyError, TypeError):
        return None  # cut short: the run ended before it could do harm


def room_in(directory: Path) -> int | None:
    """Bytes that may still be written below `directory`, which need not exist; None when nobody tells."""
    for place in (directory, *directory.parents):
        try:
            found = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return found.f_bavail * found.f_frsize
    return None
