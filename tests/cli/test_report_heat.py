"""The heat of a process in a report: looking for a while, the grid, and the picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.test_tierctl import Serve, bus, serve, tierctl
from tierd.cli import Exit, heat_picture, report_picture
from tierd.cli.client import ClientError
from tierd.cli.heat_looks import BINS, MOST_LINES, MOST_LOOKS, HeatGrid, Look, grid, watch

__all__ = ["bus", "serve"]

PAGE = 4096


def row(start: int, pages: int, rate: float | None = None, **more: Any) -> dict[str, Any]:
    """As the bus has it."""
    found = {"Start": start, "End": start + pages * PAGE, "KnownPages": 0, "RememberedPages": 0, **more}
    return found if rate is None else {**found, "Rate": rate, "KnownPages": pages}


def look(time: float, *rows: dict[str, Any]) -> Look:
    from tierd.cli.render import plain

    return Look(time, plain(list(rows)))


class Daemon:
    """Answers of GetHeat, or errors, one after the other; time passes when somebody sleeps."""

    def __init__(self, *answers: Any, takes: float = 0.0) -> None:
        self.answers, self.takes = list(answers), takes
        self.now, self.asked, self.told = 1000.0, list[float](), list[float]()

    def heat(self, pid: int, bins: int) -> list[dict[str, Any]]:
        assert (pid, bins) == (4711, BINS)
        self.asked.append(self.now - 1000.0)
        self.now += self.takes
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def watch(self, seconds: float) -> tuple[list[Look], str]:
        return watch(self, 4711, seconds, self.told.append, clock=lambda: self.now, sleep=self.sleep)


def test_it_looks_every_two_seconds_however_long_a_look_takes() -> None:
    daemon = Daemon([row(0, 1, 1.0)], takes=0.5)
    looks, ended = daemon.watch(9)
    assert daemon.asked == daemon.told == [0.0, 2.0, 4.0, 6.0, 8.0] and ended == ""
    assert [found.time for found in looks] == [1000.0, 1002.0, 1004.0, 1006.0, 1008.0]
    assert looks[0].rows[0]["known_pages"] == 1 and daemon.now == 1009.0
    assert len(daemon.watch(1)[0]) == 1


def test_of_a_day_there_are_not_more_looks_than_can_be_shown() -> None:
    daemon = Daemon([row(0, 1)])
    assert MOST_LOOKS - 1 <= len(daemon.watch(86400)[0]) <= MOST_LOOKS


def test_a_process_that_ends_is_drawn_as_far_as_it_came() -> None:
    gone = ClientError("process 4711 has ended", Exit.NO_SUCH_OBJECT)
    looks, ended = Daemon([row(0, 1)], [row(0, 1)], gone).watch(60)
    assert len(looks) == 2 and ended == "process 4711 has ended"
    with pytest.raises(ClientError, match="has ended"):
        Daemon(gone).watch(60)


def test_an_engine_that_was_busy_once_leaves_a_gap() -> None:
    busy = ClientError("the engine is busy", Exit.TIMED_OUT)
    looks, ended = Daemon([row(0, 1)], busy, [row(0, 1)]).watch(6)
    assert [found.time for found in looks] == [1000.0, 1004.0, 1006.0] and ended == ""


def test_the_grid_has_all_addresses_that_were_seen_and_no_gaps() -> None:
    base = 0x7F0000000000
    found = grid(
        [
            look(1.0, row(base, 64, 5.0, Pages=64, DramPages=16), row(base + (1 << 40), 64, Pages=0)),
            # the second area has grown, and is in other parts
            look(
                2.0,
                row(base, 64, 7.0, Pages=64, DramPages=64, RememberedPages=33),
                row(base + (1 << 40), 32, 1.0, Pages=32, DramPages=0),
                row(base + (1 << 40) + 32 * PAGE, 96),
            ),
        ]
    )
    assert found.areas == [
        (base, base + 64 * PAGE),
        (base + (1 << 40), base + (1 << 40) + 128 * PAGE),
    ]
    assert found.times == (1.0, 2.0) and found.bytes == 192 * PAGE
    lines = len(found.rate)
    middles = slice(lines // 12, None, lines // 6)
    parts = found.rate[middles], found.share[middles], found.there[middles]
    rate, share, there = [part.T.tolist() for part in parts]
    nan = math.nan
    assert lines == MOST_LINES and np.array_equal(
        np.array(rate)[:, :6], [[5, 5, nan, nan, nan, nan], [7, 7, 1, nan, nan, nan]], equal_nan=True
    )
    assert np.array_equal(
        np.array(share)[:, :6], [[0.25, 0.25, nan, nan, nan, nan], [1, 1, 0, nan, nan, nan]], equal_nan=True
    )
    assert np.array(there)[:, :6].tolist() == [[True, True] + [False] * 4, [True] * 6]
    assert not found.remembered[:, 0].any() and found.remembered[:, 1].mean() == pytest.approx(
        1 / 3, abs=0.01
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 50)), max_size=8), min_size=1, max_size=5
    )
)
def test_each_line_shows_the_row_in_which_it_lies(sizes: list[list[tuple[int, int]]]) -> None:
    looks = []
    for time, parts in enumerate(sizes):
        at, rows = 0, []
        for gap, pages in parts:
            at += gap * PAGE
            rows.append(row(at, pages, float(len(rows) + 1)))
            at += pages * PAGE
        looks.append(look(float(time), *rows))
    found = grid(looks)
    assert found.rate.shape == found.there.shape == (min(MOST_LINES, found.bytes), len(looks))
    for column, seen in enumerate(looks):
        line = found.bytes / max(1, len(found.rate))
        for part in seen.rows:
            shown = np.count_nonzero(found.rate[:, column] == part["rate"]) * line
            assert shown == pytest.approx(part["end"] - part["start"], abs=line + 1)


def drawn(looks: list[Look]) -> tuple[Any, HeatGrid]:
    found = grid(looks)
    return report_picture._figure([], [], ("process 7 (x)", found)), found


def test_the_axes_have_what_was_seen() -> None:
    parts = [row(n * 16 * PAGE, 16, 2.0**n, Pages=16, DramPages=n) for n in range(8)]
    figure, found = drawn([look(1.79e9 + 2 * n, *parts[: 4 + n]) for n in range(5)])
    heat, where = figure.axes[3], figure.axes[4]
    assert "how often process 7 (x) uses its memory" in heat.get_title(loc="left")
    mesh = heat.collections[0].get_array()
    assert mesh.compressed().tolist() == found.rate[np.isfinite(found.rate)].tolist()
    assert where.collections[0].get_array().max() == pytest.approx(100 * 7 / 16)
    assert heat.get_ylim() == (0, found.bytes)
    assert [label.get_text() for label in heat.get_yticklabels()] == ["0\n512 KiB"]


@pytest.mark.parametrize("rows", [(), (row(0, 4),), (row(0, 4, 0.0),), (row(0, 4, 3.0, RememberedPages=4),)])
@pytest.mark.parametrize("looks", [1, 3])
def test_odd_ones_are_drawn_too(rows: tuple[dict[str, Any], ...], looks: int) -> None:
    found = grid([look(1.79e9 + n, *rows) for n in range(looks)])
    assert report_picture.png([], [], "title", ("process 7 ($\\\\frac$)", found)).startswith(b"\x89PNG")


@pytest.mark.service
def test_a_page_with_the_heat_of_a_process(serve: Serve, tmp_path: Path) -> None:
    serve("good")
    path = tmp_path / "report.html"
    shown = tierctl("report", "--output", str(path), "--pid", "4711", "--for", "1s")
    assert (shown.returncode, shown.stdout) == (0, "")
    assert shown.stderr.splitlines()[0] == "looking at process 4711 (postgres) for 1s"
    page = path.read_text()
    assert "data:image/png;base64" in page and len(page) < 1 << 20
    plain = tmp_path / "plain.html"
    assert tierctl("report", "--output", str(plain)).returncode == 0
    assert "data:image" not in plain.read_text()


@pytest.mark.service
@pytest.mark.parametrize(
    ("pid", "status", "says"),
    [
        ("7", 5, "tierctl: process 7\\x1b[2J has ended"),
        ("8", 1, "tierd does not place process 8: the policy does not select it"),
    ],
)
def test_a_process_that_cannot_be_looked_at(
    serve: Serve, tmp_path: Path, pid: str, status: int, says: str
) -> None:
    serve("good")
    shown = tierctl("report", "--output", str(tmp_path / "x.png"), "--pid", pid)
    assert shown.returncode == status and says in shown.stderr.splitlines()[-1]
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.service
def test_who_may_not_see_it_and_where_it_cannot_be_written(serve: Serve, tmp_path: Path) -> None:
    serve("org.tierd1.Error.NotAuthorized")
    shown = tierctl("report", "--output", str(tmp_path / "x.png"), "--pid", "4711")
    assert shown.returncode == 4 and "(run it as root)" in shown.stderr
    shown = tierctl("report", "--output", str(tmp_path / "no/x.png"), "--pid", "4711")
    assert shown.returncode == 1 and "no: no directory to write to" in shown.stderr


def test_the_key_of_the_picture_names_what_it_shows() -> None:
    assert all(word in heat_picture.KEY for word in ("grey", "white", "hatched"))
