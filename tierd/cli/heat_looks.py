"""A process looked at again and again, and what was seen as a grid of address against time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from tierd.cli import Exit
from tierd.cli.client import ClientError
from tierd.cli.render import plain

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Areas = list[tuple[int, int]]

SHORTEST_INTERVAL: Final = 2.0
"""Seconds from one look to the next: each takes time of the engine."""
MOST_LOOKS: Final = 150
"""More columns than that are narrow; of a long time, looks are further apart."""
BINS: Final = 256
MOST_LINES: Final = 512
"""Of the grid: twice as many as the bins of a look, whose bounds differ from look to look."""


class HeatClient(Protocol):
    """The daemon, as seen from here."""

    def heat(self, pid: int, bins: int) -> list[dict[str, Any]]:
        """Raises ClientError."""


@dataclass(frozen=True, slots=True)
class Look:
    """time: seconds since 1970. rows: as `render.plain` makes them of GetHeat's."""

    time: float
    rows: Sequence[Mapping[str, Any]]


def watch(
    client: HeatClient,
    pid: int,
    seconds: float,
    tell: Callable[[float], None],
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[list[Look], str]:
    """What is seen of a process in so many seconds, and why it was fewer, in words; empty when it was not.
    tell(seconds): that so many are over. Raises ClientError when the first look fails."""
    interval = max(SHORTEST_INTERVAL, seconds / (MOST_LOOKS - 1))
    begun, looks = clock(), list[Look]()
    for number in range(int(seconds / interval) + 1):
        sleep(max(0.0, begun + number * interval - clock()))
        tell(number * interval)
        try:
            looks.append(Look(clock(), plain(client.heat(pid, BINS))))
        except ClientError as error:
            if not looks:
                raise
            # an engine that was busy for once leaves a gap; anything else is the end of it
            if error.status is not Exit.TIMED_OUT:
                return looks, str(error)
    sleep(max(0.0, begun + seconds - clock()))
    return looks, ""


@dataclass(frozen=True, slots=True)
class HeatGrid:
    """What was seen, by line (the lowest address first) and look. times: of each look, seconds since 1970.
    areas: ranges of addresses, in order, with gaps between; the lines divide their sum into equal parts.
    rate: accesses a second, NaN where none is known. share: of what is there, in DRAM, 0 to 1; NaN where
    that is not known. there: whether anything is. remembered: whether most of the known rates are from
    before tierd promoted the pages."""

    times: tuple[float, ...]
    areas: Areas
    rate: Floats
    share: Floats
    there: Mask
    remembered: Mask

    @property
    def bytes(self) -> int:
        """Of all areas."""
        return sum(end - start for start, end in self.areas)


def grid(looks: Sequence[Look]) -> HeatGrid:
    """looks: one at least."""
    areas = _joined((row["start"], row["end"]) for look in looks for row in look.rows)
    centres = _centres(areas)
    columns = [_column(look.rows, centres) for look in looks]
    rate, share, there, remembered = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    times = tuple(look.time for look in looks)
    return HeatGrid(times, areas, rate, share, there.astype(np.bool_), remembered.astype(np.bool_))


def _joined(ranges: Iterable[tuple[int, int]]) -> Areas:
    """The same addresses in as few ranges as there can be, in order."""
    found: Areas = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _centres(areas: Areas) -> npt.NDArray[np.int64]:
    """The address in the middle of each line."""
    if not areas:
        return np.empty(0, dtype=np.int64)
    start, end = np.array(areas, dtype=np.int64).T
    before = np.concatenate([[0], np.cumsum(end - start)])
    lines = min(MOST_LINES, int(before[-1]))
    at = (2 * np.arange(lines) + 1) * (before[-1] / (2 * lines))
    area = np.searchsorted(before, at, side="right") - 1
    found: npt.NDArray[np.int64] = start[area] + (at - before[area]).astype(np.int64)
    return found


def _column(
    rows: Sequence[Mapping[str, Any]], centres: npt.NDArray[np.int64]
) -> tuple[Floats, Floats, Floats, Floats]:
    """rate, share, there and remembered of each line, the last two as 0 and 1."""
    nothing = {"start": 0, "end": 0, "pages": 0, "known_pages": 0}
    known = [nothing, *rows]  # below the first row there is nothing

    def of(value: Callable[[Mapping[str, Any]], float]) -> Floats:
        return np.array([value(row) for row in known], dtype=np.float64)

    start = np.array([row["start"] for row in known], dtype=np.int64)
    end = np.array([row["end"] for row in known], dtype=np.int64)
    place = np.searchsorted(start, centres, side="right") - 1
    place[centres >= end[place]] = 0
    pages = of(lambda row: row.get("pages", 1))
    dram = of(lambda row: row.get("dram_pages", np.nan))
    return (
        of(lambda row: row.get("rate", np.nan))[place],
        (dram / np.where(pages > 0, pages, np.nan))[place],
        (pages > 0)[place].astype(np.float64),
        of(lambda row: 2 * row.get("remembered_pages", 0) > row["known_pages"])[place],
    )
