"""The heat of pages from their faults: hot told from cold, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierd.core.heat import REGION_PAGES_SHIFT, HeatMap

FIRST_PAGE = 0x7F0000000
EMPTY = HeatMap(20.0).nbytes


def feed(heat: HeatMap, pages: list[int], times: list[float], slot: int = 1, near: int = 0) -> None:
    heat.observe(
        np.full(len(pages), slot, dtype=np.int64),
        np.array(pages, dtype=np.uint64),
        np.array(times, dtype=np.float64),
        np.full(len(pages), near, dtype=np.int16),
    )


def slots(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@dataclass
class Scan:
    """A kernel that unmaps a process's pages in address order, and accesses that arrive at random.

    hot_rate, cold_rate: accesses a second. Hot pages lie in clusters of 16, one in six.
    """

    hot_rate: float = 2.5
    cold_rate: float = 0.055
    pages: int = 96_000
    chunk: int = 16_384
    every: float = 1.3
    seed: int = 1

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.hot = np.repeat(self.random.random(self.pages // 16) < 1 / 6, 16)
        self.fault_at = np.full(self.pages, np.inf)
        self.cursor = 0
        self.now = 0.0
        self.next_unmapping = 0.0

    def change(self) -> None:
        """Other pages are hot from now on, those that wait for their use among them."""
        self.hot = np.roll(self.hot, self.pages // 2)
        waiting = np.flatnonzero(np.isfinite(self.fault_at))
        rate = np.where(self.hot, self.hot_rate, self.cold_rate)[waiting]
        self.fault_at[waiting] = self.now + self.random.exponential(1 / rate)

    def run(self, heat: HeatMap, seconds: float, slot: int = 3) -> None:
        """Let time pass; the heat map sees the faults every tenth of a second."""
        rate = np.where(self.hot, self.hot_rate, self.cold_rate)
        end = self.now + seconds
        while self.now < end:
            if self.now >= self.next_unmapping:
                some = np.arange(self.cursor, min(self.cursor + self.chunk, self.pages))
                self.cursor = 0 if self.cursor + self.chunk >= self.pages else self.cursor + self.chunk
                some = some[~np.isfinite(self.fault_at[some])]
                self.fault_at[some] = self.now + self.random.exponential(1 / rate[some])
                heat.update(self.now, len(some), resting=False, measured=False)
                self.next_unmapping += self.every
            self.now += 0.1
            faults = np.flatnonzero(self.fault_at < self.now)
            faults = faults[np.argsort(self.fault_at[faults])]
            heat.observe(
                np.full(len(faults), slot),
                faults.astype(np.uint64) + np.uint64(FIRST_PAGE),
                self.fault_at[faults],
                np.zeros(len(faults), dtype=np.int16),
            )
            self.fault_at[faults] = np.inf

    def judge(self, heat: HeatMap, least_rate: float = 0.5) -> tuple[float, float, float]:
        """Precision, recall, and precision among the hottest tenth of the hot pages."""
        found = heat.hottest(self.now, least_rate, 1 << 20)
        right = self.hot[(found.page - np.uint64(FIRST_PAGE)).astype(np.int64)]
        top = right[: self.hot.sum() // 10]
        return float(right.mean()), float(right.sum() / self.hot.sum()), float(top.mean())


@pytest.mark.parametrize("seed", [1, 2])
def test_hot_pages_are_told_from_lukewarm_ones(seed: int) -> None:
    """2.5 accesses a second against 0.055, as in a process whose cold pages are five times as many."""
    scan, heat = Scan(seed=seed), HeatMap(20.0)
    scan.run(heat, 40)
    precision, recall, top = scan.judge(heat)
    assert precision > 0.8 and recall > 0.8 and top > 0.9, (precision, recall, top)


def test_a_change_of_phase_shows_soon() -> None:
    scan, heat = Scan(), HeatMap(20.0)
    scan.run(heat, 40)
    scan.change()
    before = scan.judge(heat)
    scan.run(heat, 2)
    heat.doubt(scan.now)
    scan.run(heat, 10)
    after = scan.judge(heat)
    assert before[0] < 0.4, "the other half of memory is hot now"
    assert after[0] > 0.6 and after[1] > 0.9, after


def test_the_rate_is_an_estimate_of_the_rate() -> None:
    """Not just an order: the planner weighs it against seconds of idleness."""
    scan, heat = Scan(hot_rate=1.0, cold_rate=1.0), HeatMap(20.0)
    scan.run(heat, 60)
    rates = heat.hottest(scan.now, 1e-3, 1 << 20).rate
    assert 0.3 < float(np.median(rates)) < 3.0


def test_hottest_is_sorted_limited_and_above_the_bar() -> None:
    scan, heat = Scan(pages=32_000), HeatMap(20.0)
    scan.run(heat, 20)
    everything = heat.hottest(scan.now, 1e-3, 1 << 20)
    assert len(everything) > 1000
    assert (np.diff(everything.rate) <= 0).all()
    assert set(everything.slot) == {3}
    assert len(np.unique(everything.page)) == len(everything)
    few = heat.hottest(scan.now, 1e-3, 100)
    assert len(few) == 100 and (few.rate == everything.rate[:100]).all()
    assert (heat.hottest(scan.now, 1.0, 1 << 20).rate >= 1.0).all()
    assert len(heat.hottest(scan.now, 1e-3, 0)) == 0


def test_pages_that_are_no_longer_used_get_colder() -> None:
    """The kernel keeps looking, and nobody answers: what was hot must not stay so."""
    scan, heat = Scan(pages=32_000), HeatMap(half_life=10.0)
    scan.run(heat, 20)
    rates = [
        float(heat.hottest(scan.now + later, 1e-9, 1 << 20).rate.sum()) for later in (0, 15, 30, 60, 120)
    ]
    assert rates == sorted(rates, reverse=True) and rates[-1] < rates[0] / 100


def test_waiting_unused_since_an_unmapping_is_an_observation_too() -> None:
    """A neighbour's faults prove that the page was unmapped again, and still nobody used it."""

    def rate(neighbour_faults: bool) -> float:
        heat = HeatMap(half_life=1000.0)
        for step in range(10):
            feed(heat, [FIRST_PAGE, FIRST_PAGE + 1], [1.0 + step, 1.1 + step])
        if neighbour_faults:
            for step in range(5):
                feed(heat, [FIRST_PAGE + 1], [12.0 + step])
        found = heat.hottest(60.0, 1e-9, 10)
        return float(found.rate[found.page.tolist().index(FIRST_PAGE)])

    assert rate(neighbour_faults=True) < rate(neighbour_faults=False) / 2


def test_nothing_seen_is_nothing_hot() -> None:
    heat = HeatMap(20.0)
    feed(heat, [], [])
    assert len(heat) == 0 and len(heat.hottest(100.0, 1e-6, 10)) == 0
    heat.prune(100.0, slots())
    heat.forget(slots(1), np.array([5], dtype=np.uint64))
    assert len(heat.hottest(100.0, 1e-6, 10)) == 0


def test_which_pages_are_remembered() -> None:
    heat = HeatMap(20.0)
    feed(heat, [FIRST_PAGE, FIRST_PAGE + 5], [1.0, 1.0])
    pages = np.array([FIRST_PAGE, FIRST_PAGE + 1, FIRST_PAGE + 5], dtype=np.uint64)
    assert heat.known(slots(1, 1, 1), pages).tolist() == [True, False, True]
    assert not heat.known(slots(2, 2, 2), pages).any()


def test_processes_are_kept_apart() -> None:
    """The same addresses in two processes: one hot, one not."""
    heat = HeatMap(20.0)
    hot, cold = Scan(pages=8_000, chunk=8_000, seed=4), Scan(pages=8_000, chunk=8_000, seed=5)
    hot.hot[:] = True
    cold.hot[:] = False
    for _ in range(20):
        hot.run(heat, 1.0, slot=1)
        cold.run(heat, 1.0, slot=(1 << 18) - 1)
    found = heat.hottest(hot.now, 0.5, 1 << 20)
    assert set(np.unique(found.slot)) <= {1, (1 << 18) - 1}
    assert (found.slot == 1).mean() > 0.8
    assert ((found.page >= FIRST_PAGE) & (found.page < FIRST_PAGE + 8_000)).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, (1 << 18) - 1), st.integers(0, (1 << 45) - 1))
def test_any_slot_and_any_address_come_back_as_they_went_in(slot: int, page: int) -> None:
    heat = HeatMap(20.0)
    for time in (1.0, 1.2, 1.4, 1.6):
        feed(heat, [page], [time], slot)
    found = heat.hottest(1.7, 1e-3, 10)
    assert found.slot.tolist() == [slot] and found.page.tolist() == [page]


def test_a_forgotten_page_is_not_hot_any_more() -> None:
    heat = HeatMap(20.0)
    pages = list(range(FIRST_PAGE, FIRST_PAGE + 50))
    for time in (1.0, 1.2, 1.4, 1.6):
        feed(heat, pages, [time] * 50)
    assert len(heat.hottest(1.7, 0.5, 100)) == 50
    gone = np.array([*pages[:20], 12345], dtype=np.uint64)  # the last was never seen
    heat.forget(np.full(21, 1), gone)
    left = heat.hottest(1.7, 1 / 60, 100)
    assert sorted(left.page.tolist()) == pages[20:]


def test_a_page_that_faults_because_it_moves_proves_no_unmapping() -> None:
    """Its neighbours were seen once, and nobody has unmapped them since: they do not wait for anything."""
    heat = HeatMap(20.0)
    pages = list(range(FIRST_PAGE, FIRST_PAGE + 50))
    feed(heat, pages, [1.0 + 0.01 * number for number in range(50)])
    before = heat.hottest(10.0, 1 / 60, 100)
    moving = np.array(pages[:1], dtype=np.uint64)
    heat.forget(slots(1), moving)
    feed(heat, pages[:1], [2.0])
    heat.forget(slots(1), moving)
    after = heat.hottest(10.0, 1 / 60, 100)
    assert len(before) == 50 and after.page.tolist() == before.page[before.page != pages[0]].tolist()
    assert after.rate.tolist() == before.rate[before.page != pages[0]].tolist()


def test_after_a_doubt_what_was_observed_before_does_not_count() -> None:
    """A page that was cold for a minute and is hot now, seen once."""
    trusting, doubting = HeatMap(1000.0), HeatMap(1000.0)
    for heat in (trusting, doubting):
        for time in (1.0, 21.0, 41.0):
            feed(heat, [FIRST_PAGE + n for n in range(20)], [time + 0.001] + [time + 19.0] * 19)
    doubting.doubt(61.0)
    for heat in (trusting, doubting):
        feed(heat, [FIRST_PAGE + n for n in range(20)], [61.001] + [61.1] * 19)
    assert len(trusting.hottest(61.2, 1.0, 100)) < 10 < len(doubting.hottest(61.2, 1.0, 100))


def test_a_page_that_did_not_move_after_all_is_what_it_was() -> None:
    heat = HeatMap(20.0, cooldown=30.0)
    pages = list(range(FIRST_PAGE, FIRST_PAGE + 50))
    feed(heat, pages, [1.0 + 0.01 * number for number in range(50)])
    before = heat.hottest(2.0, 1 / 60, 100)
    some = np.array(pages[:20], dtype=np.uint64)
    heat.leaving(slots(*[1] * 20), some)
    heat.leaving(slots(*[1] * 20), some)
    assert len(heat.hottest(2.0, 1 / 60, 100)) == 30
    heat.recall(slots(*[1] * 50), np.array(pages, dtype=np.uint64))
    after = heat.hottest(2.0, 1 / 60, 100)
    assert after.page.tolist() == before.page.tolist()
    assert after.rate == pytest.approx(before.rate, rel=1e-3)


def test_pages_that_come_back_are_judged_by_what_they_do_then() -> None:
    """A region that was wholly in DRAM for a while, and is as hot as before: seen as if it were new."""
    random = np.random.default_rng(2)
    heat = HeatMap(20.0, cooldown=30.0)
    pages = np.arange(FIRST_PAGE, FIRST_PAGE + 500)
    feed(heat, pages.tolist(), np.sort(1 + random.exponential(0.05, 500)).tolist())
    heat.forget(np.full(500, 1), pages.astype(np.uint64))
    feed(heat, random.permutation(pages).tolist(), np.sort(101 + random.exponential(0.05, 500)).tolist())
    assert len(heat.hottest(102.0, 2.0, 1000)) > 400


def test_what_may_not_be_planned_leaves_room_for_the_others() -> None:
    heat = HeatMap(20.0)
    pages = list(range(FIRST_PAGE, FIRST_PAGE + 100))
    feed(heat, pages, [1.0 + 0.001 * number for number in range(100)])
    odd = heat.hottest(2.0, 1 / 60, 40, lambda slot, page: page % np.uint64(2) == 1)
    assert len(odd) == 40 and set((odd.page % np.uint64(2)).tolist()) == {1}


@pytest.mark.parametrize(("again", "candidates"), [(9.0, 0), (10.9, 0), (11.1, 1), (30.0, 1)])
def test_a_page_that_came_up_does_so_again_only_after_the_cooldown(again: float, candidates: int) -> None:
    heat = HeatMap(20.0, cooldown=10.0)
    feed(heat, [FIRST_PAGE, FIRST_PAGE + 1], [0.9, 1.0])
    heat.forget(slots(1), np.array([FIRST_PAGE + 1], dtype=np.uint64))
    for time in (again - 0.2, again - 0.1, again):
        feed(heat, [FIRST_PAGE + 1], [time])
    found = heat.hottest(again, 1 / 60, 10)
    assert np.count_nonzero(found.page == FIRST_PAGE + 1) == candidates


def test_a_forgotten_page_can_become_hot_again() -> None:
    heat = HeatMap(20.0)
    page = [FIRST_PAGE]
    for time in (1.0, 1.2, 1.4, 1.6):
        feed(heat, page, [time])
    heat.forget(slots(1), np.array(page, dtype=np.uint64))
    for step in range(30):
        feed(heat, page, [12.0 + 0.2 * step])
    assert len(heat.hottest(18.0, 0.5, 10)) == 1


def test_prune_drops_processes_that_are_gone() -> None:
    heat = HeatMap(20.0)
    feed(heat, [FIRST_PAGE, FIRST_PAGE + 1], [1.0, 1.1], slot=1)
    feed(heat, [FIRST_PAGE, FIRST_PAGE + 1], [1.0, 1.1], slot=2)
    heat.prune(2.0, slots(2))
    assert len(heat) == 2
    assert set(heat.hottest(2.0, 1e-9, 10).slot.tolist()) == {2}
    heat.prune(2.0, slots())
    assert len(heat) == 0


def test_prune_drops_what_was_seen_long_ago_and_keeps_the_rest() -> None:
    heat = HeatMap(half_life=5.0)
    feed(heat, [FIRST_PAGE], [1.0])
    feed(heat, [FIRST_PAGE + 1], [999.0])
    heat.prune(1000.0, slots(1))
    assert len(heat) == 1
    assert heat.hottest(1000.0, 1e-9, 10).page.tolist() == [FIRST_PAGE + 1]


def test_memory_is_bounded_by_the_capacity() -> None:
    heat = HeatMap(20.0, capacity=10_000)
    random = np.random.default_rng(3)
    for step in range(30):
        pages = np.unique(random.integers(0, 1 << 18, 5_000)) + FIRST_PAGE
        feed(heat, pages.tolist(), [float(step)] * len(pages))
        assert len(heat) <= 10_000
    assert heat.nbytes < 4 << 20
    # the ones that were not seen for longest went first
    newest = pages[:100]
    found = set(heat.hottest(float(step), 1e-9, 1 << 20).page.tolist())
    assert set(newest.tolist()) <= found


def test_what_nobody_asks_for_takes_no_memory_without_end() -> None:
    """An engine that may not place goes on reading the rings, for days."""
    heat = HeatMap(20.0, capacity=2000)
    pages = [FIRST_PAGE + page for page in range(500)]
    feed(heat, pages, [0.0] * len(pages))
    before = heat.nbytes
    for round_ in range(1, 200):
        feed(heat, pages, [float(round_)] * len(pages))
    assert heat.nbytes <= before + 8 * 2000
    found = heat.hottest(200.0, 0.001, 1 << 20, fresh=True)
    assert len(found) == len(pages), "and what was observed last is still found"


def test_a_process_that_wanders_through_its_address_space_leaves_nothing_behind() -> None:
    """Memory is bounded by what was sampled lately, for a process that maps and unmaps for months too."""
    heat = HeatMap(half_life=1.0)
    region = 1 << REGION_PAGES_SHIFT
    for step in range(200):
        base = FIRST_PAGE + step * 1000 * region
        feed(heat, [base + n * region for n in range(1000)], [10.0 * step] * 1000)
        heat.prune(10.0 * step, slots(1))
        heat.hottest(10.0 * step, 0.1, 1, fresh=True)
    assert len(heat) <= 2_000
    assert heat.nbytes <= 4 * EMPTY, f"{heat.nbytes} bytes for {len(heat)} pages"


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 3), st.integers(0, 4 << REGION_PAGES_SHIFT), st.floats(0, 50)),
            max_size=40,
        ),
        max_size=8,
    )
)
def test_any_faults_at_all(batches: list[list[tuple[int, int, float]]]) -> None:
    """Repeats in one batch, times that do not grow between batches: no nonsense comes out."""
    heat, seen = HeatMap(20.0), set()
    for batch in batches:
        batch.sort(key=lambda fault: fault[2])
        heat.observe(
            np.array([slot for slot, _, _ in batch], dtype=np.int64),
            np.array([FIRST_PAGE + page for _, page, _ in batch], dtype=np.uint64),
            np.array([time for _, _, time in batch], dtype=np.float64),
            np.zeros(len(batch), dtype=np.int16),
        )
        seen |= {(slot, FIRST_PAGE + page) for slot, page, _ in batch}
    found = heat.hottest(60.0, 1e-9, 1 << 20)
    assert len(heat) == len(seen)
    assert set(zip(found.slot.tolist(), found.page.tolist(), strict=True)) == seen
    assert np.isfinite(found.rate).all() and (found.rate > 0).all()


def test_the_node_near_the_last_user_is_known() -> None:
    heat = HeatMap(20.0)
    pages = [FIRST_PAGE + n for n in range(4)]
    feed(heat, pages, [1.0, 1.1, 1.2, 1.3], near=1)
    feed(heat, pages[:1], [2.0], near=0)
    feed(heat, pages[1:2], [2.0], near=-1)
    feed(heat, [FIRST_PAGE + 4, FIRST_PAGE + 5], [2.0, 2.1], near=-1)
    feed(heat, pages[3:], [2.0], near=300)
    found = heat.hottest(2.5, 1e-9, 100)
    near = {int(page) - FIRST_PAGE: node for page, node in zip(found.page, found.near.tolist(), strict=True)}
    assert near == {0: 0, 1: 1, 2: 1, 3: 1, 4: -1, 5: -1}, "and stays what it was where it is not known"
    assert found.near.dtype == np.int16
    pages = list(range(FIRST_PAGE, FIRST_PAGE + 100_000))
    feed(heat, pages, np.linspace(3, 4, len(pages)).tolist(), near=254)
    assert set(heat.hottest(5.0, 1e-9, 1 << 20).near.tolist()) == {254}, (
        "after the table was rebuilt as well"
    )


def test_what_counts_as_quick_follows_a_workload_that_gets_faster_and_not_one_that_changes() -> None:
    """At rest one use in a hundred is quick, whatever their speed; ten times as many soon are not."""
    heat, random, now = HeatMap(20.0), np.random.default_rng(1), 0.0

    def share(rate: float, rounds: int) -> float:
        """Quick uses of the last of so many rounds, each of 2000 pages unmapped and used at `rate`."""
        nonlocal now
        quick = 0
        for _ in range(rounds):
            pages = np.arange(2000, dtype=np.uint64) + np.uint64(FIRST_PAGE)
            delays = np.sort(random.exponential(1 / rate, 2000))
            for begun in (now, now + 1000.0):  # the first uses of a pass only show that it has begun
                near = np.zeros(2000, dtype=np.int16)
                heat.observe(np.ones(2000, dtype=np.int64), random.permutation(pages), begun + delays, near)
            now += 2000.0
            quick = heat.update(now, 4000, resting=True, measured=False)
        return quick / 4000

    heat.update(now, 0, resting=False, measured=False)
    slow = share(0.05, 200)
    assert 0.003 < slow < 0.03
    assert share(0.5, 1) > 3 * slow, "at once it is a change"
    assert share(0.5, 150) < 0.03, "in time it is usual"


def test_at_rest_it_learns_less_often_and_misses_nothing() -> None:
    """Of what was unmapped in several rounds, none of it used, all counts when it learns again."""
    often, seldom = HeatMap(20.0), HeatMap(20.0)
    pages = np.arange(2000, dtype=np.uint64) + np.uint64(FIRST_PAGE)
    for heat in (often, seldom):
        for begun in (0.0, 10.0):
            feed(heat, pages.tolist(), (begun + np.linspace(0.0, 1.0, 2000)).tolist())
        heat.update(11.0, 4000, resting=True, measured=True)
    before = seldom.typical
    seldom.update(12.0, 300_000, resting=True, measured=True)
    assert seldom.typical == before
    for now in (13.0, 14.0, 15.0):
        seldom.update(now, 0, resting=True, measured=True)
    often.update(15.0, 300_000, resting=True, measured=True)
    for heat in (often, seldom):  # by now, what has not been used is cold
        heat.update(55.0, 0, resting=True, measured=True)
    assert seldom.typical == often.typical < before
