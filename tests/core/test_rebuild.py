"""Which ranges become huge pages again: only on evidence, and never half hot ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierd.core.backoff import range_keys
from tierd.core.rebuild import (
    FEWEST_TOUCHED,
    FIRST_LOOK,
    FIRST_TRUCE,
    LONGEST_LOOK,
    LONGEST_LOOK_HOT,
    SURVIVED,
    THROUGHOUT,
    TOUCHED,
    UNUSED_SECONDS,
    RangeBook,
    Residence,
)

SLOT = 3
LATER = FIRST_LOOK + 1.0


def keys(*ranges: int, slot: int = SLOT) -> np.ndarray:
    pages = np.array(ranges, dtype=np.uint64) * np.uint64(512)
    return range_keys(np.full(len(ranges), slot, dtype=np.int64), pages)


def promote(book: RangeBook, number: int, pages: int, *, slot: int = SLOT, now: float = 1.0) -> None:
    book.promoted(np.repeat(keys(number, slot=slot), pages), now, 0.0, 0.0)


def seen(these: np.ndarray, where: str = "dram", *, given_up: float = 0.0, share: float = -1) -> Residence:
    count = len(these)
    everywhere = {"dram": 1.0, "slow": 0.0, "both": 0.5}[where] if share < 0 else share
    return Residence(
        these,
        np.full(count, where == "dram"),
        np.full(count, where == "slow"),
        np.full(count, everywhere),
        np.full(count, given_up),
    )


def split(*ranges: int, slot: int = SLOT) -> RangeBook:
    book = RangeBook()
    book.split(slot, keys(*ranges, slot=slot), 0.0, 0.0, 0.0)
    return book


def hot(book: RangeBook, *ranges: int, now: float = LATER, **where: float) -> list[int]:
    return book.choose(seen(keys(*ranges), **where), now, 0.0).hot.tolist()


@pytest.mark.parametrize(("pages", "chosen"), [(THROUGHOUT, True), (THROUGHOUT - 1, False), (0, False)])
def test_a_range_that_was_brought_up_is_hot_throughout(pages: int, chosen: bool) -> None:
    book = split(1, 2)
    promote(book, 1, pages)
    assert hot(book, 1, 2) == (keys(1).tolist() if chosen else [])


@pytest.mark.parametrize("where", ["slow", "both"])
def test_only_what_is_all_in_dram_is_rebuilt_as_hot(where: str) -> None:
    book = split(1)
    promote(book, 1, 512)
    assert not len(book.choose(seen(keys(1), where), LATER, 0.0).hot)


def test_what_left_dram_again_must_be_brought_up_again() -> None:
    book = split(1)
    promote(book, 1, 512)
    book.choose(seen(keys(1), "both", share=0.5), LATER, 0.0)
    assert not hot(book, 1)


def test_a_few_pages_may_still_be_on_their_way_up() -> None:
    book = split(1)
    promote(book, 1, 500)
    book.choose(seen(keys(1), "both", share=0.97), LATER, 0.0)
    assert hot(book, 1)


def coarse(book: RangeBook, count: int = FEWEST_TOUCHED, first: int = 100) -> None:
    for number in range(first, first + count):
        promote(book, number, THROUGHOUT)


def fine(book: RangeBook, count: int = FEWEST_TOUCHED, first: int = 200) -> None:
    for number in range(first, first + count):
        promote(book, number, TOUCHED)


def test_a_range_that_stayed_counts_where_heat_is_coarse() -> None:
    book = split(1)
    coarse(book)
    assert hot(book, 1, given_up=SURVIVED)


def test_a_range_that_stayed_while_little_was_given_up_proves_nothing() -> None:
    book = split(1)
    coarse(book)
    assert not hot(book, 1, given_up=0.9 * SURVIVED)


def test_half_hot_ranges_stay_small() -> None:
    """Heat in clusters of 64 KiB: ranges with hot pages hold cold ones, also where none has left yet."""
    book = split(*range(50))
    fine(book, 40)
    coarse(book, 10)
    assert not hot(book, *range(50), given_up=10.0)


def test_cold_pages_that_came_up_by_luck_do_not_make_heat_fine() -> None:
    book = split(1)
    coarse(book)
    for number in range(300, 700):
        promote(book, number, 100)
    assert hot(book, 1, given_up=SURVIVED)


def test_too_few_ranges_do_not_say_how_coarse_heat_is() -> None:
    book = split(1)
    coarse(book, FEWEST_TOUCHED - 1)
    assert not hot(book, 1, given_up=10.0)


def test_one_process_says_nothing_of_another() -> None:
    book = split(1)
    book.split(4, keys(slot=4), 0.0, 0.0, 0.0)
    for number in range(100, 130):
        promote(book, number, 512, slot=4)
    assert not hot(book, 1, given_up=10.0)


def test_ranges_of_a_process_that_was_never_split_are_not_remembered() -> None:
    book = split(1)
    promote(book, 7, 512, slot=9)
    assert len(book) == 1


def cold(book: RangeBook, now: float, passes: float) -> list[int]:
    return book.choose(seen(keys(1), "slow"), now, passes).cold.tolist()


def test_a_range_unused_on_the_slow_tier_is_cold_throughout() -> None:
    assert cold(split(1), UNUSED_SECONDS, 1.0) == keys(1).tolist()


@pytest.mark.parametrize(("now", "passes"), [(UNUSED_SECONDS - 1, 1.0), (UNUSED_SECONDS, 0.9), (9e9, 0.0)])
def test_nobody_looked_long_enough(now: float, passes: float) -> None:
    """No access seen proves nothing while the kernel does not look."""
    assert not cold(split(1), now, passes)


def test_a_range_that_is_used_is_not_cold() -> None:
    book = split(1)
    book.used(keys(1, 1, 77), 100.0)
    assert not cold(book, 100.0 + UNUSED_SECONDS - 1, 5.0)
    assert cold(book, 100.0 + UNUSED_SECONDS, 5.0)


def test_what_was_rebuilt_is_kept_and_not_looked_at_again() -> None:
    book = split(5, 6, 7)
    book.rebuilt(keys(7, 5), 20.0, slow=False)
    assert book.kept(SLOT).tolist() == [5 * 512, 7 * 512]
    assert book.due(1e9, 100).tolist() == keys(6).tolist()
    assert not len(book.kept(SLOT + 1))


def test_a_rebuilt_range_that_is_used_on_the_slow_tier_is_split_again() -> None:
    """As one page it looks as hot as all of its pages together."""
    book = split(5, 6)
    book.rebuilt(keys(5, 6), 20.0, slow=True)
    book.used(keys(6), 30.0)
    assert book.kept(SLOT).tolist() == [5 * 512]


def test_looks_are_far_apart_where_nothing_changes() -> None:
    book, looks = split(1), 0
    for second in range(3600):
        if len(book.due(float(second), 10)):
            looks += 1
            book.choose(seen(keys(1), "both"), float(second), 0.0)
    assert looks <= np.log2(LONGEST_LOOK / FIRST_LOOK) + 2 + 3600 / LONGEST_LOOK


def test_a_range_of_which_a_few_pages_are_missing_is_looked_at_more_often() -> None:
    book, looks = split(1), []
    promote(book, 1, 500)
    for second in range(600):
        if len(book.due(float(second), 10)):
            looks.append(second)
            book.choose(seen(keys(1), "both", share=0.97), float(second), 0.0)
    assert max(np.diff(looks)) <= LONGEST_LOOK_HOT and len(looks) <= 20


def test_those_with_most_promoted_pages_are_looked_at_first() -> None:
    book = split(1, 2, 3)
    promote(book, 2, 300)
    promote(book, 3, 400)
    assert book.due(LATER, 2).tolist() == keys(3, 2).tolist()
    assert not len(book.due(FIRST_LOOK - 1, 2)), "nothing has had time to happen"


@pytest.mark.parametrize("for_good", [False, True])
def test_what_failed_is_tried_later(for_good: bool) -> None:
    book = split(1)
    book.failed(keys(1), 20.0, for_good=for_good)
    wait = LONGEST_LOOK if for_good else FIRST_LOOK
    assert not len(book.due(20.0 + wait - 1, 9)) and len(book.due(20.0 + wait, 9))


def test_when_dram_is_short_the_oldest_are_given_back_for_longer_each_time() -> None:
    book, now = split(1, 2, 3), 100.0
    for number in (2, 1, 3):
        book.rebuilt(keys(number), now, slow=False)
        now += 10
    assert book.release(2, now, 25.0) == 1 and book.kept(SLOT).tolist() == [512, 1536]
    book.split(SLOT, keys(2), now, 0.0, 0.0)
    assert not len(book.due(now + FIRST_TRUCE - 1, 9)) and len(book.due(now + FIRST_TRUCE, 9))
    book.rebuilt(keys(2), 500.0, slow=False)
    book.release(9, 1000.0, 25.0)
    assert not len(book.kept(SLOT))
    assert keys(2)[0] not in book.due(1000.0 + 2 * FIRST_TRUCE - 1, 9)
    assert keys(2)[0] in book.due(1000.0 + 2 * FIRST_TRUCE, 9)


def test_cold_ranges_are_not_given_back_since_they_hold_no_dram() -> None:
    book = split(1)
    book.rebuilt(keys(1), 0.0, slow=True)
    assert book.release(9, 1e6, 0.0) == 0


def test_what_was_brought_up_counts_although_khugepaged_made_it_huge_meanwhile() -> None:
    """But not that it stayed: as one page it was as young as its youngest."""
    book = split(1, 2)
    promote(book, 1, 512)
    book.split(SLOT, keys(1, 2), 50.0, 0.5, 2.0)
    assert hot(book, 1, now=60.0) == keys(1).tolist()
    coarse(book)
    assert not hot(book, 2, now=60.0, given_up=0.5 + 0.9 * SURVIVED)


def test_a_rebuilt_range_that_is_split_begins_anew() -> None:
    book = split(1)
    promote(book, 1, 512)
    book.rebuilt(keys(1), 10.0, slow=False)
    book.split(SLOT, keys(1), 50.0, 0.5, 2.0)
    assert not hot(book, 1, now=60.0)


def test_processes_that_are_gone_are_forgotten() -> None:
    book = split(1)
    book.split(9, keys(1, 2, slot=9), 0.0, 0.0, 0.0)
    book.prune(np.array([9], dtype=np.int64))
    assert len(book) == 2
    promote(book, 5, 512)
    assert len(book) == 2, "a slot may be another process by now"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_memory_is_bounded(sizes: list[int]) -> None:
    book, first = RangeBook(capacity=512), 0
    for now, size in enumerate(sizes):
        book.split(SLOT, keys(*range(first, first + size)), float(now), 0.0, 0.0)
        first += size
        assert len(book) <= 512
        latest = set(keys(*range(first - size, first)).tolist())
        assert latest <= set(book.due(1e9, 10_000).tolist()), "the latest are remembered"


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["split", "promote", "used", "rebuilt", "failed", "release", "look"]),
        st.integers(0, 5),
        st.sampled_from(["dram", "slow", "both"]),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(ACTS)
def test_nothing_is_both_kept_whole_and_looked_at(acts: list[tuple[str, int, str]]) -> None:
    book = RangeBook()
    for now, (act, number, where) in enumerate(acts):
        time, these = 40.0 * now, keys(number)
        match act:
            case "split":
                book.split(SLOT, these, time, 0.1 * now, float(now))
            case "promote":
                book.promoted(np.repeat(these, 200), time, 0.1 * now, float(now))
            case "used":
                book.used(these, time)
            case "rebuilt":
                book.rebuilt(these, time, slow=where == "slow")
            case "failed":
                book.failed(these, time)
            case "release":
                book.release(2, time, 10.0)
            case _:
                choice = book.choose(seen(book.due(time, 10), where, given_up=0.1 * now), time, float(now))
                assert not set(choice.hot.tolist()) & set(choice.cold.tolist())
                assert where == "dram" or not len(choice.hot)
                assert where == "slow" or not len(choice.cold)
        kept = set(book.kept(SLOT).tolist())
        assert not kept & {int(key & ((1 << 36) - 1)) * 512 for key in book.due(1e12, 100).tolist()}
