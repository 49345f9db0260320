"""``make growth``: what an execution and an opening cost, by how many sessions live.

A controller without a pool gets more and more sessions; another one has a single session always. At
each number cells and openings are timed in both, in turns, so that what else the machine does is
told from what the sessions cost. The table goes to standard output, the curves to
``docs/images/growth.png``: they are drawn in a sandbox, where matplotlib is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import psutil

from benchmarks.crowd import COLD, House, Seat, house, leave, seat, seats
from benchmarks.lean import LeanClient
from benchmarks.load import cells, processor_s
from benchmarks.measures import MEGABYTE, check
from scripts.controller import Controller, controller

SIZES = (1, 10, 50, 100, 200)
TURNS, TURN = 6, 20
OPENS = 8
IDLE_S = 10.0
PLOT = Path("docs/images/growth.png")
DRAWING = """\
import json, matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
points = json.loads({points!r})
sizes = [point["sessions"] for point in points]
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
def draw(axis, title, curves):
    for label, name in curves:
        axis.plot(sizes, [point[name] for point in points], marker="o", label=label)
    axis.set_title(title, fontsize=10); axis.set_xlabel("live sessions"); axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3); axis.legend(fontsize=8)
draw(axes[0], "an execution, ms", [
    ("in one of them", "cell_ms"), ("in another each time", "other_cell_ms"),
    ("in a controller with one", "alone_cell_ms"),
    ("controller's processor time", "cell_processor_ms")])
draw(axes[1], "an opening without a pool, ms", [
    ("p50", "open_ms"), ("of a controller with one", "alone_open_ms"),
    ("controller's processor time", "open_processor_ms")])
draw(axes[2], "nobody calls", [
    ("controller, percent of a core", "idle_percent")])
figure.tight_layout(); figure.savefig("growth.png", dpi=110)
"""


@dataclass(frozen=True)
class Point:
    """What was measured with so many live sessions; of times the medians."""

    sessions: int
    alone_cell_ms: float
    """A cell in the controller that has one session."""
    cell_ms: float
    """A cell in one of the sessions."""
    other_cell_ms: float
    """A cell in another one each time."""
    alone_processor_ms: float
    """The processor time for a cell of the controller that has one session."""
    cell_processor_ms: float
    """The same of the one with many."""
    alone_open_ms: float
    open_ms: float
    open_processor_ms: float
    idle_percent: float
    """Of one core, that the controller takes while nobody calls."""
    controller_mb: float
    """Its memory."""


@dataclass
class Timed:
    """What calls of one controller took."""

    pid: int
    took_s: list[float] = field(default_factory=list[float])
    processor_s: float = 0.0

    def add(self, work: Callable[[], Sequence[float]]) -> None:
        """Do some more, which tells what each call took."""
        before = processor_s(self.pid)
        self.took_s += work()
        self.processor_s += processor_s(self.pid) - before

    @property
    def middle_ms(self) -> float:
        """The median."""
        return 1000 * statistics.median(self.took_s)

    @property
    def processor_ms(self) -> float:
        """The controller's processor time for a call."""
        return 1000 * self.processor_s / len(self.took_s)


def opening(house: House, number: int) -> list[float]:
    """Open a session, and close it; what the opening took."""
    start = time.perf_counter()
    made = seat(house.caller(number), COLD)
    took = time.perf_counter() - start
    made.close()
    return [took]


def measured(house: House, alone: House, single: Seat, taken: Sequence[Seat]) -> Point:
    """Measure with the sessions that there are."""
    time.sleep(2)  # until what the last opening began is over
    before = processor_s(house.pid)
    time.sleep(IDLE_S)
    idle = (processor_s(house.pid) - before) / IDLE_S
    memory = psutil.Process(house.pid).memory_info().rss / MEGABYTE
    one, same, others = Timed(alone.pid), Timed(house.pid), Timed(house.pid)
    for turn in range(TURNS):
        some = [taken[(turn * TURN + number) % len(taken)] for number in range(TURN)]
        one.add(partial(cells, [single] * TURN))
        same.add(partial(cells, [taken[0]] * TURN))
        others.add(partial(cells, some))
    one_open, open_ = Timed(alone.pid), Timed(house.pid)
    for number in range(OPENS):
        one_open.add(partial(opening, alone, number))
        open_.add(partial(opening, house, number))
    return Point(
        sessions=len(taken),
        alone_cell_ms=one.middle_ms,
        cell_ms=same.middle_ms,
        other_cell_ms=others.middle_ms,
        alone_processor_ms=one.processor_ms,
        cell_processor_ms=(same.processor_ms + others.processor_ms) / 2,
        alone_open_ms=one_open.middle_ms,
        open_ms=open_.middle_ms,
        open_processor_ms=open_.processor_ms,
        idle_percent=100 * idle,
        controller_mb=memory,
    )


def growth(sizes: Sequence[int]) -> list[Point]:
    """Measure at each of these numbers of sessions, the smallest first."""
    points: list[Point] = []
    taken: list[Seat] = []
    with house() as found, house() as alone:
        (single,) = seats(alone, 1)
        single.run("1")
        for size in sorted(sizes):
            taken += seats(found, size - len(taken))
            for each in taken:
                each.run("1")
            points.append(measured(found, alone, single, taken))
            print(points[-1], file=sys.stderr, flush=True)
        single.close()
        leave(taken)
    return points


def table(points: Sequence[Point]) -> str:
    """The points as a table of Markdown."""
    heads = (
        *("live sessions", "cell p50", "another session each time", "a controller with one"),
        *("processor time, a cell", "with one", "open p50, no pool", "with one"),
        *("processor time, an open", "idle, of a core", "controller's memory"),
    )
    rows = [
        (
            *(f"{p.sessions}", f"{p.cell_ms:.1f} ms", f"{p.other_cell_ms:.1f} ms"),
            *(f"{p.alone_cell_ms:.1f} ms", f"{p.cell_processor_ms:.1f} ms"),
            *(f"{p.alone_processor_ms:.1f} ms", f"{p.open_ms:.0f} ms", f"{p.alone_open_ms:.0f} ms"),
            *(f"{p.open_processor_ms:.0f} ms", f"{p.idle_percent / 100:.3f}"),
            f"{p.controller_mb:.0f} MB",
        )
        for p in points
    ]
    lines = (heads, ("---",) * len(heads), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw the curves, in a sandbox of the policy ``datascience``."""
    code = DRAWING.format(points=json.dumps([asdict(point) for point in points]))
    with controller() as server:
        path.write_bytes(drawn(server, code, "growth.png"))


def drawn(server: Controller, code: str, name: str) -> bytes:
    """The file of that name that a cell makes under ``datascience``."""
    with LeanClient(server) as client:
        opened = client.call("open_session", policy="datascience", reuse=False)
        client.run(code, session_id=opened["session_id"])
        found = client.file(opened["session_id"], name)
        client.call("close_session", session_id=opened["session_id"])
    check(found.startswith(b"\x89PNG"), "no picture was made")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print the table and draw the curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--plot", type=Path, default=PLOT)
    wanted = parser.parse_args(words)
    points = growth(wanted.sizes)
    draw(points, wanted.plot)
    print(table(points))
    return 0


if __name__ == "__main__":
    sys.exit(main())
