"""A run as a table: for a terminal, and for a page."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.peers.contenders import (
    BULK_MEASURES,
    CONTENDERS,
    SESSION_MEASURES,
    Contender,
    Measure,
)
from benchmarks.peers.samples import Run, digits
from benchmarks.peers.wins import OURS

SECTIONS = (("Sessions", SESSION_MEASURES), ("Bulk, programs and memory", BULK_MEASURES))
ABSENT = "–"


def measured(run: Run) -> list[Contender]:
    """The contenders that the run has something of."""
    return [each for each in CONTENDERS if each.name in run.samples or each.name in run.notes]


def cell(run: Run, contender: Contender, measure: Measure) -> str:
    """The median with its quartiles, or a dash: the notes say why."""
    found = run.of(contender.name, measure.name)
    if found is None:
        return ABSENT
    if found.count == 1:
        return digits(found.median)
    return f"{digits(found.median)} ({digits(found.low)}–{digits(found.high)})"


def rows(run: Run, measures: Sequence[Measure]) -> list[list[str]]:
    """A heading, and for each contender a row."""
    heading = ["", *(f"{measure.title}, {measure.unit}" for measure in measures)]
    return [
        heading,
        *(
            [each.title, *(cell(run, each, measure) for measure in measures)]
            for each in measured(run)
        ),
    ]


def fact_rows(run: Run) -> list[list[str]]:
    """What was seen in each sandbox."""
    keys = ["uid", "capabilities", "no new privileges", "system calls filtered", "network"]
    keys.append("root can be written")
    table = [["", "keeps", *keys]]
    for each in measured(run):
        facts = run.facts.get(each.name)
        seen = [_plain(facts[key]) if facts else ABSENT for key in keys]
        table.append([each.title, each.keeps, *seen])
    return table


def notes(run: Run) -> list[str]:
    """What is said beside values, or instead of them, as sentences."""
    titles = {
        measure.name: measure.title.replace("`", "")
        for _, section in SECTIONS
        for measure in section
    }
    return [
        f"{each.title}, {titles.get(name, name)}: {words}"
        for each in measured(run)
        for name, words in run.notes.get(each.name, {}).items()
        if name != "official"
    ]


def official(run: Run) -> str:
    """What the official Python client takes for the same call, in words; empty if unknown."""
    lean, other = run.of(OURS, "next"), run.of(OURS, "official")
    if lean is None or other is None:
        return ""
    extra = other.median - lean.median
    return (
        f"Next result with the official Python client of MCP: {digits(other.median)} ms, "
        f"{digits(extra)} ms more than with the lean client ({digits(lean.median)} ms)."
    )


def show(run: Run, console: Console) -> None:
    """Print the tables."""
    for title, measures in SECTIONS:
        heading, *body = rows(run, measures)
        table = Table(title=f"{title} (medians, quartiles)", box=box.SIMPLE)
        for number, name in enumerate(heading):
            table.add_column(name.replace("`", ""), justify="right" if number else "left")
        for row in body:
            table.add_row(*row)
        console.print(table)
    for line in filter(None, [official(run), *notes(run)]):
        console.print(line, markup=False, highlight=False)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
