"""Draws a value over time, as a rule the hit ratio: `python -m tests.dev.picture PICTURE.png < DATA`, with
the project's own matplotlib."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.vm import host

COLOURS = {
    "tierd": "#0b6e4f",
    "tierd stopped": "#b5452c",
    "none": "#8a8a8a",
    "kernel": "#2b5fa8",
    "damon": "#c07a1a",
}
HIT = "accesses that find DRAM (share)"


def draw(data: dict[str, Any], target: Path) -> None:
    """Draw `data` to `target` (PNG), in the project's virtual environment. Called by the demo and the
    benchmark.

    data: {"title", "panels": [{"title", "ideal", "lines": [{"label", "points": [[seconds, value], ...]}]}]}.
    `ideal` is None where nobody knows it. A panel of something else than hit ratios has its name as "axis".
    """
    command = [str(host.venv_python()), "-m", "tests.dev.picture", str(target.absolute())]
    subprocess.run(command, cwd=host.ROOT, input=json.dumps(data), text=True, check=True)


def main(argv: list[str]) -> int:
    """Called by draw(), in the environment that has matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    data = json.load(sys.stdin)
    panels = data["panels"]
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(5.6 * across, 4.2 * down + 0.4), squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(axis, panel)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(data["title"], fontsize=12, fontweight="bold")
    figure.savefig(argv[0], dpi=110)
    return 0


def _panel(axis: Any, panel: dict[str, Any]) -> None:
    hit = "axis" not in panel
    if panel["ideal"] is not None:
        axis.axhline(
            panel["ideal"], color="#555555", linestyle="--", linewidth=1, label=f"ideal {panel['ideal']:.3f}"
        )
    for line in panel["lines"]:
        times, values = zip(*line["points"], strict=True)
        shown = f"{values[-1]:.3f}" if hit else f"{values[-1]:.0f}"
        axis.plot(
            *(times, values),
            marker="o", markersize=2.5, linewidth=2,
            color=COLOURS.get(line["label"]), label=f"{line['label']} {shown}",
        )  # fmt: skip
    axis.set_title(panel["title"], fontsize=9)
    axis.set_xlabel("seconds")
    axis.set_ylabel(panel.get("axis", HIT), fontsize=9)
    axis.set_ylim(0, 1.02 if hit else None)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="lower right", fontsize=8, framealpha=0.9)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
