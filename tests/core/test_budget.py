"""Bandwidth is never exceeded, and no call is long."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierd.core.budget import CALL_SECONDS, LARGEST_BATCH, SMALLEST_BATCH, BatchSize, TokenBucket

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


PAGES = st.integers(1, 2 * LARGEST_BATCH)
SECONDS = st.one_of(st.just(0.0), st.floats(1e-9, 1e4))  # what a clock of nanoseconds can say
FIXED = st.floats(0, 8e-3)
EACH = st.floats(1e-6, 150e-6)


class Kernel:
    """Calls cost `fixed` seconds and `each` a page, give or take a tenth."""

    def __init__(self, fixed: float, each: float, random: Random) -> None:
        self.fixed, self.each, self.random = fixed, each, random

    def seconds(self, pages: int) -> float:
        return (self.fixed + self.each * pages) * self.random.uniform(0.95, 1.05)

    def play(self, size: BatchSize, calls: int, *, slow: float = 0.0, every: int = 0) -> list[int]:
        """The batches of so many calls, each `every`th of them longer by `slow` seconds."""
        batches = []
        for call in range(1, calls + 1):
            batches.append(size.pages)
            late = slow if every and call % every == 0 else 0.0
            size.learn(size.pages, self.seconds(size.pages) + late)
        return batches


@given(st.lists(st.tuples(PAGES, SECONDS), max_size=30))
def test_a_batch_is_within_its_bounds(calls: list[tuple[int, float]]) -> None:
    size = BatchSize()
    for pages, seconds in calls:
        before, tried = size.pages, max(pages, size.pages)
        size.learn(pages, seconds)
        assert SMALLEST_BATCH <= size.pages <= LARGEST_BATCH
        assert size.pages <= max(before, 2 * max([tried, *(p for p, _ in calls)])), "one lucky call"
    assert LARGEST_BATCH * 4096 <= 4 << 20, "the most that may be put at risk by one reading of free memory"


@settings(deadline=None)
@given(FIXED, EACH, st.randoms(use_true_random=False))
def test_a_batch_fits_into_the_time_of_one_call(fixed: float, each: float, random: Random) -> None:
    kernel, size = Kernel(fixed, each, random), BatchSize()
    kernel.play(size, 40)
    assert size.pages == SMALLEST_BATCH or fixed + each * size.pages <= 1.3 * CALL_SECONDS


@settings(deadline=None)
@given(FIXED, EACH, st.randoms(use_true_random=False))
def test_the_time_of_a_call_is_used(fixed: float, each: float, random: Random) -> None:
    """Small calls waste what a call costs by itself."""
    kernel, size = Kernel(fixed, each, random), BatchSize()
    kernel.play(size, 40)
    ideal = min(LARGEST_BATCH, (CALL_SECONDS - fixed) / each)
    assert size.pages >= 0.6 * ideal


@settings(deadline=None)
@given(FIXED, EACH, st.floats(0.02, 5), st.integers(4, 12), st.randoms(use_true_random=False))
def test_calls_that_were_interrupted_do_not_collapse_the_batch(
    fixed: float, each: float, slow: float, every: int, random: Random
) -> None:
    kernel, size = Kernel(fixed, each, random), BatchSize()
    kernel.play(size, 40)
    before = size.pages
    assert min(kernel.play(size, 40, slow=slow, every=every)) >= min(before, 256) / 3


def test_one_slow_call_at_the_start_proves_nothing() -> None:
    size = BatchSize()
    size.learn(256, 3.0)
    assert size.pages == 256
    size.learn(256, 0.009)
    size.learn(256, 0.009)
    assert size.pages > 256


def test_a_kernel_that_slows_down_for_good_is_believed_after_five_calls() -> None:
    kernel, size = Kernel(0.003, 25e-6, Random(1)), BatchSize()
    kernel.play(size, 30)
    assert size.pages > 500
    kernel.each *= 10
    kernel.play(size, 6)
    assert size.pages <= 130


def test_a_call_that_is_long_by_itself_still_takes_pages() -> None:
    """With many CPUs the call alone may last 20 ms; then fewer pages would make it no shorter."""
    kernel, size = Kernel(0.030, 5e-6, Random(1)), BatchSize()
    kernel.play(size, 40)
    assert size.pages == LARGEST_BATCH


def test_many_small_calls_do_not_collapse_the_batch() -> None:
    """The last batch of a process, and the room that is left, are often a few pages."""
    kernel, size = Kernel(0.003, 25e-6, Random(1)), BatchSize()
    kernel.play(size, 30)
    for pages in (5, 9, 17) * 6:
        size.learn(pages, kernel.seconds(pages))
    assert size.pages > 500
    for _ in range(20):
        size.learn(5, kernel.seconds(5))
    assert size.pages > 500


def test_two_small_calls_before_the_first_large_one_do_not_collapse_the_batch() -> None:
    size = BatchSize()
    for pages in (5, 6, 256):
        size.learn(pages, 0.003 + 25e-6 * pages)
    assert size.pages >= 256


def test_an_empty_call_teaches_nothing() -> None:
    size = BatchSize()
    for _ in range(10):
        size.learn(0, 5.0)
    assert size.pages == BatchSize().pages
