"""Draws a run's pictures. Runs in an environment with matplotlib: ``plots.py RUN.json FOLDER``.

The JSON is that of ``benchmarks/peers.json``; this module imports nothing of the project.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt

PICTURES = (
    ("first", "Open to first result, ms (less is better)", True),
    ("next", "The next result, ms (less is better)", True),
    ("programs", "Programs a second, each in a sandbox of its own (more is better)", False),
    ("memory", "An idle session, MB (less is better)", False),
)
OURS_COLOUR, OTHER_COLOUR = "#1f77b4", "#9aa5b1"


def draw(run: dict[str, Any], titles: dict[str, str], folder: Path) -> None:
    """Write one PNG for each measure."""
    for measure, heading, is_logarithmic in PICTURES:
        values = {
            name: statistics.median(run["samples"][name][measure])
            for name in titles
            if run["samples"].get(name, {}).get(measure)
        }
        if not values:
            continue
        names = list(values)[::-1]
        figure, axes = plt.subplots(figsize=(8, 0.4 * len(names) + 1))
        colours = [OURS_COLOUR if name.startswith("ours") else OTHER_COLOUR for name in names]
        bars = axes.barh(
            [titles[name] for name in names], [values[n] for n in names], color=colours
        )
        axes.bar_label(bars, fmt="%.3g", padding=3)
        axes.set_title(heading, loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        if is_logarithmic:
            axes.set_xscale("log")
        axes.margins(x=0.12)
        figure.tight_layout()
        figure.savefig(folder / f"peers-{measure}.png", dpi=110, metadata={"Software": None})
        plt.close(figure)


def main() -> None:
    """Draw what the arguments say; the titles come as JSON on standard input."""
    run = json.loads(Path(sys.argv[1]).read_text())
    draw(run, json.load(sys.stdin), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
