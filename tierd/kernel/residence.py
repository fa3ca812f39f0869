"""Where pages of a process lie, whether or not anybody uses them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.model import PAGE_SIZE, ProcessId
from tierd.errors import DeniedError, GoneError
from tierd.kernel.files import read_text
from tierd.kernel.huge_pages import open_pagemap
from tierd.kernel.page_calls import query_nodes
from tierd.kernel.paths import Root
from tierd.kernel.processes import same_process

Pages = npt.NDArray[np.uint64]
Nodes = npt.NDArray[np.int32]

_PIECE: Final = 1 << 15
"""Pages looked at in one step: milliseconds."""
_PRESENT: Final = np.uint64(1 << 63)
"""Documentation/admin-guide/mm/pagemap.rst"""
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ", re.MULTILINE)
_USABLE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (?!---)\S+ (?!\S+ \S+ \S+ +\[v)", re.MULTILINE)
"""What may be used in some way, without the pages that the kernel gives to every process."""
_ON_NODES = re.compile(r"^([0-9a-f]+) (\S+) (.*)$", re.MULTILINE)
_ANYWHERE = ("default", "local")
"""Memory policies of numa_maps under which nobody has said on which nodes the pages are to lie."""
_LOCKED = re.compile(r"^VmLck:\s+(\d+) kB$", re.MULTILINE)
_LOCKED_MAPPING = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) [^\n]*\n(?:[A-Z][^\n]*\n)*?VmFlags:[^\n]* lo\b", re.MULTILINE
)
_NODE = re.compile(r"\bN(\d+)=")
_PAGES_ON = re.compile(r"\bN(\d+)=(\d+)")
_PAGE_KILOBYTES = re.compile(r"\bkernelpagesize_kB=(\d+)")


@dataclass(frozen=True, slots=True)
class Resident:
    """pages: their numbers, in order. next: the number of the page to go on with, 0 when the end was
    reached."""

    pages: Pages = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    next: int = 0


def pages_on(
    root: Root, process: ProcessId, nodes: Collection[int], *, first: int, most: int, seconds: float
) -> Resident:
    """The pages of `process` from number `first` on that lie on `nodes`: about `most`, or what is found in
    about `seconds`. numa_maps tells which mappings have any there, move_pages(2) which pages. Without those
    whose place the owner has chosen: mbind(2), numactl, mlock(2), hugetlbfs.

    Raises GoneError when it has ended, DeniedError. Called by the engine for what a class is owed, and for
    what it has too much.
    """
    begun, found, count = time.monotonic(), [Resident().pages], 0
    if not same_process(root, process):
        raise GoneError(f"process {process.pid} has ended")
    try:
        with open_pagemap(root, process.pid) as pagemap:
            for start, end in _pieces(root, process.pid, nodes, first):
                if count >= most or time.monotonic() - begun >= seconds:
                    return Resident(np.concatenate(found), start)
                there = _present(pagemap, start, end)
                where = query_nodes(process.pid, there << np.uint64(PAGE_SIZE.bit_length() - 1))
                found.append(there[np.isin(where, list(nodes))])
                count += len(found[-1])
    except PermissionError as error:
        raise DeniedError(f"process {process.pid}: {error.strerror}") from None
    except OSError as error:
        raise GoneError(f"process {process.pid}: {error.strerror}") from None
    return Resident(np.concatenate(found))


def mapped_ranges(root: Root, pid: int) -> list[tuple[int, int]]:
    """Page numbers [start, end) of the mappings of a process that may be used, in order: what is reserved
    alone (PROT_NONE), often terabytes, is none. Raises GoneError, DeniedError, MalformedError."""
    return [
        (int(start, 16) // PAGE_SIZE, int(end, 16) // PAGE_SIZE)
        for start, end in _USABLE.findall(read_text(root.proc / str(pid) / "maps"))
    ]


def locked_ranges(root: Root, pid: int) -> list[tuple[int, int]]:
    """Page numbers [start, end) of the mappings of a process that are locked into memory, in order; smaps is
    long to read, and few processes lock. Raises GoneError, DeniedError, MalformedError."""
    locked = _LOCKED.search(read_text(root.proc / str(pid) / "status"))
    if locked is None or not int(locked[1]):
        return []
    return [
        (int(start, 16) // PAGE_SIZE, int(end, 16) // PAGE_SIZE)
        for start, end in _LOCKED_MAPPING.findall(read_text(root.proc / str(pid) / "smaps"))
    ]


def nodes_of(root: Root, process: ProcessId, pages: Pages) -> Nodes:
    """The node of each page, below 0 where there is none. Milliseconds for 10,000 pages.

    Raises GoneError when the process has ended, DeniedError. Called for the heat of a process.
    """
    try:
        found = query_nodes(process.pid, pages << np.uint64(PAGE_SIZE.bit_length() - 1))
    except PermissionError as error:
        raise DeniedError(f"process {process.pid}: {error.strerror}") from None
    except OSError as error:
        raise GoneError(f"process {process.pid}: {error.strerror}") from None
    # asked after the fact: its number may be another's by now
    if not same_process(root, process):
        raise GoneError(f"process {process.pid} has ended")
    return found


def bytes_by_node(root: Root, pid: int) -> dict[int, int]:
    """Bytes of a process on each node, as numa_maps counts them: memory that several map counts for each.
    Raises GoneError, DeniedError, MalformedError."""
    found: dict[int, int] = {}
    for line in read_text(root.proc / str(pid) / "numa_maps").splitlines():
        if kilobytes := _PAGE_KILOBYTES.search(line):
            for node, pages in _PAGES_ON.findall(line):
                amount = int(pages) * int(kilobytes[1]) * 1024
                found[int(node)] = found.get(int(node), 0) + amount
    return found


def _pieces(root: Root, pid: int, nodes: Collection[int], first: int) -> Iterator[tuple[int, int]]:
    """Ranges of page numbers, at most _PIECE long, of the mappings with pages on `nodes`."""
    # as numbers: numa_maps has no leading zeros, and maps has some
    holding = {
        int(start, 16)
        for start, policy, rest in _ON_NODES.findall(read_text(root.proc / str(pid) / "numa_maps"))
        if policy in _ANYWHERE
        and " huge " not in f" {rest} "
        and any(int(node) in nodes for node in _NODE.findall(rest))
    }
    holding -= {start * PAGE_SIZE for start, _ in locked_ranges(root, pid)}
    for start, end in _MAPPING.findall(read_text(root.proc / str(pid) / "maps")):
        if int(start, 16) in holding:
            last = int(end, 16) // PAGE_SIZE
            for page in range(max(first, int(start, 16) // PAGE_SIZE), last, _PIECE):
                yield page, min(page + _PIECE, last)


def _present(pagemap: int, start: int, end: int) -> Pages:
    data = os.pread(pagemap, 8 * (end - start), 8 * start)
    entries = np.frombuffer(data[: len(data) // 8 * 8], dtype="<u8")
    return np.flatnonzero(entries & _PRESENT).astype(np.uint64) + np.uint64(start)
