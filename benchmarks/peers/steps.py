"""The steps of a run: each measures one contender once, and leaves nothing behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.contenders import Contender
from benchmarks.peers.footprint import pss_megabytes
from benchmarks.peers.protocol import Adapter, AdapterFailed, AdapterGone, AdapterLacks
from benchmarks.peers.samples import Run

CODE = "print(1 + 1)"
EXPECTED = "2"
NEXT_TIMES = 20
NEXT_AT_MOST_S = 2.0
OFFICIAL_TIMES = 10
OUTPUT = "print(('x' * 99 + '\\n') * 100_000, end='')"
OUTPUT_BYTES = 10_000_000
OUTPUT_TIMEOUT_S = 30
FILE_BYTES = 100_000_000
FILE_NAME = "bench.txt"
SETTLE_S = 3
"""Until a session that was used is idle."""
SIBLINGS = 3
WORKERS = 2
FACTS = """
import json, os
lines = [line.rstrip().split(':\\t', 1) for line in open('/proc/self/status')]
status = dict(line for line in lines if len(line) == 2)
print(json.dumps({
    'uid': os.getuid(),
    'capabilities': int(status['CapEff'], 16).bit_count(),
    'no new privileges': status['NoNewPrivs'] == '1',
    'system calls filtered': status['Seccomp'].strip() == '2',
    'network': [line.split(':')[0].strip() for line in list(open('/proc/net/dev'))[2:]],
    'root can be written': os.access('/usr', os.W_OK),
}))
"""


@dataclass(frozen=True)
class Step:
    """One contender, measured in one way."""

    kind: str
    turn: int
    contender: str

    @property
    def key(self) -> str:
        """What it is called in a run's file."""
        return f"{self.kind} {self.turn} {self.contender}"


def plan(names: list[str], rounds: int, bulks: int, programs: int) -> list[Step]:
    """All steps in their order: contenders take turns, and each turn begins with another one."""
    steps = [Step("alone", 0, name) for name in names]
    for kind, turns in (("round", rounds), ("bulk", bulks), ("programs", programs)):
        for turn in range(turns):
            first = turn % max(1, len(names))
            steps += [Step(kind, turn, name) for name in names[first:] + names[:first]]
    return steps


class Measuring:
    """Steps of one contender with its adapter; what comes of them goes into the run."""

    def __init__(self, run: Run, contender: Contender, adapter: Adapter, folder: Path) -> None:
        self._run = run
        self._contender = contender
        self._adapter = adapter
        self._folder = folder

    def step(self, kind: str, programs_s: float) -> None:
        """Do one; a measure that cannot be had is noted, and the others go on.

        Raises:
            AdapterGone: The adapter has to be started again.
        """
        if kind == "programs":
            self._programs(programs_s)
            return
        with self._noting("open"):
            getattr(self, f"_{kind}")()
        self._adapter.ask("settle")

    def _round(self) -> None:
        with self._session() as (session, opened_s):
            first_s = self._code(session)
            self._add("open", opened_s)
            self._add("first", opened_s + first_s)
            told = self._adapter.ask(
                "run", session=session, code=CODE, times=NEXT_TIMES, at_most_s=NEXT_AT_MOST_S
            )
            self._add("next", *told.value["seconds"])
            with self._noting("official"):
                told = self._adapter.ask(
                    "official", session=session, code=CODE, times=OFFICIAL_TIMES
                )
                self._add("official", *told.value)
            with self._noting("pandas"):
                self._add("pandas", self._code(session, "import pandas; print(1 + 1)"))
            with self._noting("restart"):
                restarted = self._adapter.ask("restart", session=session)
                self._add("restart", restarted.seconds + self._code(session))

    def _bulk(self) -> None:
        name = f"{self._contender.folder}/{FILE_NAME}"
        sent, back = self._folder / FILE_NAME, self._folder / f"back-{self._contender.name}"
        with self._session(is_timed=False) as (session, _):
            self._code(session)
            with self._noting("put"):
                put = self._adapter.ask("put", session=session, source=str(sent), name=FILE_NAME)
                size = f"import os; print(os.path.getsize({name!r}))"
                self._code(session, size, str(FILE_BYTES))
                self._add("put", put.seconds)
            with self._noting("get"):
                got = self._adapter.ask("get", session=session, name=FILE_NAME, target=str(back))
                size_back = back.stat().st_size
                back.unlink()
                if size_back != FILE_BYTES:
                    raise AdapterFailed(f"{size_back:,} of {FILE_BYTES:,} bytes came back")
                self._add("get", got.seconds)
            with self._noting("output"):
                told = self._adapter.ask(
                    "output", timeout_s=OUTPUT_TIMEOUT_S, session=session, code=OUTPUT
                )
                if told.value["length"] < OUTPUT_BYTES - 1:  # some strip the last line's end
                    raise AdapterFailed(f"cut: {told.value['length']:,} characters arrived")
                self._add("output", told.seconds)

    def _alone(self) -> None:
        """With nobody else there: what is seen in the sandbox, and what it takes idle."""
        sessions: list[int] = []
        try:
            for _ in range(SIBLINGS):
                sessions.append(self._adapter.ask("open").value)
                self._code(sessions[-1])
                if len(sessions) == 1:
                    self._facts(sessions[0])
                if len(sessions) in (1, SIBLINGS):
                    time.sleep(SETTLE_S)
                    name = "memory" if len(sessions) == 1 else "memory_each"
                    taken = self._megabytes(sessions) / len(sessions)
                    self._run.add(self._contender.name, name, taken)
        finally:
            for session in sessions:
                if self._adapter.is_running:
                    self._adapter.ask("close", session=session)

    def _programs(self, for_s: float) -> None:
        with self._noting("programs"):
            told = self._adapter.ask(
                "programs",
                timeout_s=for_s + 120,
                code=CODE,
                expected=EXPECTED,
                for_s=for_s,
                workers=WORKERS,
            )
            rate = told.value["done"] / told.value["seconds"]
            self._run.add(self._contender.name, "programs", rate)
        self._adapter.ask("settle")

    def _facts(self, session: int) -> None:
        with self._noting("facts"):
            told = self._adapter.ask("run", session=session, code=FACTS)
            self._run.facts[self._contender.name] = json.loads(told.value["text"].strip())

    def _megabytes(self, sessions: list[int]) -> float:
        found = [self._adapter.ask("where", session=session).value for session in sessions]
        return pss_megabytes(
            [container for place in found for container in place["containers"]],
            [process for place in found for process in place["processes"]],
        )

    @contextmanager
    def _session(self, is_timed: bool = True) -> Iterator[tuple[int, float]]:
        """A session of its own, and the seconds that it took to open it."""
        opened = self._adapter.ask("open")
        try:
            yield opened.value, opened.seconds
        finally:
            if self._adapter.is_running:
                closed = self._adapter.ask("close", session=opened.value)
                if is_timed:
                    self._add("close", closed.seconds)

    def _code(self, session: int, code: str = CODE, expected: str = EXPECTED) -> float:
        """Run code that must print that; the seconds it took."""
        told = self._adapter.ask("run", session=session, code=code)
        if told.value["text"].strip() != expected:
            raise AdapterFailed(f"{code}: it printed {told.value['text'][:100]!r}")
        return told.value["seconds"][0]

    def _add(self, measure: str, *seconds: float) -> None:
        milliseconds: list[Any] = [1000 * value for value in seconds]
        self._run.add(self._contender.name, measure, *milliseconds)

    @contextmanager
    def _noting(self, measure: str) -> Iterator[None]:
        """Note what went wrong, or what is not there, and go on."""
        try:
            yield
        except AdapterLacks as lacking:
            self._run.note(self._contender.name, measure, str(lacking))
        except AdapterFailed as failed:
            self._run.note(self._contender.name, measure, str(failed))
            if isinstance(failed, AdapterGone):
                raise
