"""Puts a run into docs/benchmarks.md, between the marks that are in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import pages
from benchmarks.pages import markdown
from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.samples import Run, digits
from benchmarks.peers.table import SECTIONS, fact_rows, measured, notes, official, rows
from benchmarks.peers.wins import Win, wins

WHAT = "figures of a run"


def write(run: Run, file: Path = pages.PAGE) -> None:
    """Replace the figures in the page.

    Raises:
        ValueError: The page has lost its marks.
    """
    pages.put(WHAT, figures(run), file)


def figures(run: Run) -> str:
    """Tables, what is not in them, and where others do better."""
    parts = [_machine(run)]
    for title, measures in SECTIONS:
        parts += [f"### {title}", markdown(rows(run, measures))]
    parts += [
        "Medians, with the quartiles in brackets. A dash: not there, or not to be had (below).",
        official(run),
        "![Open to first result](images/peers-first.png)",
        "![The next result](images/peers-next.png)",
        "![Programs in sandboxes of their own](images/peers-programs.png)",
        "![An idle session's memory](images/peers-memory.png)",
        "### Where others do better",
        _wins(wins(run)),
        "### What could not be had",
        "\n".join(f"- {_short(note)}" for note in notes(run)) or "Nothing.",
        "### What each sandbox is",
        markdown(fact_rows(run)),
    ]
    return "\n\n".join(part for part in parts if part)


def _machine(run: Run) -> str:
    titles = {each.name: each.title for each in CONTENDERS}
    versions = [
        f"{titles[name]} {version}"
        for name, version in run.versions.items()
        if name in titles and version
    ]
    lines = [f"- {name}: {value}" for name, value in run.machine.items()]
    return "\n".join([*lines, f"- versions: {', '.join(versions)}"]) if measured(run) else ""


def _wins(found: Sequence[Win]) -> str:
    if not found:
        return "Nowhere, in this run."
    lines = ["Than this project with its pool:", ""]
    for win in found:
        unit = win.measure.unit
        lines.append(
            f"- **{win.contender.title}, {win.measure.title}**: {digits(win.theirs)} against "
            f"{digits(win.ours)} {unit}; {win.reason}"
        )
    return "\n".join(lines)


def _short(note: str) -> str:
    """One line, of a length that can be read."""
    words = " ".join(note.split()).replace("|", "/")
    return words if len(words) <= 240 else f"{words[:239]}…"
