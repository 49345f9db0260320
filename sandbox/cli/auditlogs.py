"""`sandbox audit`: reads the logs of a state folder, none of which is trusted."""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from sandbox.audit import verify
from sandbox.audit.chain import BadLine, Head, Line, read_line
from sandbox.audit.entries import KINDS
from sandbox.audit.logfiles import lines, segments
from sandbox.cli import exits
from sandbox.cli.folders import state_dir
from sandbox.config import Settings
from sandbox.errors import ConfigError, InvalidRequest
from sandbox.policy.units import parse_duration
from sandbox.sessions.slots import audit_folder, slot_names

FOLLOW_EVERY_S = 0.3
ENVELOPE = ("seq", "time", "slot", "kind")
CHAIN = ("prev", "hash")
_HEX = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_PLAIN = re.compile(r"[!#-<>-~]+")
"""Without spaces, quotes and the sign between a name and its value."""
_FORMULA = ("=", "+", "-", "@", "'")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are wanted; an empty text asks for nothing."""

    since: float = float("-inf")
    """Unix time; those before it are not."""
    until: float = float("inf")
    """Unix time; those at it and after it are not."""
    principal: str = ""
    session_id: str = ""

    @classmethod
    def of(cls, since: str, until: str, principal: str, session_id: str) -> Filter:
        """The filter that a command line asks for.

        Raises:
            InvalidRequest: A time cannot be read.
        """
        return cls(
            _moment(since) if since else float("-inf"),
            _moment(until) if until else float("inf"),
            principal,
            session_id,
        )

    def takes(self, line: Line) -> bool:
        """Whether a line is wanted."""
        return (
            self.since <= line.time < self.until
            and self.principal in ("", line.values.get("principal"))
            and self.session_id in ("", line.values.get("session_id"))
        )


def tail(settings: Settings, slot: str, count: int, *, follow: bool, as_json: bool) -> None:
    """Print the latest entries of all logs, and then, if asked to, what comes."""
    show, time_of = attrgetter("text") if as_json else _shown, attrgetter("time")
    tails = [_Tail(folder, name) for name, folder in _logs(settings, slot)]
    with _translated():
        latest = sorted((line for each in tails for line in each.latest(count)), key=time_of)
        for line in latest[max(len(latest) - count, 0) :]:
            print(show(line), flush=follow)
        while follow:
            time.sleep(FOLLOW_EVERY_S)
            for line in sorted((line for each in tails for line in each.news()), key=time_of):
                print(show(line), flush=True)


def verify_logs(settings: Settings, slot: str, expect: str) -> int:
    """Print what is found of each log; the exit code says whether all are intact."""
    known = _head(expect, slot) if expect else None
    broken = False
    for name, folder in _logs(settings, slot):
        with _translated():
            verdict = verify(folder, name, known)
        broken = broken or not verdict.is_intact
        for repair in verdict.repairs:
            print(f"{name}: a controller noted in {repair}")
        if verdict.fault is not None:
            print(f"{name}: BROKEN: {verdict.fault} ({verdict.lines} lines before it are right)")
        else:
            head = f"head {verdict.head.seq}:{verdict.head.hash}"
            print(f"{name}: intact, {verdict.lines} lines from {verdict.first}, {head}")
    return exits.FAILED if broken else exits.OK


def export(settings: Settings, slot: str, wanted: Filter, form: str) -> int:
    """Print the entries that are wanted; the exit code says whether all lines could be read."""
    table = csv.DictWriter(sys.stdout, _columns(), extrasaction="ignore", lineterminator="\n")
    if form == "csv":
        table.writeheader()
    unread = 0
    for name, folder in _logs(settings, slot):
        with _translated():
            for path in segments(folder):
                for number, line in enumerate(_read(path), 1):
                    if isinstance(line, BadLine):
                        unread += 1
                        print(f"{name}: {path.name}, line {number}: {line}", file=sys.stderr)
                    elif not wanted.takes(line):
                        continue
                    elif form == "csv":
                        table.writerow(_row(line))
                    else:
                        print(line.text)  # printable ASCII alone
    if unread:
        print("`sandbox audit verify` says more.", file=sys.stderr)
    return exits.FAILED if unread else exits.OK


class _Tail:
    """Reads one log from near its end on."""

    def __init__(self, folder: Path, slot: str) -> None:
        self._folder = folder
        self._slot = slot
        self._path: Path | None = None
        self._offset = 0

    def latest(self, count: int) -> list[Line]:
        """The last lines there are now."""
        known = 0
        for path in reversed(segments(self._folder)):
            self._path, self._offset = path, 0
            known += sum(1 for _ in lines(path))
            if known >= count:
                break
        return list(deque(self.news(), maxlen=count))

    def news(self) -> Iterator[Line]:
        """The lines that have come since."""
        for path in segments(self._folder):
            if self._path is not None and path.name < self._path.name:
                continue
            if path != self._path:
                self._path, self._offset = path, 0
            with suppress(FileNotFoundError):  # too old, and just removed
                yield from self._rest(path)

    def _rest(self, path: Path) -> Iterator[Line]:
        for data in lines(path, self._offset):
            try:
                line = read_line(data)
            except BadLine as exc:
                if exc.fault == "torn":
                    return  # it is just being written
                print(f"{self._slot}: {path.name}: a line is unreadable: {exc}", file=sys.stderr)
            else:
                yield line
            self._offset += len(data)


def _read(path: Path) -> Iterator[Line | BadLine]:
    for data in lines(path):
        try:
            yield read_line(data)
        except BadLine as exc:
            yield exc


def _logs(settings: Settings, slot: str) -> list[tuple[str, Path]]:
    """The slots whose logs are asked for, and where those are."""
    root = state_dir(settings)
    names = [name for name in slot_names(root) if name != "broker"]  # which has no callers
    if slot:
        if slot not in names:
            raise InvalidRequest(
                f"There is no slot {slot!r} in {root}.",
                remedy=f"There are: {', '.join(names)}." if names else "No controller has run.",
            )
        names = [slot]
    elif not names:
        print(f"No controller has run in {root} yet.", file=sys.stderr)
    return [(name, audit_folder(root, name)) for name in names]


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InvalidRequest(
            "A controller has just removed what was to be read.", remedy="Try again."
        ) from None
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise ConfigError(f"The audit log cannot be read: {exc}.") from exc


def _head(text: str, slot: str) -> Head:
    seq, _, digest = text.partition(":")
    if not slot:
        raise InvalidRequest("--expect is about one log.", remedy="Name it with --slot.")
    if not seq.isdecimal() or len(seq) > 15 or not _HEX.fullmatch(digest):
        raise InvalidRequest(
            "--expect must be a head as verify prints it: a number, a colon and 64 hexadecimal "
            "digits."
        )
    return Head(int(seq), digest)


def _moment(text: str) -> float:
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        return float(text) if _NUMBER.fullmatch(text) else _date(text)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{text!r} is no point in time.",
            remedy="Write 2026-11-24, 2026-11-24T18:30, a Unix time, or how long ago: 90m, 7d.",
        ) from None


def _date(text: str) -> float:
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _when(line: Line) -> str:
    try:
        return datetime.fromtimestamp(line.time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(line.time)


def _shown(line: Line) -> str:
    """A line for people: safe to print, without what only verification needs."""
    told = [
        f"{_escaped(name)}={_escaped(value)}"
        for name, value in line.values.items()
        if name not in (*ENVELOPE, *CHAIN)
    ]
    return " ".join((_when(line), _escaped(line.slot), f"{_escaped(line.kind):10}", *told))


def _escaped(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if _HEX.fullmatch(text):
        return f"{text[:12]}…"
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _columns() -> list[str]:
    names = [field.name for kind in KINDS for field in fields(kind)]
    return list(dict.fromkeys((*ENVELOPE, *names, *CHAIN)))


def _row(line: Line) -> dict[str, Any]:
    return {name: _cell(value) for name, value in line.values.items()} | {"time": _when(line)}


def _cell(value: object) -> object:
    """A value for a table: no control characters, and nothing that a spreadsheet would compute."""
    if not isinstance(value, str):
        return value
    text = value if value.isprintable() else json.dumps(value)[1:-1]
    return f"'{text}" if text.startswith(_FORMULA) else text
