"""The picture of a report, drawn with matplotlib. To import it raises ImportError where that is missing."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import matplotlib
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from tierd.cli import heat_picture
from tierd.cli.heat_looks import HeatGrid

Rows = Sequence[Mapping[str, Any]]

GIB: Final = float(1 << 30)
MIB: Final = float(1 << 20)
COLOURS: Final = ("#0b6e4f", "#c07a1a", "#2b5fa8", "#8a3b8f", "#8a8a8a")
"""The fastest tier first; told apart by most people who see colours otherwise."""
UP, DOWN = COLOURS[0], COLOURS[1]
MOST_BARS: Final = 16
Heat = tuple[str, HeatGrid]
"""A process, as people call it, and what was seen of it."""


def png(past: Rows, classes: Rows, title: str, heat: Heat | None = None) -> bytes:
    """past, classes: as `render.plain` makes them of GetHistory's rows and of the property Classes. heat: of
    one process, to be drawn as well."""
    figure = _figure(past, classes, heat)
    figure.suptitle(title, fontsize=11)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def svg(past: Rows, classes: Rows, heat: Heat | None = None) -> str:
    """The same, to stand in a page."""
    file = io.StringIO()
    # without it each picture of the same values would differ
    with matplotlib.rc_context({"svg.hashsalt": "tierd"}):
        _figure(past, classes, heat).savefig(file, format="svg", dpi=110, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def _figure(past: Rows, classes: Rows, heat: Heat | None = None) -> Figure:
    draws = [_occupancy, _movement, _placed]
    heights = [3.0, 2.4, 2.0] + ([0.6 + 0.3 * min(len(classes), MOST_BARS)] if classes else [])
    panels = len(heights)
    heights += [heat_picture.HEIGHT] if heat else []
    figure = Figure(figsize=(10, sum(heights) + 0.8), layout="constrained")
    places = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    axes = [figure.add_subplot(places[number]) for number in range(panels)]
    times = [datetime.fromtimestamp(row["time"]).astimezone() for row in past]
    if not past:
        axes[0].set_title("tierd has only just been started", loc="left", fontsize=10)
    for axis, draw in zip(axes, draws, strict=False):
        axis.grid(alpha=0.3)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        if not past:
            axis.set_xticks([])
            continue
        draw(axis, times, past)
        locator = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]
        formatter = ConciseDateFormatter(locator, tz=times[0].tzinfo)  # type: ignore[no-untyped-call]
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(formatter)
    if classes:
        _classes(axes[-1], classes[:MOST_BARS])
    if heat:
        name, grid = heat
        heat_picture.draw(figure, places[panels], grid, name, slow=DOWN, dram=UP)
    return figure


def _occupancy(axis: Any, times: Sequence[datetime], past: Rows) -> None:
    axis.set_title("memory in use, of each tier", loc="left", fontsize=10)
    axis.set_ylabel("GiB")
    names = list(past[-1]["tier_total_bytes"])
    for name, colour in zip(names, COLOURS, strict=False):
        # a tier may have come, or have been resized, meanwhile
        used, total = (
            [row[f"tier_{kind}_bytes"].get(name, float("nan")) / GIB for row in past]
            for kind in ("used", "total")
        )
        axis.plot(times, used, color=colour, label=name)
        axis.plot(times, total, color=colour, linestyle=":", linewidth=1, label=f"{name}, all of it")
    axis.set_ylim(bottom=0)
    if names:  # a tier at least; matplotlib complains of a legend of nothing
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _movement(axis: Any, times: Sequence[datetime], past: Rows) -> None:
    axis.set_title("moved: promoted above, demoted below", loc="left", fontsize=10)
    axis.set_ylabel("MiB")
    up = [row["promoted_bytes"] / MIB for row in past]
    down = [-row["demoted_bytes"] / MIB for row in past]
    axis.fill_between(times, up, step="pre", color=UP)
    axis.fill_between(times, down, step="pre", color=DOWN)
    axis.axhline(0, color="black", linewidth=0.8)


def _placed(axis: Any, times: Sequence[datetime], past: Rows) -> None:
    axis.set_title("memory of the placed processes that is in DRAM", loc="left", fontsize=10)
    axis.set_ylabel("%")
    parts = ((row["placed_dram_bytes"], row["placed_slow_bytes"]) for row in past)
    shares = [100 * dram / (dram + slow) if dram + slow else float("nan") for dram, slow in parts]
    axis.plot(times, shares, color=COLOURS[2])
    axis.set_ylim(0, 100)


def _classes(axis: Any, classes: Rows) -> None:
    axis.set_title("memory of each service class: in DRAM, and on slow tiers", loc="left", fontsize=10)
    axis.set_xlabel("GiB")
    names = [f"{one['name']} ({one['promise']})" if one["promise"] else one["name"] for one in classes]
    dram = [one["dram_bytes"] / GIB for one in classes]
    axis.barh(names, dram, color=UP)
    axis.barh(names, [one["slow_bytes"] / GIB for one in classes], left=dram, color=DOWN)
    axis.invert_yaxis()
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
