"""How far a delay is believed: as far as all the other delays allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierd.core.rates import LONGEST_DELAY, MOST_EVENTS, SHORTEST_DELAY, RatePrior

COLD, HOT = 0.05, 5.0


def learned(hot: int, cold: int, *, waited: float = 30.0, seed: int = 1) -> RatePrior:
    """A prior that saw so many pages of either rate, unmapped `waited` seconds ago; those not used since are
    still waiting."""
    random = np.random.default_rng(seed)
    delays = random.exponential(np.repeat([1 / HOT, 1 / COLD], [hot, cold]))
    prior = RatePrior(1000.0)
    prior.update(0.0, hot + cold)
    prior.observe(delays[delays < waited])
    for _ in range(10):
        prior.update(waited, 0)
    return prior


def rate(prior: RatePrior, waited: float, events: int = 1) -> float:
    return float(prior.rate(np.array([events]), np.array([waited]))[0])


def test_before_anything_is_known_a_delay_tells_half_the_rate_that_it_would_be_the_mean_of() -> None:
    for delay in (0.02, 0.2, 2.0):
        assert rate(RatePrior(20.0), delay) == pytest.approx(1 / (2 * delay), rel=0.25)


def test_among_cold_pages_alone_an_early_use_is_luck() -> None:
    prior = learned(0, 100_000)
    for delay in (0.1, 1.0, 20.0):
        assert rate(prior, delay) < 3 * COLD, "no reason to swap it for another cold page"


def test_where_some_are_hot_an_early_use_tells_them() -> None:
    prior = learned(20_000, 80_000)
    assert rate(prior, 0.1) == pytest.approx(HOT, rel=0.35)
    assert rate(prior, 10.0) == pytest.approx(COLD, rel=0.5)
    assert rate(prior, 0.2, events=2) > rate(prior, 0.1), "seen twice is surer"


def test_pages_that_are_still_waiting_count_as_cold() -> None:
    """Those that were used soon are a part of those that were unmapped."""
    few = learned(0, 100_000, waited=2.0)
    assert rate(few, 1.0) < 4 * COLD
    unaware = RatePrior(1000.0)
    random = np.random.default_rng(1)
    delays = random.exponential(1 / COLD, 100_000)
    unaware.observe(delays[delays < 2.0])
    for _ in range(10):
        unaware.update(2.0, 0)
    assert rate(unaware, 1.0) > 2 * rate(few, 1.0), "without them, all look warm"


def test_a_delay_is_found_by_the_share_that_is_used_within_it() -> None:
    prior = learned(0, 100_000)
    assert prior.delay(0.03) == pytest.approx(-np.log(0.97) / COLD, rel=0.3)
    assert prior.delay(0.5) == pytest.approx(np.log(2) / COLD, rel=0.3)


def test_a_reset_forgets() -> None:
    prior = learned(0, 100_000)
    prior.reset()
    assert rate(prior, 0.1) == rate(RatePrior(20.0), 0.1)


@settings(max_examples=50)
@given(
    st.lists(st.floats(0.0, 1e6), max_size=200),
    st.lists(st.tuples(st.floats(0.0, 10.0), st.integers(0, 1 << 30)), max_size=30),
)
def test_any_delays_at_all(delays: list[float], rounds: list[tuple[float, int]]) -> None:
    """Rates stay finite, above nothing, and fall with the wait; longest_wait says where."""
    prior, now = RatePrior(20.0), 0.0
    prior.observe(np.array(delays))
    for later, unmapped in rounds:
        now += later
        prior.update(now, unmapped)
    waits = np.geomspace(SHORTEST_DELAY / 2, 2 * LONGEST_DELAY, 50)
    for events in range(1, MOST_EVENTS + 1):
        rates = prior.rate(np.full(len(waits), events), waits)
        assert np.isfinite(rates).all() and (rates > 0).all()
        assert (np.diff(rates) <= 1e-6 * rates[:-1]).all()
    for least in (1 / 60, 0.5, 100.0, 1e9):
        longest = prior.longest_wait(least)
        for events in np.flatnonzero(longest) + 1:
            assert rate(prior, longest[events - 1], int(events)) >= least * (1 - 1e-6)


def test_what_was_counted_before_and_is_discounted_says_less() -> None:
    """Hot pages go up before a rest, and what is left must not pass for them."""
    rates: list[float] = []
    for weight in (1.0, 1 / 32):
        prior = RatePrior(30.0)
        generator = np.random.default_rng(7)
        prior.observe(generator.exponential(0.05, 60_000))
        prior.update(0.0, 100_000)
        prior.discount(weight)
        for second in range(1, 21):
            prior.observe(generator.exponential(20.0, 100))
            prior.update(float(second), 2_000)
        rates.append(float(prior.rate(np.array([1]), np.array([0.3]))[0]))
    assert rates[1] < rates[0] / 2
