"""No access seen anywhere proves nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tierd.core.silence import ALL_IDLE, Silence, proves_nothing

SLOW = 1000


def test_what_has_not_spoken_has_not_been_heard() -> None:
    assert Silence().update(0, 0, SLOW)


def test_one_access_breaks_it_and_a_whole_pass_without_any_brings_it_back() -> None:
    silence = Silence()
    assert not silence.update(1, 0, SLOW)
    assert not silence.update(0, SLOW - 1, SLOW), "not everything was unmapped yet"
    assert silence.update(0, 1, SLOW)
    assert silence.update(0, 0, SLOW), "and it stays"
    assert not silence.update(1, SLOW, SLOW)


def test_a_pass_is_counted_from_the_last_access() -> None:
    silence = Silence()
    for _ in range(10):
        assert not silence.update(1, 0, SLOW)
        assert not silence.update(0, SLOW - 1, SLOW)


def test_while_nothing_is_unmapped_silence_is_no_news() -> None:
    """The kernel has not come by, or there is nothing on slow nodes that it could unmap."""
    silence = Silence()
    silence.update(1, 0, SLOW)
    assert not any(silence.update(0, 0, SLOW) for _ in range(100))
    assert not any(silence.update(0, 50, 0) for _ in range(100))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, SLOW)), max_size=50))
def test_never_silent_in_the_round_of_an_access(rounds: list[tuple[int, int]]) -> None:
    silence = Silence()
    for accesses, unmapped in rounds:
        silent = silence.update(accesses, unmapped, SLOW)
        assert not (silent and accesses)


def test_idleness_counts_unless_all_of_it_is_idle_and_nothing_was_seen() -> None:
    assert proves_nothing(True, 1000, 1000)
    assert proves_nothing(True, 990, 1000), "what was just allocated looks young"
    assert not proves_nothing(True, int(ALL_IDLE * 1000) - 1, 1000), "something in DRAM was seen to be used"
    assert not proves_nothing(False, 1000, 1000), "something on the slow node was"
    assert proves_nothing(True, 0, 0)
