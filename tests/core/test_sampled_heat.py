"""The heat of pages from samples of their accesses."""

from __future__ import annotations

import numpy as np
import pytest

from tierd.core.sampled_heat import SampledHeat

FIRST = 0x7F0000000
PERIOD = 1000
HALF_LIFE = 20.0


def feed(heat: SampledHeat, pages: list[int], times: list[float], slot: int = 1, near: int = 0) -> None:
    heat.observe(
        np.full(len(pages), slot, dtype=np.int64),
        np.array(pages, dtype=np.uint64) + np.uint64(FIRST),
        np.array(times, dtype=np.float64),
        np.full(len(pages), near, dtype=np.int16),
    )


def rates(heat: SampledHeat, now: float) -> dict[int, float]:
    found = heat.hottest(now, 1e-9, 1000)
    return {int(page) - FIRST: float(rate) for page, rate in zip(found.page, found.rate, strict=True)}


def test_a_steady_rate_is_found_again() -> None:
    """Samples of Poisson processes of 0.5 to 8 a second, read ten times a second for eight half-lives."""
    random = np.random.default_rng(1)
    true = {n: 0.5 * 2**n for n in range(5)}
    heat = SampledHeat(HALF_LIFE, PERIOD)
    now = 0.0
    while now < 8 * HALF_LIFE:
        pages = [n for n, rate in true.items() for _ in range(random.poisson(rate * 0.1))]
        feed(heat, pages, sorted(now + random.random(len(pages)) * 0.1))
        now += 0.1
    found = rates(heat, now)
    assert list(found) == [4, 3, 2, 1, 0], "hottest first"
    for page, rate in true.items():
        # the sum is of about rate x 29 s samples; four standard deviations
        assert found[page] == pytest.approx(rate * PERIOD, rel=4 / (rate * HALF_LIFE / np.log(2)) ** 0.5)


def test_a_half_life_later_it_is_half_as_hot() -> None:
    heat = SampledHeat(HALF_LIFE, PERIOD)
    feed(heat, [1] * 64, [10.0] * 64)
    now = rates(heat, 10.0)[1]
    assert now == pytest.approx(64 * PERIOD * np.log(2) / HALF_LIFE)
    assert rates(heat, 10.0 + HALF_LIFE)[1] == pytest.approx(now / 2)
    feed(heat, [1] * 32, [10.0 + HALF_LIFE] * 32)
    assert rates(heat, 10.0 + HALF_LIFE)[1] == pytest.approx(now)


def test_the_node_near_the_last_user_is_known() -> None:
    heat = SampledHeat(HALF_LIFE, PERIOD)
    feed(heat, [1, 2, 3], [10.0, 10.1, 10.2], near=1)
    feed(heat, [2, 4], [11.0, 11.1], near=-1)
    feed(heat, [3], [11.0], near=0)
    found = heat.hottest(12.0, 1e-9, 100)
    near = {int(page) - FIRST: node for page, node in zip(found.page, found.near.tolist(), strict=True)}
    assert near == {1: 1, 2: 1, 3: 0, 4: -1}


def test_a_time_that_goes_back_makes_nothing_hotter() -> None:
    heat = SampledHeat(HALF_LIFE, PERIOD)
    feed(heat, [1], [100.0])
    feed(heat, [1], [40.0])
    assert rates(heat, 90.0)[1] == pytest.approx(2 * PERIOD * np.log(2) / HALF_LIFE)


def test_promoted_pages_are_no_candidates_until_they_are_seen_again() -> None:
    heat = SampledHeat(HALF_LIFE, PERIOD)
    feed(heat, [1, 2], [1.0, 1.0])
    heat.forget(np.array([1, 1]), np.array([FIRST + 1, FIRST + 9], dtype=np.uint64))
    assert set(rates(heat, 1.0)) == {2}
    feed(heat, [1], [2.0])
    assert rates(heat, 2.0)[1] == pytest.approx(PERIOD * np.log(2) / HALF_LIFE)


def test_a_page_that_came_up_does_so_again_only_after_the_cooldown() -> None:
    heat = SampledHeat(HALF_LIFE, PERIOD, cooldown=10.0)
    feed(heat, [1, 2], [1.0, 1.0])
    heat.forget(np.array([1]), np.array([FIRST + 1], dtype=np.uint64))
    feed(heat, [1], [10.9])
    assert set(rates(heat, 10.9)) == {2}
    feed(heat, [1], [11.0])
    assert rates(heat, 11.0)[1] == pytest.approx(PERIOD * np.log(2) / HALF_LIFE)


def test_the_most_are_the_hottest() -> None:
    heat = SampledHeat(HALF_LIFE, PERIOD)
    pages = [n for n in range(50) for _ in range(n)]
    feed(heat, pages, [1.0] * len(pages))
    found = heat.hottest(1.0, 1e-9, 10)
    assert [int(page) - FIRST for page in found.page] == list(range(49, 39, -1))
    assert len(heat.hottest(1.0, float(found.rate[3]) * 1.0001, 10)) == 3


def test_processes_are_told_apart_and_pruned() -> None:
    heat = SampledHeat(HALF_LIFE, PERIOD)
    feed(heat, [5], [1.0], slot=3)
    feed(heat, [5], [1.0], slot=(1 << 18) - 1)
    assert heat.hottest(1.0, 1e-9, 10).slot.tolist() in ([3, (1 << 18) - 1], [(1 << 18) - 1, 3])
    heat.prune(2.0, np.array([3]))
    assert heat.hottest(1.0, 1e-9, 10).slot.tolist() == [3]
    heat.prune(1.0 + 9 * HALF_LIFE, np.array([3]))
    assert len(heat) == 0


def test_nothing_and_too_much() -> None:
    heat = SampledHeat(HALF_LIFE, PERIOD, capacity=1000)
    feed(heat, [], [])
    assert len(heat) == 0 and not len(heat.hottest(0.0, 0.1, 10))
    feed(heat, list(range(900)), [1.0] * 900)
    feed(heat, list(range(5000, 5900)), [2.0] * 900)
    assert len(heat) == 750, "three quarters of the capacity"
    assert all(page >= 5000 for page in rates(heat, 2.0)), "the ones seen last"
