"""What a benchmark yields, as a table and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import pages

WHAT = "figures of make bench"


@dataclass(frozen=True)
class Figure:
    """One measured figure against its target."""

    name: str
    value: float
    unit: str
    target: float
    at_most: bool
    """Whether the target is an upper bound."""
    detail: str
    """The figures behind it, with the number of runs."""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.target if self.at_most else self.value >= self.target


def spread(values_s: Sequence[float]) -> str:
    """Durations in words: median, least and most, in milliseconds, and how many."""
    low, middle, high = (
        1000 * value for value in (min(values_s), statistics.median(values_s), max(values_s))
    )
    return f"{middle:.1f} ms ({low:.1f}–{high:.1f}, n={len(values_s)})"


def show(sections: Mapping[str, Sequence[Figure]], console: Console) -> None:
    """Print the table, with a line between its sections."""
    table = Table(title="Benchmarks (medians; all figures from this run)")
    for heading in ("what", "figure", "target", "", "measured"):
        table.add_column(heading, justify="right" if heading in ("figure", "target") else "left")
    for section, figures in sections.items():
        table.add_section()
        table.add_row(f"[bold]{section}[/]")
        for figure in figures:
            bound = "≤" if figure.at_most else "≥"
            table.add_row(
                figure.name,
                f"{figure.value:.2f} {figure.unit}",
                f"{bound} {figure.target:g} {figure.unit}",
                "[green]met[/]" if figure.met else "[red]missed[/]",
                figure.detail,
            )
    console.print(table)


def publish(sections: Mapping[str, Sequence[Figure]]) -> None:
    """Write the table into docs/benchmarks.md, with what it was taken on."""
    table = [["what", "figure", "target", "", "measured"]]
    for section, figures in sections.items():
        table.append([f"**{section}**", "", "", "", ""])
        for each in figures:
            bound, met = ("≤" if each.at_most else "≥"), ("met" if each.met else "missed")
            value, target = f"{each.value:.2f} {each.unit}", f"{bound} {each.target:g} {each.unit}"
            table.append([each.name, value, target, met, each.detail.replace("|", "/")])
    facts = "\n".join(f"- {name}: {value}" for name, value in pages.machine().items())
    pages.put(WHAT, f"{facts}\n\n{pages.markdown(table)}")


def save(sections: Mapping[str, Sequence[Figure]], path: Path) -> None:
    """Write the figures as JSON."""
    rows = [
        {"section": section, **asdict(figure), "met": figure.met}
        for section, figures in sections.items()
        for figure in figures
    ]
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
