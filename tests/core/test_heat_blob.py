"""Heat from one run to the next: the same hottest pages, by whatever slots, and nothing from wrong bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_heat import Scan
from tierd.core import heat_blob
from tierd.core.access import Heat
from tierd.core.heat import HeatMap
from tierd.core.heat_blob import MOST_HALF_LIVES, Origin, pack, unpack
from tierd.core.model import ProcessId
from tierd.core.region_heat import RegionHeat
from tierd.core.sampled_heat import SampledHeat
from tierd.errors import MalformedError

HALF_LIFE = 20.0
LEAST = 0.01
NEW: dict[str, Callable[[], Heat]] = {
    "faults": lambda: HeatMap(HALF_LIFE, 5.0),
    "samples": lambda: SampledHeat(HALF_LIFE, 1000, 5.0),
    "regions": lambda: RegionHeat(HALF_LIFE, 0.1, 20, 5.0),
}
PROCESSES = {1: ProcessId(100, 7), 2: ProcessId(200, 8), 3: ProcessId(300, 9)}


def origin(heat: Heat, boot: str = "b-o-o-t", source: str = "hint faults") -> Origin:
    return Origin(boot, source, heat.evidence)


def bytes_of(heat: Heat, when: float, of: Origin | None = None) -> bytes:
    return b"".join(pack(of or origin(heat), when, PROCESSES, heat.dump()))


def pass_on(blob: bytes, heat: Heat, now: float, slot_of: dict[ProcessId, int]) -> int:
    left = unpack(blob, origin(heat), heat.dump(), now)
    return heat.restore(left.arrays, left.passage(slot_of, now, HALF_LIFE))


def hottest(heat: Heat, now: float, slots: dict[int, int] | None = None) -> dict[tuple[int, ...], float]:
    """The rate of each of the hottest pages, by slot, page and near node. slots: others in their place."""
    found = heat.hottest(now, LEAST, 1 << 16)
    columns = (found.slot, found.page, found.near, found.rate)
    return {
        (slots[slot] if slots else slot, *rest): rate
        for slot, *rest, rate in zip(*(column.tolist() for column in columns), strict=True)
    }


def feed(heat: Heat, seen: list[tuple[int, int, float]], slots: dict[int, int] | None = None) -> None:
    """seen: slot, page and time of each; slots: others in the place of these."""
    slot, page, time = zip(*sorted(seen, key=lambda one: one[2]), strict=True)
    heat.observe(
        np.array([slots[one] if slots else one for one in slot], dtype=np.int64),
        np.array(page, dtype=np.uint64) + np.uint64(0x7F0000000),
        np.array(time),
        (np.array(page) % 3 - 1).astype(np.int16),
    )


def seen(first: float, last: float) -> st.SearchStrategy[list[tuple[int, int, float]]]:
    one = st.tuples(st.sampled_from(sorted(PROCESSES)), st.integers(0, 4000), st.floats(first, last))
    return st.lists(one, min_size=1, max_size=60)


@pytest.mark.parametrize("kind", NEW)
@given(before=seen(1000.0, 1030.0), after=seen(1050.0, 1060.0), gone=st.integers(1, 3), gap=st.floats(0, 20))
@settings(max_examples=40, deadline=None)
def test_the_next_run_goes_on_where_the_last_one_stopped(
    kind: str,
    before: list[tuple[int, int, float]],
    after: list[tuple[int, int, float]],
    gone: int,
    gap: float,
) -> None:
    """As if the time between had not been: the same hottest pages at once, and after more is seen."""
    old, new = NEW[kind](), NEW[kind]()
    feed(old, before)
    old.forget(*(np.array([value], dtype) for value, dtype in ((1, np.int64), (0x7F0000000, np.uint64))))
    old.update(1030.0, 500, resting=False, measured=False)
    slots = {slot: 10 * slot for slot in PROCESSES if slot != gone}
    pages = pass_on(
        bytes_of(old, 1040.0), new, 1040.0 + gap, {PROCESSES[slot]: to for slot, to in slots.items()}
    )
    old.prune(1040.0, np.array(list(slots)))
    assert pages == len(new) * (512 if kind == "regions" else 1) == len(old) * (pages // max(1, len(old)))
    assert hottest(new, 1040.0 + gap) == pytest.approx(hottest(old, 1040.0, slots))

    after = [one for one in after if one[0] in slots]
    if after:
        feed(old, after)
        feed(new, [(slot, page, time + gap) for slot, page, time in after], slots)
        for heat, now in ((old, 1060.0), (new, 1060.0 + gap)):
            heat.update(now, 300, resting=True, measured=False)
        assert hottest(new, 1065.0 + gap) == pytest.approx(hottest(old, 1065.0, slots), rel=1e-6)
        assert new.typical == old.typical


def test_it_still_tells_hot_pages_from_cold_ones() -> None:
    """The belief in how often all pages are used comes along: without it a first delay says little."""
    scan = Scan(pages=24_000)
    old, new = NEW["faults"](), NEW["faults"]()
    scan.run(old, 40.0)
    assert pass_on(bytes_of(old, scan.now), new, scan.now + 3.0, {PROCESSES[3]: 1}) == len(old)
    assert new.typical == old.typical != NEW["faults"]().typical
    found = new.hottest(scan.now + 3.0, 1.0, 1 << 16)
    right = scan.hot[(found.page - np.uint64(0x7F0000000)).astype(int)]
    assert len(found) > 0.8 * np.count_nonzero(scan.hot) and right.mean() > 0.95


def test_what_is_older_than_a_half_life_ages() -> None:
    old, new = NEW["samples"](), NEW["samples"]()
    feed(old, [(1, 5, 1000.0)] * 64)
    pass_on(bytes_of(old, 1000.0), new, 1000.0 + 2 * HALF_LIFE, {PROCESSES[1]: 1})
    (then,) = hottest(old, 1000.0).values()
    (now,) = hottest(new, 1000.0 + 2 * HALF_LIFE).values()
    assert now == pytest.approx(then / 2)


def known() -> HeatMap:
    heat = HeatMap(HALF_LIFE)
    feed(heat, [(1, page, 1000.0 + page / 100) for page in range(300)])
    heat.update(1005.0, 300, resting=False, measured=False)
    return heat


BLOB = bytes_of(known(), 1005.0)


def refusal(blob: bytes, heat: Heat | None = None, now: float = 1010.0, **other: Any) -> str:
    heat = HeatMap(HALF_LIFE) if heat is None else heat
    with pytest.raises(MalformedError) as refused:
        unpack(blob, replace(origin(heat), **other), heat.dump(), now)
    return str(refused.value)


def test_what_is_of_something_else_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    heat = known()
    blob = BLOB
    assert unpack(blob, origin(heat), heat.dump(), 1010.0).processes == tuple(PROCESSES.values())
    assert refusal(blob, boot="another") == "it is of another boot"
    assert refusal(blob, source="DAMON") == "it is of hint faults, and DAMON is used now"
    assert refusal(blob, HeatMap(30.0)) == "its half-life is 20, and 30 is used now"
    assert refusal(bytes_of(heat, 1005.0, origin(heat, source="\x1b[2J"))).startswith(r"it is of \x1b[2J,")
    samples = bytes_of(SampledHeat(HALF_LIFE, 1000), 1005.0)
    assert refusal(samples, SampledHeat(HALF_LIFE, 99)) == "its sampling period is 1000, and 99 is used now"
    assert "another build" in refusal(samples) and "another build" in refusal(blob, NEW["regions"]())
    assert refusal(blob, now=1005.0 + MOST_HALF_LIVES * HALF_LIFE + 1) == "it is 161 seconds old"
    assert refusal(blob, now=1004.0) == "it is -1 seconds old"
    monkeypatch.setattr(heat_blob, "PAGE_SIZE", 65536)
    assert refusal(blob) == "it is of pages of another size"
    monkeypatch.setattr(heat_blob, "VERSION", 3)
    assert refusal(blob) == "it is of version 2, and this tierd takes version 3"


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("pages.delay", np.zeros(300)),
        ("pages.delay", np.zeros(299, dtype=np.float32)),
        ("prior_counts", np.zeros(7)),
        ("more", np.zeros(7)),
    ],
)
def test_arrays_of_another_shape_are_refused(name: str, array: np.ndarray) -> None:
    heat = known()
    blob = b"".join(pack(origin(heat), 1005.0, PROCESSES, {**heat.dump(), name: array}))
    assert refusal(blob) == "it is of another build of tierd"


@given(cut=st.integers(0, 1 << 16), flip=st.integers(0, 1 << 20), junk=st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_refused_and_raise_nothing_else(cut: int, flip: int, junk: bytes) -> None:
    blob = BLOB
    assert refusal(blob[: cut % len(blob)])
    damaged = bytearray(blob)
    damaged[flip // 8 % len(blob)] ^= 1 << flip % 8
    assert refusal(bytes(damaged))
    assert refusal(junk) and refusal(blob + junk if junk else b"")


def test_a_page_takes_few_bytes() -> None:
    """22 for the page itself, and 32 for each region of 4 MiB."""
    heat = HeatMap(HALF_LIFE)
    feed(heat, [(1, page, 1000.0) for page in range(102_400)])
    assert len(bytes_of(heat, 1000.0)) < 22.2 * 102_400
