"""What each kind of heat tells of one process, and that telling it changes nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tests.core.test_heat import FIRST_PAGE, Scan, feed, slots
from tierd.core.heat import HeatMap
from tierd.core.region_heat import BLOCK_PAGES, RegionHeat
from tierd.core.sampled_heat import SampledHeat


def by_page(heat: HeatMap | SampledHeat | RegionHeat, now: float, slot: int = 1) -> dict[int, float]:
    known = heat.of(slot, now)
    assert (np.diff(known.page) > 0).all()
    return dict(zip(known.page.tolist(), known.rate.tolist(), strict=True))


def test_of_what_was_not_promoted_the_rates_are_those_that_are_planned_by() -> None:
    scan, heat = Scan(pages=32_000), HeatMap(20.0)
    scan.run(heat, 20)
    feed(heat, [FIRST_PAGE, FIRST_PAGE + 1], [scan.now, scan.now], slot=4)
    known = by_page(heat, scan.now, 3)
    hot = heat.hottest(scan.now, 1e-9, 1 << 20)
    mine = hot.slot == 3
    assert known == dict(zip(hot.page[mine].tolist(), hot.rate[mine].tolist(), strict=True))
    assert len(known) > 10_000 and not heat.of(3, scan.now).remembered.any()
    assert set(by_page(heat, scan.now, 4)) == {FIRST_PAGE, FIRST_PAGE + 1} and not by_page(heat, scan.now, 5)


def test_to_look_changes_nothing() -> None:
    scan, heat = Scan(pages=8_000), HeatMap(20.0)
    scan.run(heat, 10)
    other = copy.deepcopy(heat)
    for later in range(100):
        heat.of(3, scan.now + later)
    one, two = (each.hottest(scan.now, 1e-3, 1 << 20, fresh=True) for each in (heat, other))
    assert (
        len(one) > 100 and one.page.tolist() == two.page.tolist() and one.rate.tolist() == two.rate.tolist()
    )


def test_a_page_that_came_up_keeps_the_rate_that_it_had_and_says_so() -> None:
    """However cold all others are by then, and however long ago that was."""
    heat = HeatMap(20.0)
    hot, cold = [FIRST_PAGE + n for n in range(50)], [FIRST_PAGE + 5120 + n for n in range(500)]
    for time in (1.0, 2.0, 3.0):
        feed(heat, hot, [time + 0.1] * 50)
    feed(heat, cold, [0.2] + [3.2] * 499)
    heat.forget(np.ones(50, dtype=np.int64), np.array(hot, dtype=np.uint64))
    for now in range(10, 100, 10):
        heat.update(float(now), 50_000, resting=False, measured=False)
    known = heat.of(1, 100.0)
    assert known.page[known.remembered].tolist() == hot
    rates = known.rate[known.remembered]
    assert (rates > 1.0).all() and (np.sort(known.rate[~known.remembered])[:-1] < 0.1 * rates.min()).all()
    heat.recall(np.ones(50, dtype=np.int64), np.array(hot, dtype=np.uint64))
    assert not heat.of(1, 100.0).remembered.any()


def test_what_a_doubt_has_made_worthless_is_not_known() -> None:
    heat = HeatMap(20.0)
    feed(heat, [FIRST_PAGE, FIRST_PAGE + 1], [1.0, 1.5])
    heat.doubt(10.0)
    feed(heat, [FIRST_PAGE], [11.0])
    assert FIRST_PAGE + 1 in by_page(heat, 12.0)
    assert all(np.isfinite(rate) and rate > 0 for rate in by_page(heat, 12.0).values())


def test_samples_tell_of_slow_tiers_alone() -> None:
    heat = SampledHeat(20.0, 1000)
    feed(heat, [FIRST_PAGE, FIRST_PAGE + 1, FIRST_PAGE + 2], [1.0] * 3)  # type: ignore[arg-type]
    feed(heat, [FIRST_PAGE], [1.0], slot=2)  # type: ignore[arg-type]
    heat.forget(slots(1), np.array([FIRST_PAGE + 1], dtype=np.uint64))
    known = by_page(heat, 2.0)
    assert set(known) == {FIRST_PAGE, FIRST_PAGE + 2}
    hot = heat.hottest(2.0, 1e-9, 100)
    assert known[FIRST_PAGE] == pytest.approx(float(hot.rate[0]))
    heat.doubt(3.0)
    assert by_page(heat, 3.0) == {}


def test_blocks_are_known_wherever_they_lie() -> None:
    heat = RegionHeat(20.0, 0.1, 20)
    first = FIRST_PAGE // BLOCK_PAGES * BLOCK_PAGES
    pages = np.array([first + 3, first + 9 * BLOCK_PAGES], dtype=np.uint64)
    heat.observe(
        slots(1, 1), pages, np.array([2.0, 2.0]), np.zeros(2, dtype=np.int16), np.array([5.0, 15.0])
    )
    before = by_page(heat, 2.0)
    assert list(before) == [first, first + 9 * BLOCK_PAGES] and heat.of(1, 2.0).span == BLOCK_PAGES
    heat.forget(np.ones(BLOCK_PAGES), np.arange(first, first + BLOCK_PAGES, dtype=np.uint64))
    assert by_page(heat, 2.0) == before
    hot = heat.hottest(2.0, 1e-9, 10)
    assert before[first + 9 * BLOCK_PAGES] == pytest.approx(float(hot.rate[0]))
