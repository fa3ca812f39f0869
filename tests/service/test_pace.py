"""How often the engine does what it does not do in every step."""

from __future__ import annotations

import pytest

from tierd.service.pace import MOST_SHARE, Every


@pytest.mark.parametrize(("resting", "seconds"), [(False, 2.0), (True, 5.0)])
def test_often_while_it_places_and_seldom_at_rest(resting: bool, seconds: float) -> None:
    every = Every(2.0, 5.0)
    assert every.due(100.0)
    every.done(100.0, resting)
    assert not every.due(100.0 + seconds - 0.01) and every.due(100.0 + seconds)


def test_what_takes_long_is_done_less_often() -> None:
    """Thousands of processes: a look at all of them takes some tenths of a second."""
    every = Every(2.0, 5.0)
    every.done(100.0, False, took=0.01)
    assert every.due(102.0)
    every.done(100.0, False, took=0.4)
    assert not every.due(100.0 + 0.39 * MOST_SHARE) and every.due(100.0 + 0.4 * MOST_SHARE)
