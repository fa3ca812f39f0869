"""Nothing that was planned gets lost in the sums."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st

from tierd.core.outcome import REASONS, Outcome, explain

COUNTS = st.integers(0, 1 << 40)
OUTCOMES = st.builds(
    Outcome,
    moved=COUNTS,
    already_there=COUNTS,
    refused=COUNTS,
    deferred=COUNTS,
    along=COUNTS,
    errors=st.dictionaries(st.integers(0, 133), COUNTS, max_size=6),
    seconds=st.integers(0, 1 << 20).map(float),
)


@given(OUTCOMES, OUTCOMES)
def test_a_sum_holds_every_page_of_both(one: Outcome, other: Outcome) -> None:
    total = one + other
    assert total.planned == one.planned + other.planned
    assert total.moved == one.moved + other.moved
    assert total.carried == one.carried + other.carried
    assert total.already_there == one.already_there + other.already_there
    assert total.refused == one.refused + other.refused
    assert total.deferred == one.deferred + other.deferred
    assert total.carried == one.carried + other.carried == total.moved + total.along
    assert total.seconds == one.seconds + other.seconds
    for code in one.errors.keys() | other.errors.keys():
        assert total.errors[code] == one.errors.get(code, 0) + other.errors.get(code, 0)


@given(OUTCOMES, OUTCOMES, OUTCOMES)
def test_the_order_does_not_matter(a: Outcome, b: Outcome, c: Outcome) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)


@given(OUTCOMES, OUTCOMES)
def test_a_sum_leaves_its_parts_alone(one: Outcome, other: Outcome) -> None:
    before = dict(one.errors), dict(other.errors)
    total = one + other
    total.errors[-1] = 5
    assert (dict(one.errors), dict(other.errors)) == before
    assert one + Outcome() == one


def test_every_refusal_can_be_explained() -> None:
    for code in (*REASONS, *errno.errorcode, 9999):
        assert explain(code)
    assert "several processes" in explain(errno.EACCES) and explain(errno.EIO) == "EIO"
