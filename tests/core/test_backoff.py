"""What was refused is left alone, ever longer, and comes back; the memory of it is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierd.core.backoff import (
    FIRST_WAIT,
    LONGEST_WAIT,
    BackOff,
    failed_ranges,
    key_pages,
    key_slots,
    process_keys,
    range_keys,
)

SLOTS = st.integers(1, (1 << 18) - 1)
PAGES = st.integers(0, (1 << 44) - 1)  # user addresses of five-level paging


def keys(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64)


def slots(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@given(SLOTS, PAGES)
def test_a_key_says_which_range_of_which_process(slot: int, page: int) -> None:
    key = range_keys(slots(slot), keys(page))
    assert key_slots(key).tolist() == [slot]
    assert key_pages(key).tolist() == [page // 512 * 512]
    assert key != process_keys(slots(slot))


@given(SLOTS, PAGES, SLOTS, PAGES)
def test_keys_are_distinct(slot: int, page: int, other_slot: int, other_page: int) -> None:
    first, second = range_keys(slots(slot, other_slot), keys(page, other_page)).tolist()
    assert (first == second) == (slot == other_slot and page // 512 == other_page // 512)


def test_a_refused_range_is_left_alone_for_a_while() -> None:
    back_off = BackOff()
    back_off.refuse(keys(7), 100.0)
    assert back_off.ready(keys(7, 8), 100.0).tolist() == [False, True]
    assert back_off.ready(keys(7), 100.0 + FIRST_WAIT - 0.01).tolist() == [False]
    assert back_off.ready(keys(7), 100.0 + FIRST_WAIT).tolist() == [True]
    assert back_off.waiting(100.0) == 1 and back_off.waiting(100.0 + FIRST_WAIT) == 0


@given(st.integers(1, 30), st.floats(0.5, 10), st.floats(10, 1000))
def test_each_refusal_doubles_the_wait_up_to_the_longest(times: int, first: float, longest: float) -> None:
    back_off, now = BackOff(first, longest), 0.0
    for number in range(times):
        back_off.refuse(keys(7), now)
        wait = min(longest, first * 2.0**number)
        assert not back_off.ready(keys(7), now + 0.99 * wait)[0]
        assert back_off.ready(keys(7), now + 1.01 * wait)[0]
        now += 1.01 * wait


def test_attempts_on_what_never_moves_are_few() -> None:
    """A round a second for an hour, and a refusal each time it is ready."""
    back_off, attempts = BackOff(), 0
    for second in range(3600):
        if back_off.ready(keys(7), float(second))[0]:
            attempts += 1
            back_off.refuse(keys(7), float(second))
    assert attempts <= 1 + np.log2(LONGEST_WAIT / FIRST_WAIT) + 3600 / LONGEST_WAIT


def test_what_moves_after_all_starts_from_the_beginning() -> None:
    back_off = BackOff()
    for now in (0.0, 10.0, 30.0):
        back_off.refuse(keys(7, 9), now)
    back_off.forgive(keys(7, 555))
    assert back_off.ready(keys(7, 9), 30.0).tolist() == [True, False]
    back_off.refuse(keys(7), 40.0)
    assert back_off.ready(keys(7), 40.0 + FIRST_WAIT)[0]


def test_the_same_range_twice_in_one_round_counts_once() -> None:
    back_off = BackOff()
    for _ in range(5):
        back_off.refuse(keys(7, 7, 7), 0.0)
    assert back_off.ready(keys(7), FIRST_WAIT)[0]


@settings(deadline=None, max_examples=100)  # each is some hundred changes: 40 ms
@given(st.lists(st.integers(1, 10_000), min_size=100, max_size=300, unique=True))
def test_memory_is_bounded_and_the_longest_waiting_stay(numbers: list[int]) -> None:
    back_off = BackOff(capacity=64)
    for now in (0.0, 4.0, 12.0):
        back_off.refuse(keys(99_999), now)
    for now, number in enumerate(numbers):
        back_off.refuse(keys(number), 12.0 + now / 1000)
        assert len(back_off) <= 64
    assert not back_off.ready(keys(99_999), 13.0)[0]
    assert back_off.nbytes < 1 << 20


def test_processes_that_are_gone_and_old_refusals_are_forgotten() -> None:
    back_off = BackOff()
    gone, here = range_keys(slots(3, 4), keys(512, 512))
    back_off.refuse(keys(gone, here), 0.0)
    back_off.prune(1.0, slots(4))
    assert len(back_off) == 1 and not back_off.ready(keys(here), 1.0)[0]
    back_off.prune(FIRST_WAIT + 1.0, slots(4))
    assert len(back_off) == 1, "the next refusal must still double"
    back_off.prune(2 * FIRST_WAIT, slots(4))
    assert len(back_off) == 0


@pytest.mark.parametrize(
    ("refused", "fails"),
    [([True], True), ([False], False), ([True, False], True), ([True, False, False], False)],
)
def test_a_range_fails_when_it_refuses_as_much_as_it_gives(refused: list[bool], fails: bool) -> None:
    failed, gave = failed_ranges(keys(*[5] * len(refused)), np.array(refused))
    assert (failed.tolist(), gave.tolist()) == (([5], []) if fails else ([], [5]))


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=60))
def test_every_range_that_was_tried_either_failed_or_gave(pages: list[tuple[int, bool]]) -> None:
    tried = keys(*(number for number, _ in pages))
    failed, gave = failed_ranges(tried, np.array([refused for _, refused in pages], dtype=bool))
    assert sorted([*failed.tolist(), *gave.tolist()]) == sorted({number for number, _ in pages})
