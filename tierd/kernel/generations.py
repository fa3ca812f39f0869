"""The multi-generational LRU of each cgroup and node: how long its pages have not been touched, and the
demotion of its oldest. Works on the descriptor of debugfs `lru_gen` that the helper opened."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tierd.errors import MalformedError

_MEMCG = re.compile(r" +(\d+) +(\S.*)$")
_NODE = re.compile(r"^ node +(\d+)$")
_SWAPPINESS_ANON_FIRST = 200
_SWAPPINESS_FILE_ONLY = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation. age: seconds since it was made; anon, file: pages of 4 KiB in it. What is in tmpfs
    counts as anonymous."""

    sequence: int
    age: float
    anon: int
    file: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """The generations of one cgroup on one node, oldest first. `memcg` is the kernel's number for it, which
    is not the inode up to 6.12 and is read from the file each time."""

    memcg: int
    cgroup: str
    node: int
    generations: tuple[Generation, ...]

    @property
    def youngest(self) -> int:
        return self.generations[-1].sequence


def parse(text: str, wanted: Callable[[str], bool] = lambda cgroup: True) -> tuple[Lineage, ...]:
    """debugfs `lru_gen` as values, of the cgroups whose path is `wanted`. Raises MalformedError."""
    lineages: list[Lineage] = []
    # a cgroup's name may hold anything but the newline; what belongs to it is indented
    before, *parts = ("\n" + text).split("\nmemcg")
    if before.strip("\n"):
        raise MalformedError(f"lru_gen: not a cgroup: {before.lstrip()[:60]!r}")
    for part in parts:
        first, _, rest = part.partition("\n")
        header = _MEMCG.match(first)
        if not header:
            raise MalformedError(f"lru_gen: not a cgroup: {first[:60]!r}")
        if wanted(header[2]):
            lineages += _lineages(int(header[1]), header[2], rest)
    return tuple(lineages)


def _lineages(memcg: int, cgroup: str, text: str) -> Iterator[Lineage]:
    node, generations = -1, list[Generation]()
    for line in text.split("\n"):
        if header := _NODE.match(line):
            if generations:
                yield Lineage(memcg, cgroup, node, tuple(generations))
            node, generations = int(header[1]), []
        elif line:
            fields = line.split()
            if len(fields) != 4:
                raise MalformedError(f"lru_gen: not a generation: {line[:60]!r}")
            sequence, age, anon, file = (_count(field) for field in fields)
            generations.append(Generation(sequence, age / 1000, anon, file))
    if generations:
        yield Lineage(memcg, cgroup, node, tuple(generations))


def _count(field: str) -> int:
    # counts are printed negative-safe, but a racing reader may see "-0" or a flag letter behind the number
    digits = re.match(r"-?\d+", field)
    if not digits:
        raise MalformedError(f"lru_gen: not a number: {field[:20]!r}")
    return max(0, int(digits[0]))


class Generations:
    """Reads and commands. Every call can last as long as a walk of the cgroup's page tables: engine thread
    only."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, wanted: Callable[[str], bool] = lambda cgroup: True) -> tuple[Lineage, ...]:
        """Every node of the cgroups whose path is `wanted`. Raises OSError, MalformedError."""
        chunks = []
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            while chunk := os.read(self._descriptor, 1 << 16):
                chunks.append(chunk)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "lru_gen") from None
        # as a walk of directories spells them: what is known of a cgroup is found by its path
        return parse(os.fsdecode(b"".join(chunks)), wanted)

    def age(self, lineage: Lineage) -> None:
        """Walk the page tables, take the accessed bits, and begin a new generation.
        Raises OSError: EINVAL (no longer the youngest, or the cgroup is gone), EEXIST (the kernel did)."""
        self._command(f"+ {lineage.memcg} {lineage.node} {lineage.youngest} 1 1")

    def demote(self, lineage: Lineage, sequence: int, pages: int, *, file: bool = False) -> None:
        """Demote at most `pages` pages of generations up to `sequence`, which is at least two below the
        youngest: anonymous memory and tmpfs, or page cache. Needs demotion_enabled; without it the kernel
        would reclaim. Raises OSError like age()."""
        swappiness = _SWAPPINESS_FILE_ONLY if file else _SWAPPINESS_ANON_FIRST
        self._command(f"- {lineage.memcg} {lineage.node} {sequence} {swappiness} {pages}")

    def _command(self, text: str) -> None:
        os.write(self._descriptor, text.encode("ascii") + b"\n")
