"""Draws hit ratio over time: `python -m tests.dev.picture DATA.json PICTURE.png`, with the project's own
matplotlib."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.vm import host


def draw(data: dict[str, Any], target: Path) -> None:
    """Draw `data` to `target` (PNG), in the project's virtual environment. Called by the demo.

    data: {"title", "panels": [{"title", "ideal", "lines": [{"label", "points": [[seconds, hit], ...]}]}]}.
    """
    source = target.with_suffix(".json")
    source.write_text(json.dumps(data))
    subprocess.run(
        [host.venv_python(), "-m", "tests.dev.picture", source, target], cwd=host.ROOT, check=True
    )


def main(argv: list[str]) -> int:
    """Called by draw(), in the environment that has matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    data = json.loads(Path(argv[0]).read_text())
    panels = data["panels"]
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(5.6 * len(panels), 4.4), sharey=True, squeeze=False
    )
    colours = {"tierd": "#0b6e4f", "tierd stopped": "#b5452c"}
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.axhline(panel["ideal"], color="#555555", linestyle="--", linewidth=1)
        axis.annotate(
            f"ideal {panel['ideal']:.3f}",
            (0.99, panel["ideal"]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            color="#555555",
        )
        for line in panel["lines"]:
            times, hits = zip(*line["points"], strict=True)
            colour = colours.get(line["label"])
            axis.plot(times, hits, marker="o", markersize=3, linewidth=2, color=colour)
            axis.annotate(
                f"{line['label']} {hits[-1]:.3f}",
                (times[-1], hits[-1]),
                xytext=(-4, -14),
                textcoords="offset points",
                ha="right",
                color=colour,
                fontweight="bold",
            )
        axis.set_title(panel["title"], fontsize=10)
        axis.set_xlabel("seconds")
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("accesses that find DRAM (share)")
    figure.suptitle(data["title"], fontsize=12, fontweight="bold")
    figure.tight_layout()
    figure.savefig(argv[1], dpi=110)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
