"""``make soak``: many sessions for a long time, and whether anything is lost, wrong or left.

A crowd of lean clients opens sessions, runs cells, commands and branches, writes and reads files,
closes, and checks each answer, round after round; once, all the sessions that there may be execute
at once. An official client works beside them. Some sessions last from the first round to the last
and must keep what they hold. After each round all is counted that could leak
(:mod:`scripts.census`).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import counted
from benchmarks.crowd import READY, House, Seat, house, leave, seat, seats, together
from sandbox.audit import verify
from scripts.census import Census, census, trend_bytes
from tests.support.leftovers import left_of
from tests.support.neighbour import MIB, WORKS, Answer, beside

WORKERS = 12
"""Clients that open and close sessions at a time."""
LASTING = 4
POOL = 8
ROUND_S = 45.0
GONE_S = 60.0
SETTLE_S = 60.0
CELLS = (5, 15)
"""The cells of a session: at least and at most."""
FULL = "import time; time.sleep(1); __import__('os').getuid()"
CALM_ANSWERS = 2


@dataclass
class Report:
    """What came of a soak."""

    opens: list[float] = field(default_factory=list[float])
    """Seconds, like the next two."""
    cells: list[float] = field(default_factory=list[float])
    others: list[float] = field(default_factory=list[float])
    """Commands, files and branches."""
    full_house: str = ""
    answers: list[Answer] = field(default_factory=list[Answer])
    """To the official client."""
    wrong: Counter[str] = field(default_factory=Counter[str])
    counts: list[Census] = field(default_factory=list[Census])
    """After each round; the first is what the others are compared with."""
    left: list[str] = field(default_factory=list[str])
    record: str = ""
    log: list[str] = field(default_factory=list[str])
    """Errors in the controller's log."""

    def faults(self) -> list[str]:
        """What was not as it must be."""
        found = [f"{count} times {what}" for what, count in self.wrong.items()]
        faults = Counter(answer.fault for answer in self.answers if answer.fault)
        found += [f"the official client: {count} times {what}" for what, count in faults.items()]
        if len(self.answers) < CALM_ANSWERS:
            found.append("the official client was not heard")
        if not self.opens or not self.cells:
            found.append("nothing was done")
        if len(self.counts) < 2:
            found.append("nothing was compared")
        else:
            found += [f"leak: {each}" for each in self.counts[-1].grown_since(self.counts[0])]
        found += [f"left: {each}" for each in self.left]
        found += [f"logged: {each}" for each in self.log]
        found += [self.record] if self.record else []
        return found

    def lines(self) -> list[str]:
        """The report, for people."""
        found = [
            f"{len(self.opens)} opens, {len(self.cells)} executions, {len(self.others)} other calls"
        ]
        for name, took in (
            ("open", self.opens),
            ("execution", self.cells),
            ("other", self.others),
            ("official client", [answer.took_s for answer in self.answers]),
        ):
            if len(took) > 1:
                p99 = statistics.quantiles(took, n=100, method="inclusive")[98]
                found.append(
                    f"  {name}: p50 {1000 * statistics.median(took):.0f} ms, "
                    f"p99 {1000 * p99:.0f} ms, at most {1000 * max(took):.0f} ms"
                )
        found += [f"  {self.full_house}"] * bool(self.full_house)
        found += [f"  round {number}: {each.line()}" for number, each in enumerate(self.counts)]
        trend = trend_bytes([each.memory_bytes for each in self.counts])
        found.append(f"  memory: {trend / MIB:+.2f} MiB a round")
        found += [f"NOT AS IT MUST BE: {fault}" for fault in self.faults()] or [
            "zero errors, zero orphans, nothing grows"
        ]
        return found


class Crowd:
    """What the clients do, in threads; what they see is noted in a report.

    Args:
        seed: Of the order of it.
        workers: How many open and close sessions at a time.
    """

    def __init__(self, house: House, report: Report, seed: int, workers: int) -> None:
        self._house = house
        self._report = report
        self._seed = seed
        self._workers = workers
        self._lock = threading.Lock()
        self._number = 0

    def round(self, seconds: float) -> None:
        """Let every client open, use and close sessions for that time."""
        end = time.monotonic() + seconds
        together([partial(self._work, end)] * self._workers)

    def _work(self, end: float) -> None:
        while time.monotonic() < end:
            with self._lock:
                self._number += 1
                number = self._number
            order = random.Random(self._seed * 1_000_003 + number)  # noqa: S311  # an order
            try:
                self._use(number, order)
            except Exception as exc:  # whatever it is, it is what the soak is to find
                self.wrong(f"{type(exc).__name__}: {exc!s:.300}")

    def wrong(self, what: str) -> None:
        """Note something that was not as it must be."""
        with self._lock:
            self._report.wrong[what] += 1
        print(f"  {what}", file=sys.stderr, flush=True)

    @contextmanager
    def _timed(self, into: list[float]) -> Iterator[None]:
        start = time.perf_counter()
        yield
        into.append(time.perf_counter() - start)

    def _use(self, number: int, order: random.Random) -> None:
        """One session, from its opening to its end."""
        report = self._report
        policy = READY if order.random() < 0.7 else "load"
        with self._timed(report.opens):
            here = seat(self._house.caller(number), policy)
        try:
            with self._timed(report.cells):
                here.run(f"held = {number}")
            for value in range(order.randint(*CELLS)):
                with self._timed(report.cells):
                    told = here.run(f"held + {value}")["text"]
                if told != str(number + value):
                    self.wrong(f"a cell answered {told!r:.80}")
            with self._timed(report.others):
                order.choice((self._command, self._file, self._branch, self._picture))(here, number)
        finally:
            here.close()

    def _command(self, here: Seat, number: int) -> None:
        found = here.client.call(
            "run_command", command=f"echo $(({number} + 1))", session_id=here.session_id
        )
        if found["stdout"] != f"{number + 1}\n":
            self.wrong(f"a command said {found['stdout']!r:.80}")

    def _file(self, here: Seat, number: int) -> None:
        where = {"path": "note.txt", "session_id": here.session_id}
        here.client.call("write_file", content=f"{number}\n" * 1000, **where)
        found = here.client.call("read_file", **where)["content"]
        if not found.startswith(f"{number}\n"):
            self.wrong(f"a file held {found!r:.80}")

    def _branch(self, here: Seat, number: int) -> None:
        made = here.client.call("branch_kernel", session_id=here.session_id)
        told = here.run("held", kernel_id=made["kernel_id"])["text"]
        if told != str(number):
            self.wrong(f"a branch answered {told!r:.80}")

    def _picture(self, here: Seat, number: int) -> None:
        """Much output, for that is what is kept."""
        told = here.run(f"print({number}); print('x' * 200_000)")
        if not told["text"].startswith(str(number)):
            self.wrong(f"a flood began with {told['text'][:80]!r}")

    def full_house(self, count: int) -> None:
        """Open so many sessions and have all of them execute at once."""
        taken: list[Seat] = []
        try:
            start = time.perf_counter()
            taken = seats(self._house, count, READY)
            opened = time.perf_counter() - start
            self._report.opens += [opened / count] * count
            start = time.perf_counter()
            told = together([partial(each.run, FULL) for each in taken])
            took = time.perf_counter() - start
            self._report.cells += [took] * count
            if len(uids := {each["text"] for each in told}) < count:
                self.wrong(f"{count} sessions have {len(uids)} users")
            self._report.full_house = (
                f"{count} sessions: opened in {opened:.1f} s, {count} cells of 1 s at once "
                f"answered in {took:.2f} s"
            )
        except Exception as exc:  # as above
            self.wrong(f"a full house: {type(exc).__name__}: {exc!s:.300}")
        finally:
            leave(taken)


def soak(
    folder: Path, seconds: float, seed: int, full: int = 200, workers: int = WORKERS
) -> Report:
    """Use a controller of its own for so long, and look at what it has left.

    Args:
        full: How many sessions execute at once, once.
        workers: How many clients open and close sessions at a time.
    """
    report = Report()
    temporary, counts = folder / "tmp", folder / "counts"
    temporary.mkdir()
    settings = {counted.COUNTS: str(counts), "TMPDIR": str(temporary)}
    with house(folder, ready=POOL, program=counted.__name__, **settings) as found:
        owner = (found.served.state / "controllers/serve/owner").read_text().strip()
        crowd = Crowd(found, report, seed, workers)
        lasting = seats(found, LASTING)
        for number, each in enumerate(lasting):
            each.run(f"kept = {number}")
        path = folder / "answers"
        with beside(found.served.url, found.tokens[0], path, WORKS) as official:
            round_s = min(ROUND_S, seconds / 4)
            end = time.monotonic() + seconds
            crowd.round(round_s)  # until pools, caches and threads are what they come to
            crowd.full_house(full)
            while True:
                for number, each in enumerate(lasting):
                    if (told := each.run("kept")["text"]) != str(number):
                        crowd.wrong(f"a session that lasts holds {told!r:.80}")
                report.counts.append(settled(found, counts, owner, temporary))
                print(f"  {report.counts[-1].line()}", file=sys.stderr, flush=True)
                if time.monotonic() >= end and len(report.counts) > 1:
                    break
                crowd.round(round_s)
            report.answers = official.answers()
        leave(lasting)
        found.close_everything()
        log = found.served.log
    report.left += [f"container {each[:12]}" for each in gone(found.served.state)]
    report.left += [f"temporary file {each}" for each in temporary.rglob("*") if each.is_file()]
    verdict = verify(found.served.state / "controllers/serve/audit", "serve")
    report.record = "" if verdict.is_intact else f"the record is not whole: {verdict.fault}"
    said = log.read_text(errors="replace").splitlines()
    report.log += [line[:300] for line in said if " ERROR " in line or "Traceback" in line][:20]
    return report


def settled(house: House, counts: Path, owner: str, temporary: Path) -> Census:
    """Count when the pool is full and no container is on its way out: what is over takes a moment
    to be gone. After a bound, count what there is."""
    end = time.monotonic() + SETTLE_S
    while True:
        shelf = house.shelf(READY)
        now = census(house.pid, counts, owner, temporary)
        # The sessions that last, that of the official client, and those that are ready.
        expected = LASTING + 1 + POOL + house.shelf("offline").get("ready", 0)
        is_quiet = shelf["ready"] == POOL and not shelf["coming"] and now.containers <= expected
        if is_quiet or time.monotonic() > end:
            return now
        time.sleep(0.5)


def gone(state: Path) -> list[str]:
    """The containers that are there still after some time to go."""
    end = time.monotonic() + GONE_S
    while (left := left_of(state)) and time.monotonic() < end:
        time.sleep(0.5)
    return left


def main(words: Sequence[str] | None = None) -> int:
    """Soak; 1 when something was not as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", type=int, default=200, help="sessions that execute at once")
    parser.add_argument("--workers", type=int, default=WORKERS, help="clients at a time")
    wanted = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        seconds = wanted.minutes * 60
        report = soak(Path(folder), seconds, wanted.seed, wanted.full, wanted.workers)
    print(f"seed {wanted.seed}, {wanted.minutes:g} minutes", *report.lines(), sep="\n")
    return 1 if report.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
