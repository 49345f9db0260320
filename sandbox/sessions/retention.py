"""What a journal forgets, so that its file stays within bounds: fairly, and a little at a time.

Ended sessions go after a day, and results with them. Before that, whoever has more than its share
loses its own oldest: one principal's results never push out another's. Only where all principals
together have too much does somebody lose within its share: the one that has most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sandbox.database import Database
from sandbox.sessions.notebookjournal import forget_ended

KEEP_ENDED_S = 24 * 3600.0
KEEP_ENDED_SESSIONS = 200
"""Of one principal."""
KEEP_ENDED_SESSIONS_IN_ALL = 5000
KEEP_FINISHED_PER_SESSION = 500
KEEP_FINISHED_BYTES = 128 * 1024 * 1024
"""Of one principal."""
KEEP_FINISHED_BYTES_IN_ALL = 1024 * 1024 * 1024
KEEP_SET_ASIDE = 100
FORGET_AT_ONCE = 100
"""Rows of one statement."""
FORGET_BYTES_AT_ONCE = 8 * 1024 * 1024
"""Of the rows of one statement together, but for the last of them."""
LOOK_AT_ONCE = 10
"""Sessions of one statement; each has at most some hundreds of rows."""
RESULTS = ("executions", "commands")
"""The tables of results. They count together, and the larger one loses first."""
VACUUM_PAGES = 256
VACUUM_STEPS = 1024

_FINISHED = "finished = 1"


def forget(db: Database, now: float) -> Iterator[None]:
    """Forget what is too old or too much; between two steps others may use the loop.

    Raises:
        InfrastructureError: While iterating: the file cannot be used.
    """
    for session_id in _ended(db, now):
        yield from _forget_session(db, session_id)
    yield from forget_ended(db)
    sizes: Counter[tuple[str, str]] = Counter()
    for table in RESULTS:
        for principal, session_id, count, size_bytes in _sessions(db, table):
            yield
            if (surplus := count - KEEP_FINISHED_PER_SESSION) > 0:
                for gone in _forget_oldest(
                    db, table, f"session_id = ? AND {_FINISHED}", session_id, most=surplus
                ):
                    size_bytes -= gone
                    yield
            sizes[principal, table] += size_bytes
    yield from _make_fit(db, sizes)
    db.write(
        "DELETE FROM set_aside WHERE rowid NOT IN"
        " (SELECT rowid FROM set_aside ORDER BY rowid DESC LIMIT ?)",
        KEEP_SET_ASIDE,
    )
    for _ in range(VACUUM_STEPS):
        if not db.read("PRAGMA freelist_count")[0][0]:
            return
        db.give_back(VACUUM_PAGES)
        yield


def _ended(db: Database, now: float) -> list[str]:
    """The ended sessions to forget."""
    ended = db.read(
        "SELECT session_id, principal, ended_at FROM sessions WHERE ended_at IS NOT NULL"
        " ORDER BY ended_at"
    )
    counts = Counter(principal for _, principal, _ in ended)
    surplus = len(ended) - KEEP_ENDED_SESSIONS_IN_ALL
    found: list[str] = []
    for session_id, principal, ended_at in ended:
        share = KEEP_ENDED_SESSIONS
        if surplus > 0:  # of those that have most, while there are too many in all
            share = min(share, KEEP_ENDED_SESSIONS_IN_ALL // len(counts))
        if ended_at < now - KEEP_ENDED_S or counts[principal] > share:
            found.append(session_id)
            counts[principal] -= 1
            surplus -= 1
    return found


def _forget_session(db: Database, session_id: str) -> Iterator[None]:
    for table in RESULTS:
        for _ in _forget_oldest(db, table, "session_id = ?", session_id):
            yield
    db.write("DELETE FROM sessions WHERE session_id = ?", session_id)
    yield


def _sessions(db: Database, table: str) -> Iterator[tuple[str, str, int, int]]:
    """Of each session that has results there: principal, id, how many, and their bytes."""
    ids = [row[0] for row in db.read("SELECT session_id FROM sessions")]
    for start in range(0, len(ids), LOOK_AT_ONCE):
        some = ids[start : start + LOOK_AT_ONCE]
        marks = ", ".join("?" * len(some))
        yield from db.read(
            "SELECT s.principal, s.session_id, count(*), sum(e.size_bytes) FROM sessions AS s"  # noqa: S608  # marks
            f" JOIN {table} AS e USING (session_id) WHERE s.session_id IN ({marks})"
            " GROUP BY s.session_id",
            *some,
        )


def _make_fit(db: Database, sizes: Counter[tuple[str, str]]) -> Iterator[None]:
    """Forget the oldest results of whoever has more than its share, then of the largest."""
    totals: Counter[str] = Counter()
    for (principal, _), size_bytes in sizes.items():
        totals[principal] += size_bytes

    def shrink(principal: str, limit_bytes: int) -> Iterator[None]:
        whose = "session_id IN (SELECT session_id FROM sessions WHERE principal = ?)"
        for table in sorted(RESULTS, key=lambda table: -sizes[principal, table]):
            excess = totals[principal] - limit_bytes
            for gone in _forget_oldest(
                db, table, f"{whose} AND {_FINISHED}", principal, excess_bytes=excess
            ):
                totals[principal] -= gone
                yield

    for principal, size_bytes in tuple(totals.items()):
        if size_bytes > KEEP_FINISHED_BYTES:
            yield from shrink(principal, KEEP_FINISHED_BYTES)
    while (excess := totals.total() - KEEP_FINISHED_BYTES_IN_ALL) > 0:
        (largest, size_bytes), *others = totals.most_common(2)
        next_largest = others[0][1] if others else 0
        before = totals.total()
        # Down to a little below the next one, so that those who have much take turns.
        yield from shrink(
            largest, max(size_bytes - excess, min(next_largest, size_bytes) * 9 // 10)
        )
        if totals.total() == before:
            return  # what is left of it still runs


def _forget_oldest(
    db: Database,
    table: str,
    where: str,
    value: str,
    *,
    most: int = 2**62,
    excess_bytes: int = 2**62,
) -> Iterator[int]:
    """Forget the oldest of some results, at most so many or until the excess is gone, and yield the
    bytes of each few."""
    while most > 0 and excess_bytes > 0:
        oldest = db.read(
            f"SELECT rowid, size_bytes FROM {table} WHERE {where} ORDER BY rowid LIMIT ?",  # noqa: S608  # constants
            value,
            min(most, FORGET_AT_ONCE),
        )
        rows: list[int] = []
        gone = 0
        for row, size_bytes in oldest:
            if gone >= min(excess_bytes, FORGET_BYTES_AT_ONCE):
                break
            rows.append(row)
            gone += size_bytes
        if not rows:
            return
        marks = ", ".join("?" * len(rows))
        db.write(f"DELETE FROM {table} WHERE rowid IN ({marks})", *rows)  # noqa: S608  # marks
        most -= len(rows)
        excess_bytes -= gone
        yield gone
