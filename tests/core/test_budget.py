"""Bandwidth is never exceeded, and no call is long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.core.budget import CALL_SECONDS, LARGEST_BATCH, SMALLEST_BATCH, TokenBucket, next_batch

STEPS = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 1.0)), min_size=1, max_size=60
)  # seconds passed, share of the tokens that is taken


@given(st.floats(1, 1e10), st.floats(0.1, 10), STEPS)
def test_no_stretch_of_time_sees_more_than_rate_and_burst(
    rate: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    bucket, now, taken = TokenBucket(rate, burst), 1000.0, []
    for seconds, share in steps:
        now += seconds
        bucket.fill(now)
        amount = share * max(0.0, bucket.tokens)
        bucket.take(amount)
        taken.append((now, amount))
    for first in range(len(taken)):
        total = 0.0
        for when, amount in taken[first:]:
            total += amount
            assert total <= (rate * (when - taken[first][0]) + rate * burst) * (1 + 1e-6) + 1e-3


def test_a_debt_is_paid_off_by_waiting() -> None:
    bucket = TokenBucket(rate=100.0)
    bucket.fill(0.0)
    bucket.take(350.0)
    bucket.fill(1.0)
    assert bucket.tokens < 0
    bucket.fill(2.5)
    assert bucket.tokens == pytest.approx(0.0)


def test_what_can_be_saved_up_is_bounded() -> None:
    bucket = TokenBucket(rate=100.0, burst=2.0)
    bucket.fill(0.0)
    bucket.fill(1e6)
    assert bucket.tokens == 200.0


PAGES = st.integers(1, LARGEST_BATCH)
CALLS = st.one_of(st.just(0.0), st.floats(1e-9, 1e4))  # what a clock of nanoseconds can say


@given(PAGES, CALLS)
def test_a_batch_is_within_its_bounds(pages: int, seconds: float) -> None:
    assert SMALLEST_BATCH <= next_batch(pages, seconds) <= LARGEST_BATCH
    assert LARGEST_BATCH * 4096 <= 4 << 20, "the most that may be put at risk by one reading of free memory"


@given(PAGES, st.floats(1e-6, 10))
def test_a_batch_fits_into_the_time_of_one_call(pages: int, seconds: float) -> None:
    batch = next_batch(pages, seconds)
    assert batch == SMALLEST_BATCH or batch * seconds / pages <= CALL_SECONDS * (1 + 1e-9)


@given(PAGES, st.floats(1e-6, 10), st.floats(1, 100))
def test_slower_calls_never_make_larger_batches(pages: int, seconds: float, slower: float) -> None:
    assert next_batch(pages, seconds * slower) <= next_batch(pages, seconds)


@given(PAGES, st.floats(1e-6, 10))
def test_one_lucky_call_at_most_doubles_it(pages: int, seconds: float) -> None:
    assert next_batch(pages, seconds) <= max(SMALLEST_BATCH, 2 * pages)
