"""``make growth``: what an execution and an opening cost, by how many sessions live.

A controller without a pool gets more and more sessions. At each number, cells and openings are
timed one after the other, with what they take of the controller's and of the machine's processor
time. The table goes to standard output, the curves to ``docs/images/growth.png``: they are drawn
in a sandbox, where matplotlib is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.crowd import COLD, House, Seat, house, leave, seat, seats
from benchmarks.lean import LeanClient
from benchmarks.load import cells, processor_s
from benchmarks.measures import MEGABYTE, check
from scripts.controller import Controller, controller

SIZES = (1, 10, 50, 100, 200)
CELLS = 200
OPENS = 12
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
    ("p50, always the same session", "cell_ms"), ("p50, another each time", "other_cell_ms"),
    ("controller's processor time", "cell_processor_ms")])
draw(axes[1], "an opening without a pool, ms", [
    ("p50", "open_ms"), ("controller's processor time", "open_processor_ms")])
draw(axes[2], "idle", [
    ("controller, percent of a core", "idle_percent"), ("controller, MB for each session",
    "session_mb")])
figure.tight_layout(); figure.savefig("growth.png", dpi=110)
"""


@dataclass(frozen=True)
class Point:
    """What was measured with so many live sessions."""

    sessions: int
    cell_ms: float
    """Median of a cell in one of them."""
    other_cell_ms: float
    """Median of a cell in another one each time."""
    cell_processor_ms: float
    """The controller's processor time for one."""
    open_ms: float
    open_processor_ms: float
    idle_percent: float
    """Of one core, that the controller takes while nobody calls."""
    controller_mb: float
    """The controller's memory."""
    session_mb: float
    """How much of that came with each session since the first number."""


def measured(house: House, taken: Sequence[Seat], first: Point | None) -> Point:
    """Measure with the sessions that there are."""
    time.sleep(2)  # until what the last opening began is over
    before = processor_s(house.pid)
    time.sleep(IDLE_S)
    idle = (processor_s(house.pid) - before) / IDLE_S
    memory = psutil.Process(house.pid).memory_info().rss / MEGABYTE
    before = processor_s(house.pid)
    same = cells([taken[0]] * (CELLS // 2))
    others = cells([taken[number % len(taken)] for number in range(CELLS // 2)])
    of_cells = processor_s(house.pid) - before
    openings: list[float] = []
    of_opens = 0.0
    for number in range(OPENS):
        before, start = processor_s(house.pid), time.perf_counter()
        made = seat(house.caller(number), COLD)
        openings.append(time.perf_counter() - start)
        of_opens += processor_s(house.pid) - before
        made.close()
    more = len(taken) - (first.sessions if first else 0)
    return Point(
        sessions=len(taken),
        cell_ms=1000 * statistics.median(same),
        other_cell_ms=1000 * statistics.median(others),
        cell_processor_ms=1000 * of_cells / CELLS,
        open_ms=1000 * statistics.median(openings),
        open_processor_ms=1000 * of_opens / OPENS,
        idle_percent=100 * idle,
        controller_mb=memory,
        session_mb=(memory - first.controller_mb) / more if first else 0.0,
    )


def growth(sizes: Sequence[int]) -> list[Point]:
    """Measure at each of these numbers of sessions, the smallest first."""
    points: list[Point] = []
    taken: list[Seat] = []
    with house() as found:
        for size in sorted(sizes):
            taken += seats(found, size - len(taken))
            for each in taken:
                each.run("1")
            points.append(measured(found, taken, points[0] if points else None))
            print(points[-1], file=sys.stderr, flush=True)
        leave(taken)
    return points


def table(points: Sequence[Point]) -> str:
    """The points as a table of Markdown."""
    heads = (
        *("live sessions", "cell p50", "in another session each time", "controller, a cell"),
        *("open p50 (no pool)", "controller, an open", "idle, of a core", "controller's memory"),
    )
    rows = [
        (
            *(f"{p.sessions}", f"{p.cell_ms:.1f} ms", f"{p.other_cell_ms:.1f} ms"),
            *(f"{p.cell_processor_ms:.1f} ms", f"{p.open_ms:.0f} ms"),
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
