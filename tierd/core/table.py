"""A hash table of 64-bit keys with columns of numbers, in numpy: thousands of keys a call, no loop per
key."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[np.generic]]

_EMPTY: Final = np.uint64(0)
_GOLDEN_RATIO: Final = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / phi, Knuth's multiplicative hashing (TAOCP 6.4)."""
FULLEST: Final = 0.6
"""Load above which linear probing gets slow: expected probes for a miss (1 + 1/(1-a)^2)/2 are 3.6 here."""
_ROOMY: Final = 0.5
"""Load that `keep` leaves at most, so that the next insert() need not rebuild the table at once."""
_PIECE: Final = 1 << 16
_AHEAD: Final = np.arange(1, 9)
"""Places after the one just seen that are looked at together: few searches go further."""


class Table:
    """Open addressing with linear probing. Key 0 is not allowed. Columns are arrays of the table's capacity;
    a place (index into them) holds until the next insert() or keep()."""

    def __init__(self, columns: dict[str, npt.DTypeLike], capacity: int = 1 << 12) -> None:
        self._types = columns
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self._shift = np.uint64(64 - (capacity.bit_length() - 1))
        self._mask = np.int64(capacity - 1)
        self.keys: Keys = np.zeros(capacity, dtype=np.uint64)
        self.columns: Columns = {name: np.zeros(capacity, dtype=kind) for name, kind in self._types.items()}
        self.used = 0

    def __len__(self) -> int:
        return self.used

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        return self.keys.nbytes + sum(column.nbytes for column in self.columns.values())

    @property
    def occupied(self) -> Places:
        """Places that hold a key."""
        return np.flatnonzero(self.keys)

    def _first_place(self, keys: Keys) -> Places:
        return ((keys * _GOLDEN_RATIO) >> self._shift).astype(np.int64)

    def _search(self, keys: Keys) -> tuple[Places, npt.NDArray[np.bool_]]:
        """For each key the place where it is, or the empty one where it would be, and which of the two."""
        places = self._first_place(keys)
        there = self.keys[places]
        found = there == keys
        pending = np.flatnonzero(~found & (there != _EMPTY))
        while len(pending):
            window = (places[pending, None] + _AHEAD) & self._mask
            there = self.keys[window]
            same = there == keys[pending, None]
            ends = same | (there == _EMPTY)
            rows, first = np.arange(len(pending)), ends.argmax(axis=1)
            ended = ends[rows, first]
            places[pending] = np.where(ended, window[rows, first], window[:, -1])
            found[pending] = same[rows, first]
            pending = pending[~ended]
        return places, found

    def find(self, keys: Keys) -> Places:
        """The place of each key, -1 where the key is not there."""
        places, found = self._search(keys)
        places[~found] = -1
        return places

    def insert(self, keys: Keys) -> tuple[Places, npt.NDArray[np.bool_]]:
        """The place of each of `keys`, which are distinct, and whether it is new (columns then hold 0)."""
        while self.used + len(keys) > FULLEST * len(self.keys):
            self._rebuild(self.occupied, 2 * len(self.keys))
        places, found = self._search(keys)
        new = ~found
        pending = np.flatnonzero(new)
        self.used += len(pending)
        while len(pending):
            # several keys may want one empty place: the last write stays, and the others look on
            self.keys[places[pending]] = keys[pending]
            pending = pending[self.keys[places[pending]] != keys[pending]]
            places[pending], _ = self._search(keys[pending])
        return places, new

    def keep(self, places: Places) -> None:
        """Forget every key but those at `places`; the table shrinks when it can."""
        self.fill(self.keys[places], self._columns_at(places))

    def fill(self, keys: Keys, columns: Columns) -> None:
        """Hold `keys`, which are distinct, with these columns, in place of all that it held."""
        capacity = 1 << 12
        while len(keys) > _ROOMY * capacity:
            capacity *= 2
        self._fill(keys, columns, capacity)

    def _columns_at(self, places: Places) -> Columns:
        return {name: column[places] for name, column in self.columns.items()}

    def _rebuild(self, places: Places, capacity: int) -> None:
        self._fill(self.keys[places], self._columns_at(places), capacity)

    def _fill(self, keys: Keys, columns: Columns, capacity: int) -> None:
        self._allocate(capacity)
        # in pieces, for the places that are looked for take several times the memory of their keys
        for start in range(0, len(keys), _PIECE):
            piece = slice(start, start + _PIECE)
            new_places, _ = self.insert(keys[piece])
            for name, column in columns.items():
                self.columns[name][new_places] = column[piece]
