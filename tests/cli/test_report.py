"""`tierctl report`, against a stand-in for the daemon."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.test_tierctl import Serve, bus, serve, tierctl
from tierd.cli import report_picture

__all__ = ["bus", "serve"]

ROW = {
    "time": 1.79e9,
    "promoted_bytes": 5 << 20,
    "demoted_bytes": 3 << 20,
    "placed_dram_bytes": 1,
    "placed_slow_bytes": 3,
    "tier_used_bytes": {"memory_tier4": 1 << 30},
    "tier_total_bytes": {"memory_tier4": 2 << 30},
}


@pytest.mark.service
def test_a_page_that_needs_no_other_file(serve: Serve, tmp_path: Path) -> None:
    serve("good")
    path = tmp_path / "report.html"
    shown = tierctl("report", "--output", str(path))
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "promoted and" in shown.stderr and "in 290s" in shown.stderr
    page = path.read_text()
    for part in ("Status", "Plan", "Service classes", "memory_tier56", "hot: 12 accesses a second"):
        assert part in page
    assert "\x1b" not in page and "lacks 512 MiB\\x1b[2J" in page
    assert not re.search(r"<(script|link|img)\b|\bsrc=|@import", page)
    (picture,) = re.findall(r"<svg.*</svg>", page, re.DOTALL)
    assert len(list(ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}path"))) > 20
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.glob(".report*")) == []


@pytest.mark.service
def test_a_picture(serve: Serve, tmp_path: Path) -> None:
    serve("good")
    path = tmp_path / "report.png"
    assert tierctl("report", "--output", str(path), "--since", "100s").returncode == 0
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG") and int.from_bytes(data[16:20], "big") > 800
    later = tmp_path / "later.png"
    assert tierctl("report", "--output", str(later), "--since", "200s").returncode == 0
    assert later.read_bytes() != data, "it shows how far it looks back"


@pytest.mark.service
def test_a_daemon_that_has_just_been_started(serve: Serve, tmp_path: Path) -> None:
    serve("good")
    path = tmp_path / "report.html"
    shown = tierctl("report", "--output", str(path), "--since", "1s")
    assert shown.returncode == 0 and "remembers nothing yet" in shown.stderr
    assert "remembers nothing yet" in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--output", "report.pdf"), "`report.pdf` ends neither in .html nor in .png"),
        (("--output", "report.html", "--since", "soon"), "--since: `soon` is not a time"),
        ((), "--output"),
        (
            ("--output", "report.html", "--for", "5s"),
            "--for: it says how long to look at a process",
        ),
        (("--output", "report.html", "--pid", "7", "--for", "5"), "`5` is a bare number"),
        (("--output", "report.html", "--pid", "7", "--for", "0s"), "--for: write a duration of 1s to 24h"),
        (("--output", "report.html", "--pid", "x"), "not the number of a process"),
    ],
)
def test_wrong_input(arguments: tuple[str, ...], says: str) -> None:
    shown = tierctl("report", *arguments)
    assert shown.returncode == 2 and says in shown.stderr


@pytest.mark.service
def test_where_it_cannot_write(serve: Serve, tmp_path: Path) -> None:
    serve("good")
    shown = tierctl("report", "--output", str(tmp_path / "no/such/report.html"))
    assert shown.returncode == 1 and shown.stderr.count("\n") == 1 and "no/such" in shown.stderr


@pytest.mark.service
def test_without_matplotlib(serve: Serve, tmp_path: Path) -> None:
    serve("good")
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    path = ":".join([str(tmp_path), *filter(None, sys.path)])
    shown = tierctl("report", "--output", str(tmp_path / "report.html"), PYTHONPATH=path)
    assert shown.returncode == 1 and "apt install python3-matplotlib" in shown.stderr
    assert not (tmp_path / "report.html").exists()


def test_the_axes_have_what_is_shown() -> None:
    figure = report_picture._figure([ROW, {**ROW, "time": 1.79e9 + 10}], [])
    occupancy, movement, placed = figure.axes
    assert [list(line.get_ydata()) for line in occupancy.lines] == [[1.0, 1.0], [2.0, 2.0]]
    low, high = (c.get_paths()[0].get_extents() for c in reversed(movement.collections))
    assert (high.ymax, low.ymin) == (5.0, -3.0)
    assert list(placed.lines[0].get_ydata()) == [25.0, 25.0]
