"""The heat of blocks from looks at regions."""

from __future__ import annotations

import numpy as np
import pytest

from tierd.core.region_heat import BLOCK_PAGES, RegionHeat

FIRST = 0x7F0000000
INTERVAL, LOOKS, HALF_LIFE = 0.1, 20, 20.0
REPORT = INTERVAL * LOOKS


def made(cooldown: float = 0.0, capacity: int = 1000) -> RegionHeat:
    return RegionHeat(HALF_LIFE, INTERVAL, LOOKS, cooldown, capacity)


def page(block: int, offset: int = 0) -> int:
    return FIRST + block * BLOCK_PAGES + offset


def feed(heat: RegionHeat, found: dict[int, float], time: float, slot: int = 1) -> None:
    """A report: looks that found blocks in use, by block."""
    heat.observe(
        np.full(len(found), slot),
        np.array([page(block) for block in found], dtype=np.uint64),
        np.full(len(found), time),
        np.full(len(found), -1, dtype=np.int16),
        np.array(list(found.values()), dtype=np.float64),
    )


def rates(heat: RegionHeat, now: float, most: int = 1 << 20) -> dict[int, float]:
    found = heat.hottest(now, 1e-9, most)
    return {
        (int(p) - FIRST) // BLOCK_PAGES: float(rate) for p, rate in zip(found.page, found.rate, strict=True)
    }


def forget(heat: RegionHeat, *pages: int) -> None:
    heat.forget(np.full(len(pages), 1), np.array(pages, dtype=np.uint64))


@pytest.mark.parametrize("reports", [1, 3, 60])
def test_a_steady_rate_is_found_at_once_and_stays(reports: int) -> None:
    """A page used r times a second is found by a look with probability 1 - exp(-r/10)."""
    heat = made()
    true = {0: 0.5, 1: 2.0, 2: 10.0}
    for number in range(reports):
        feed(heat, {b: LOOKS * (1 - np.exp(-r * INTERVAL)) for b, r in true.items()}, (number + 1) * REPORT)
    found = rates(heat, reports * REPORT)
    assert list(found) == [2, 1, 0], "hottest first"
    # a report counts whole, though its looks were made over 2 s
    assert found == pytest.approx(true, rel=0.12)


def test_what_every_look_finds_in_use_has_a_rate() -> None:
    heat = made()
    feed(heat, {0: LOOKS}, REPORT)
    assert rates(heat, REPORT)[0] == pytest.approx(-np.log(0.5 / LOOKS) / INTERVAL)


def test_all_pages_of_a_block_are_alike() -> None:
    heat = made()
    feed(heat, {3: 10}, REPORT)
    found = heat.hottest(REPORT, 1e-9, 10_000)
    assert found.page.tolist() == [page(3, n) for n in range(BLOCK_PAGES)]
    assert set(found.slot.tolist()) == {1} and len(set(found.rate.tolist())) == 1
    assert len(heat.hottest(REPORT, 1e-9, 100)) == 100
    assert not len(heat.hottest(REPORT, 1e9, 100))


def test_neighbours_that_share_a_region_now_and_then_are_told_apart() -> None:
    """Bounds that jump: block 1 is hot, and every region holds it with another neighbour."""
    heat = made()
    for number in range(30):
        other = 0 if number % 2 else 2
        feed(heat, {1: 10, other: 10}, (number + 1) * REPORT)
    found = rates(heat, 30 * REPORT)
    assert list(found)[0] == 1 and found[1] > 1.8 * max(found[0], found[2])


def test_what_is_no_longer_reported_cools() -> None:
    heat = made()
    for number in range(60):
        feed(heat, {0: 2}, (number + 1) * REPORT)
    before = rates(heat, 60 * REPORT)[0]
    assert rates(heat, 60 * REPORT + HALF_LIFE)[0] == pytest.approx(before / 2, rel=0.05)


def test_two_reports_of_one_block_in_one_call() -> None:
    """Regions that meet within it: each counts for its share."""
    heat = made()
    heat.observe(
        np.array([1, 1]),
        np.array([page(0), page(0, 300)], dtype=np.uint64),
        np.array([REPORT, REPORT]),
        np.array([-1, -1], dtype=np.int16),
        np.array([4.0, 6.0]),
    )
    other = made()
    feed(other, {0: 10}, REPORT)
    assert rates(heat, REPORT) == pytest.approx(rates(other, REPORT))


def test_what_came_up_is_no_candidate_before_the_cooldown_is_over() -> None:
    heat = made(cooldown=30.0)
    feed(heat, {0: 10, 1: 5}, REPORT)
    forget(heat, *(page(0, n) for n in range(256)), page(99))
    found = heat.hottest(REPORT, 1e-9, 10_000)
    assert found.page.tolist() == [page(0, n) for n in range(256, 512)] + [page(1, n) for n in range(512)]
    forget(heat, *(page(0, n) for n in range(512)))
    feed(heat, {0: 10, 1: 5}, 31.0)
    assert list(rates(heat, 31.0)) == [1]
    assert list(rates(heat, REPORT + 30.0)) == [0, 1], "its heat is still known"


def test_the_cooldown_is_a_half_life_at_least() -> None:
    heat = made(cooldown=0.0)
    feed(heat, {0: 10}, REPORT)
    forget(heat, *(page(0, n) for n in range(512)))
    assert not rates(heat, REPORT + HALF_LIFE - 1)
    assert list(rates(heat, REPORT + HALF_LIFE)) == [0]


def test_blocks_that_are_away_do_not_hide_others() -> None:
    heat = made(cooldown=60.0)
    feed(heat, {0: 20, 1: 20, 2: 20, 3: 5}, REPORT)
    forget(heat, *(page(block, n) for block in range(3) for n in range(512)))
    assert list(rates(heat, REPORT, most=10)) == [3]


def test_movable_has_the_last_word() -> None:
    heat = made()
    feed(heat, {0: 10, 1: 5}, REPORT)
    found = heat.hottest(REPORT, 1e-9, 10_000, lambda slot, pages: pages >= np.uint64(page(1)))
    assert found.page.tolist() == [page(1, n) for n in range(512)]


def test_a_change_of_the_hot_set_voids_what_was_reported() -> None:
    heat = made()
    for number in range(10):
        feed(heat, {0: 20}, (number + 1) * REPORT)
    heat.doubt(10 * REPORT)
    assert not rates(heat, 10 * REPORT)
    feed(heat, {0: 10}, 11 * REPORT)
    fresh = made()
    feed(fresh, {0: 10}, 11 * REPORT)
    assert rates(heat, 11 * REPORT) == pytest.approx(rates(fresh, 11 * REPORT), rel=0.05)


def test_the_dead_and_the_stale_are_dropped() -> None:
    heat = made()
    feed(heat, {0: 5}, 1.0, slot=1)
    feed(heat, {0: 5}, 100.0, slot=2)
    feed(heat, {0: 5}, 100.0, slot=3)
    heat.prune(1.0 + 8 * HALF_LIFE, np.array([1, 2]))
    assert heat.hottest(170.0, 1e-12, 10).slot.tolist() == [2] * 10 and len(heat) == 1


def test_memory_is_bounded_and_the_oldest_go_first() -> None:
    heat = made(capacity=100)
    feed(heat, dict.fromkeys(range(80), 5.0), 2.0)
    feed(heat, dict.fromkeys(range(80, 120), 5.0), 4.0)
    assert len(heat) == 75 and set(range(80, 120)) <= rates(heat, 4.0).keys()


def test_the_last_address_and_slot_have_a_key() -> None:
    heat = made()
    last = (1 << 45) - 1
    near = np.array([-1], dtype=np.int16)
    heat.observe(np.array([(1 << 18) - 1]), np.array([last], dtype=np.uint64), np.array([2.0]), near)
    found = heat.hottest(2.0, 1e-9, 512)
    assert found.slot[0] == (1 << 18) - 1 and int(found.page[-1]) == last


def test_nothing_in_nothing_out() -> None:
    heat = made()
    feed(heat, {}, 1.0)
    assert not len(heat.hottest(1.0, 0.0, 10)) and heat.typical == 0.0
    assert heat.update(1.0, 5, resting=False, measured=True) == 0
