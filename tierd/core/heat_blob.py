"""What a heat map knows as bytes, for the next run of the daemon, and what they must agree in with it.

A head (magic, version, checksum, two lengths), a header in JSON, and the arrays that it lists, one after the
other. Bytes of another version, boot, source or half-life are refused and never converted: a heat map learns
in a minute what it knew.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tierd.core.model import PAGE_SIZE, ProcessId
from tierd.core.remembered import Arrays, Passage
from tierd.core.text import clean
from tierd.errors import MalformedError

VERSION: Final = 2
"""To be raised with every change of what a heat map dumps, and of what its numbers mean."""
MOST_HALF_LIVES: Final = 8
"""Age at which all is refused: a page not seen for so long is forgotten, too."""

_HEAD: Final = struct.Struct("=12sIIIQ")
_MAGIC: Final = b"tierd heat\n\0"
_SLOT, _PID, _START = "processes.slot", "processes.pid", "processes.start"


@dataclass(frozen=True, slots=True)
class Origin:
    """What the numbers depend on. boot: the kernel's number of this boot. source: of accesses, as operators
    know it. evidence: of the heat map."""

    boot: str
    source: str
    evidence: Mapping[str, float]

    def header(self) -> dict[str, Any]:
        return {
            "boot": self.boot,
            "source": self.source,
            "evidence": dict(self.evidence),
            "page_size": PAGE_SIZE,
        }


@dataclass(frozen=True, slots=True)
class Left:
    """What another run has left. when: it ended, in seconds of the monotonic clock."""

    when: float
    slots: npt.NDArray[np.int64]
    processes: tuple[ProcessId, ...]
    arrays: Arrays

    def passage(self, slot_of: Mapping[ProcessId, int], now: float, half_life: float) -> Passage:
        """To a run that began at `now`. slot_of: the processes that are placed now. A half-life of the time
        between counts for nothing, for nobody looked; for what is beyond, heat ages as it always does."""
        there = [
            (int(slot), slot_of[process])
            for slot, process in zip(self.slots, self.processes, strict=True)
            if process in slot_of
        ]
        pairs = np.array(sorted(there), dtype=np.int64).reshape(-1, 2)
        return Passage(pairs[:, 0], pairs[:, 1], max(0.0, min(now - self.when, half_life)))


def pack(
    origin: Origin, when: float, processes: Mapping[int, ProcessId], arrays: Arrays
) -> tuple[memoryview, ...]:
    """The bytes, in pieces. when: now. processes: by slot."""
    slots = sorted(processes)
    columns = {
        _SLOT: np.array(slots, dtype=np.int64),
        _PID: np.array([processes[slot].pid for slot in slots], dtype=np.int64),
        _START: np.array([processes[slot].start for slot in slots], dtype=np.int64),
    }
    # the widest first: none of them then lies across its own alignment
    ordered = sorted({**columns, **arrays}.items(), key=lambda item: -item[1].itemsize)
    listed = [[name, array.dtype.str, len(array)] for name, array in ordered]
    header = json.dumps({**origin.header(), "when": when, "arrays": listed}).encode()
    header += b" " * (-(len(header) + _HEAD.size) % 8)
    pieces = (memoryview(header), *(_bytes_of(array) for _, array in ordered))
    size = sum(piece.nbytes for piece in pieces)
    head = _HEAD.pack(_MAGIC, VERSION, _checksum(pieces), len(header), size)
    return memoryview(head), *pieces


def unpack(blob: bytes, origin: Origin, expected: Arrays, now: float) -> Left:
    """What `pack` has made bytes of. expected: what a heat map dumps that knows nothing. Raises
    MalformedError, with the reason as a clause, for whatever is of no use to that one."""
    if len(blob) < _HEAD.size:
        raise MalformedError("it is not whole")
    magic, version, checksum, header_size, size = _HEAD.unpack_from(blob)
    if magic != _MAGIC:
        raise MalformedError("it is something else")
    if version != VERSION:
        raise MalformedError(f"it is of version {version}, and this tierd takes version {VERSION}")
    if len(blob) != _HEAD.size + size or header_size > size:
        raise MalformedError("it is not whole")
    content = memoryview(blob)[_HEAD.size :]
    if _checksum((content,)) != checksum:
        raise MalformedError("its checksum is wrong")
    try:
        header = json.loads(bytes(content[:header_size]))
        _compare(header, origin.header())
        when = float(header["when"])
        arrays = _arrays(content[header_size:], header["arrays"])
        slots = arrays.pop(_SLOT).astype(np.int64)
        numbers = (arrays.pop(name).astype(np.int64).tolist() for name in (_PID, _START))
        processes = tuple(ProcessId(pid, start) for pid, start in zip(*numbers, strict=True))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise MalformedError("it is of another build of tierd") from None
    if not _alike(arrays, expected) or len(slots) != len(processes):
        raise MalformedError("it is of another build of tierd")
    _check_age(now - when, float(origin.evidence["half-life"]))
    return Left(when, slots, processes, arrays)


def _compare(header: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if header["boot"] != wanted["boot"]:
        raise MalformedError("it is of another boot")
    if header["source"] != wanted["source"]:
        raise MalformedError(f"it is of {clean(header['source'])}, and {wanted['source']} is used now")
    if header["page_size"] != wanted["page_size"]:
        raise MalformedError("it is of pages of another size")
    for name, value in wanted["evidence"].items():
        if (before := float(header["evidence"][name])) != value:
            raise MalformedError(f"its {name} is {before:g}, and {value:g} is used now")


def _check_age(age: float, half_life: float) -> None:
    # written so that a NaN is refused, too
    if not 0 <= age <= MOST_HALF_LIVES * half_life:
        raise MalformedError(f"it is {age:.0f} seconds old")


def _arrays(content: memoryview, listed: Sequence[Any]) -> dict[str, npt.NDArray[np.generic]]:
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    offset = 0
    for name, kind, length in listed:
        arrays[name] = np.frombuffer(content, np.dtype(kind), length, offset)
        offset += arrays[name].nbytes
    if offset != len(content):
        raise ValueError("more bytes than arrays")
    return arrays


def _alike(arrays: Arrays, expected: Arrays) -> bool:
    """Whether these are the arrays that the heat map takes: names, types, and lengths that fit together."""
    if arrays.keys() != expected.keys():
        return False
    if any(arrays[name].dtype != expected[name].dtype for name in arrays):
        return False
    lengths: dict[str, int] = {}
    for name, array in arrays.items():
        table, dot, _ = name.partition(".")
        length = lengths.setdefault(table, len(array)) if dot else len(expected[name])
        if len(array) != length:
            return False
    return True


def _bytes_of(array: npt.NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).view(np.uint8).data


def _checksum(pieces: Iterable[memoryview]) -> int:
    found = 0
    for piece in pieces:
        found = zlib.crc32(piece, found)
    return found
