"""The heat map of a report, address against time, drawn with matplotlib."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, LogNorm
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

from tierd.cli.heat_looks import HeatGrid
from tierd.core.text import size

HEIGHT: Final = 5.0
"""Inches."""
WIDTHS: Final = (3, 1)
UNKNOWN: Final = "#d4d4d4"
LEAST_RATE: Final = 0.01
"""Accesses a second: what is used less often is cold, and cold alike."""
LEAST_LABEL: Final = 0.04
"""Of the height: areas that are less high have no room for their address."""
TITLE: Final = "how often {name} uses its memory, by address"
KEY: Final = "grey: not known; white: nothing there; hatched: as it was before tierd promoted it to DRAM"


def draw(figure: Any, place: Any, grid: HeatGrid, name: str, slow: str, dram: str) -> None:
    """Two panels in `place` of the figure's grid: heat, and where the memory lies. name: of the process.
    slow, dram: the colours of either."""
    places = place.subgridspec(1, 2, width_ratios=WIDTHS)
    heat = figure.add_subplot(places[0, 0])
    where = figure.add_subplot(places[0, 1], sharex=heat, sharey=heat)
    # between two dollars there would be a formula
    heat.set_title(TITLE.format(name=name.replace("$", r"\$")), loc="left", fontsize=10)
    where.set_title("share of it in DRAM", loc="left", fontsize=10)
    heat.set_xlabel(KEY, fontsize=8, loc="left")
    if not len(grid.rate):
        heat.set_xticks([])
        return
    sides = _sides(grid)
    known = grid.rate[np.isfinite(grid.rate)]
    least = max(LEAST_RATE, float(known.min(initial=np.inf)) if len(known) else LEAST_RATE)
    norm = LogNorm(least, max(10 * least, float(known.max(initial=0.0))), clip=True)
    mesh = _mesh(heat, sides, grid.rate, cmap="inferno", norm=norm)
    _mesh(heat, sides, np.where(grid.there, np.nan, 1.0), cmap=ListedColormap(["white"]))
    figure.colorbar(mesh, ax=heat, label="accesses a second, of a page", pad=0.01)
    _hatch(heat, sides, grid)
    shares = LinearSegmentedColormap.from_list("tiers", [slow, dram])
    mesh = _mesh(where, sides, 100 * grid.share, cmap=shares, vmin=0, vmax=100)
    figure.colorbar(mesh, ax=where, label="%", pad=0.02)
    where.tick_params(labelleft=False)
    where.set_facecolor("white")
    for axis in (heat, where):
        _axis(axis, grid)
    _addresses(heat, grid)


def _sides(grid: HeatGrid) -> tuple[Any, Any]:
    """Of all cells: times, and bytes from the lowest address on. A cell ends where the next look began."""
    times = np.array([_number(time) for time in grid.times])
    last = times[-1] - times[-2] if len(times) > 1 else 1 / 86400
    return np.append(times, times[-1] + last), np.linspace(0, grid.bytes, len(grid.rate) + 1)


def _number(time: float) -> float:
    """Seconds since 1970 as matplotlib has them."""
    return float(date2num(datetime.fromtimestamp(time).astimezone()))  # type: ignore[no-untyped-call]


def _mesh(axis: Any, sides: tuple[Any, Any], values: Any, **options: Any) -> Any:
    """What is NaN shows the background. As pixels: a cell each would be megabytes of SVG."""
    shown: Any = np.ma.masked_array(values, ~np.isfinite(values))  # type: ignore[no-untyped-call]
    return axis.pcolormesh(*sides, shown, rasterized=True, **options)


def _hatch(axis: Any, sides: tuple[Any, Any], grid: HeatGrid) -> None:
    marked = grid.remembered & np.isfinite(grid.rate)
    if not marked.any():
        return
    marked = np.pad(marked, ((0, 1), (0, 1)), mode="edge").astype(float)  # to the sides of the last cells
    with matplotlib.rc_context({"hatch.color": "white", "hatch.linewidth": 0.5}):
        axis.contourf(*sides, marked, levels=[0.5, 1.5], colors="none", hatches=["///"])


def _axis(axis: Any, grid: HeatGrid) -> None:
    zone = datetime.fromtimestamp(grid.times[0]).astimezone().tzinfo
    locator = AutoDateLocator(minticks=2, maxticks=6)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(locator)
    # the date would stand in the key, and the panels above have it
    formatter = ConciseDateFormatter(locator, tz=zone, show_offset=False)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_formatter(formatter)
    axis.tick_params(labelsize=8)
    axis.set_ylim(0, grid.bytes)
    at = 0
    for start, end in grid.areas[:-1]:
        at += end - start
        axis.axhline(at, color="#4a90d9", linewidth=0.6)


def _addresses(axis: Any, grid: HeatGrid) -> None:
    """The address at which each area begins, and its size, where there is room."""
    axis.set_facecolor(UNKNOWN)
    ticks, labels, at = [], [], 0
    for start, end in grid.areas:
        if end - start >= LEAST_LABEL * grid.bytes:
            ticks.append(at)
            labels.append(f"{start:x}\n{size(end - start)}")
        at += end - start
    axis.set_yticks(ticks, labels, fontsize=7, family="monospace", va="bottom")
