"""What has been measured: kept on disk after each step, so that a run can be gone on with."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Some values in short."""

    median: float
    low: float
    """The lower quartile; the least of fewer than four."""
    high: float
    """The upper quartile; the most of fewer than four."""
    count: int


def spread(values: Sequence[float]) -> Spread:
    """The median and the quartiles of at least one value."""
    middle = statistics.median(values)
    if len(values) < 4:
        return Spread(middle, min(values), max(values), len(values))
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high, len(values))


def digits(value: float) -> str:
    """A number with as many digits as say something: two, or all before the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 3)}f}"


@dataclass
class Run:
    """A run, whole or not yet.

    Attributes:
        what: What is measured, of which code, how often: a run goes on only where this is equal.
        done: The steps that are done.
        samples: Values by contender and measure, in the measure's unit.
        notes: What there is to say instead of a value, or besides, by contender and measure.
        facts: What was seen in each contender's sandbox.
        versions: Of each contender.
    """

    what: dict[str, Any]
    done: list[str] = field(default_factory=list[str])
    samples: dict[str, dict[str, list[float]]] = field(
        default_factory=dict[str, dict[str, list[float]]]
    )
    notes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    facts: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    machine: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, contender: str, measure: str, *values: float) -> None:
        """Keep values."""
        self.samples.setdefault(contender, {}).setdefault(measure, []).extend(values)

    def note(self, contender: str, measure: str, words: str) -> None:
        """Say something of a measure; what was said first stays."""
        self.notes.setdefault(contender, {}).setdefault(measure, words)

    def of(self, contender: str, measure: str) -> Spread | None:
        """A measure of a contender in short; None where it has no value."""
        values = self.samples.get(contender, {}).get(measure)
        return spread(values) if values else None

    def save(self, path: Path) -> None:
        """Write it down, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read one that was saved."""
        return cls(**json.loads(path.read_text()))

    @classmethod
    def begun(cls, path: Path, what: dict[str, Any]) -> Run:
        """The run of exactly this that was begun and stopped; else a new one."""
        try:
            earlier = cls.load(path)
        except (OSError, ValueError, TypeError):
            return cls(what)
        return earlier if earlier.what == what else cls(what)
