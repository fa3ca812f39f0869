"""What a heat map knows, as arrays by name: what one run of the daemon leaves to the next.

The next one knows the processes by other slots, and nobody has seen who used what between the two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tierd.core.table import Keys, Table

Arrays = Mapping[str, npt.NDArray[np.generic]]
"""``TABLE.COLUMN`` for what has a length of its own, all columns of a table the same; a plain name for what
always has one length."""


@dataclass(frozen=True, slots=True)
class Passage:
    """From one run to the next. before: the slots of the processes that are still there, in rising order;
    after: those that they have now; int64, of one length. seconds: added to all times, for what nobody
    looked at neither ages nor waits."""

    before: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    seconds: float

    def follow(self, keys: Keys, bits: np.uint64) -> tuple[Keys, npt.NDArray[np.bool_]]:
        """The keys of those processes' pages with the slots of now, and which of `keys` they are. bits:
        below the slot in a key."""
        slots = (keys >> bits).astype(np.int64)
        place = np.searchsorted(self.before, slots).clip(max=max(0, len(self.before) - 1))
        there = self.before[place] == slots if len(self.before) else np.zeros(len(keys), dtype=np.bool_)
        low = keys[there] & ((np.uint64(1) << bits) - np.uint64(1))
        return self.after[place[there]].astype(np.uint64) << bits | low, there


def dump_table(name: str, table: Table) -> dict[str, npt.NDArray[np.generic]]:
    """All that the table holds, as columns of `name`."""
    places = table.occupied
    columns = {f"{name}.{column}": values[places] for column, values in table.columns.items()}
    return {f"{name}.keys": table.keys[places], **columns}


def load_table(
    name: str, table: Table, arrays: Arrays, passage: Passage, bits: np.uint64, times: Collection[str]
) -> None:
    """Fill the table with what `dump_table` has made of another one. bits: as `Passage.follow` has it.
    times: the columns that are times."""
    keys, there = passage.follow(arrays[f"{name}.keys"].astype(np.uint64), bits)
    columns = {column: arrays[f"{name}.{column}"][there] for column in table.columns}
    for column in times:
        columns[column] = columns[column].astype(np.float64) + passage.seconds
    table.fill(keys, columns)
