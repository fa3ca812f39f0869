"""The table against a dict that does the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tierd.core.table import Table

# few distinct keys, so that finds hit; the multiples of 2^52 and the largest look alike to a weak hash
KEYS = st.one_of(
    st.integers(1, 40),
    st.integers(1, 40).map(lambda n: n << 52),
    st.sampled_from([(1 << 64) - 1, 1 << 63, (1 << 63) - 1]),
)
KEY_LISTS = st.lists(KEYS, unique=True, max_size=30)


def array(keys: list[int]) -> np.ndarray:
    return np.array(keys, dtype=np.uint64)


class AgainstDict(RuleBasedStateMachine):
    """Any sequence of calls leaves the table with what the dict holds."""

    def __init__(self) -> None:
        super().__init__()
        # the smallest table, so that it is nearly full, probes wrap around, and it has to grow
        self.table = Table({"value": np.float64, "count": np.int32}, capacity=8)
        self.model: dict[int, float] = {}
        self.next_value = 1.0

    @rule(keys=KEY_LISTS)
    def insert(self, keys: list[int]) -> None:
        places, new = self.table.insert(array(keys))
        assert [bool(flag) for flag in new] == [key not in self.model for key in keys]
        assert len(set(places.tolist())) == len(keys)
        values, counts = self.table.columns["value"], self.table.columns["count"]
        assert not values[places[new]].any(), "columns of a new key hold 0"
        for key, place in zip(keys, places, strict=True):
            self.model[key] = self.next_value
            values[place] = self.next_value
            counts[place] = int(self.next_value) % 1000
            self.next_value += 1

    @rule(keys=KEY_LISTS)
    def find(self, keys: list[int]) -> None:
        for key, place in zip(keys, self.table.find(array(keys)), strict=True):
            assert (place >= 0) == (key in self.model)
            if place >= 0:
                assert self.table.keys[place] == key

    @rule(keep=st.data())
    def keep_some(self, keep: st.DataObject) -> None:
        kept = keep.draw(st.lists(st.sampled_from(sorted(self.model)), unique=True)) if self.model else []
        self.table.keep(self.table.find(array(kept)))
        self.model = {key: self.model[key] for key in kept}

    @invariant()
    def the_same_as_the_dict(self) -> None:
        assert len(self.table) == len(self.model) == len(self.table.occupied)
        keys = list(self.model)
        places = self.table.find(array(keys))
        assert (places >= 0).all()
        assert self.table.columns["value"][places].tolist() == list(self.model.values())
        assert self.table.columns["count"][places].tolist() == [int(v) % 1000 for v in self.model.values()]


TestAgainstDict = AgainstDict.TestCase
TestAgainstDict.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_many_keys_at_once() -> None:
    """Page numbers in a row, as they come, by the hundred thousand."""
    table = Table({"value": np.int64})
    keys = np.arange(1, 200_001, dtype=np.uint64) + np.uint64(0x7F0000000)
    places, new = table.insert(keys)
    table.columns["value"][places] = np.arange(200_000)
    assert new.all() and len(table) == 200_000
    shuffled = np.random.default_rng(5).permutation(200_000)
    assert (table.columns["value"][table.find(keys[shuffled])] == shuffled).all()
    assert (table.find(keys + np.uint64(1 << 30)) == -1).all()


def test_it_shrinks_when_it_can() -> None:
    table = Table({"value": np.float64})
    empty = table.nbytes
    table.insert(np.arange(1, 100_001, dtype=np.uint64))
    grown = table.nbytes
    assert grown > 10 * empty
    table.keep(table.find(array([7, 8, 9])))
    assert len(table) == 3 and table.nbytes <= empty


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3000))
def test_memory_grows_with_what_is_in_it(count: int) -> None:
    table = Table({"value": np.float64}, capacity=64)
    table.insert(np.arange(1, count + 1, dtype=np.uint64))
    assert table.nbytes <= max(64, 8 * count) * 16


def test_nothing() -> None:
    table = Table({"value": np.float64})
    places, new = table.insert(array([]))
    assert len(places) == len(new) == len(table.find(array([]))) == len(table.occupied) == 0


@pytest.mark.parametrize("count", [5, 300])
def test_keys_that_all_want_one_place(count: int) -> None:
    """Keys made with the inverse of the hash's factor, so that every one starts its search at place 0."""
    inverse = pow(0x9E3779B97F4A7C15, -1, 1 << 64)
    keys = array([(n * inverse) % (1 << 64) for n in range(1, count + 1)])
    table = Table({"value": np.int64}, capacity=1024)
    places, new = table.insert(keys)
    table.columns["value"][places] = np.arange(count)
    assert new.all()
    assert table.columns["value"][table.find(keys)].tolist() == list(range(count))
