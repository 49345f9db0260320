"""The journal: what survives the controller, and what a bad file or a full disk does."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import BaseModel

from sandbox.database import Database
from sandbox.egress.models import Tightening
from sandbox.errors import ConfigError, InfrastructureError
from sandbox.kernels.models import ExecutionRecord, ExecutionResult
from sandbox.sessions import retention
from sandbox.sessions.claims import Claim
from sandbox.sessions.journal import SCHEMA, Journal
from sandbox.sessions.retention import KEEP_ENDED_S

CLOSED = "it was closed by its caller"


class Info(BaseModel):
    text: str = "info"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


def record(execution_id: str = "e1", session_id: str = "s1") -> ExecutionRecord:
    return ExecutionRecord(
        execution_id=execution_id,
        session_id=session_id,
        kernel_id="k1",
        epoch=1,
        submitted_at=1.0,
        timeout_s=30.0,
        code="x = 1",
        state="queued",
    )


def result(execution_id: str = "e1", text: str = "out", status: str = "running") -> ExecutionResult:
    return ExecutionResult.model_validate(
        {
            "execution_id": execution_id,
            "session_id": "s1",
            "kernel_id": "k1",
            "status": status,
            "state": "kept",
            "outputs": [{"output_type": "stream", "name": "stdout", "text": text}],
        }
    )


def claim(
    session_id: str = "s1",
    default_key: str | None = "",
    principal: str = "alice",
    sandbox_id: str = "",
) -> Claim:
    return Claim(
        session_id=session_id,
        principal=principal,
        sandbox_id=sandbox_id or f"sb-{session_id}",
        uid=234_567,
        policy_digest="d" * 64,
        name="mine",
        opener_key="",
        default_key=default_key,
        workspace="w",
        created_at=100.0,
        expires_at=3700.0,
    )


def open_session(
    journal: Journal, session_id: str = "s1", default_key: str | None = "", principal: str = "alice"
) -> None:
    journal.claimed(claim(session_id, default_key, principal), now=100.0)
    journal.opened(session_id, Info())


def prune(journal: Journal, now: float) -> float:
    """Prune to the end; the longest step, in seconds of processor time."""
    steps, longest = journal.prune(now), 0.0
    while True:
        began = time.thread_time()
        over = next(steps, "over") == "over"
        longest = max(longest, time.thread_time() - began)
        if over:
            return longest


def test_an_execution_is_found_with_its_progress_by_the_next_controller(
    path: Path, journal: Journal
) -> None:
    open_session(journal)
    journal.executions.started(record())
    journal.executions.started(record().model_copy(update={"state": "running", "started_at": 2.0}))
    journal.executions.progress("e1", result(text="half"), 7)
    journal.close()

    again = Journal(path)
    (found,) = again.executions.unfinished("s1")
    assert (found.state, found.started_at, found.seq) == ("running", 2.0, 7)
    assert found.snapshot == result(text="half")
    again.executions.finished("e1", result(text="all", status="ok"), 9)
    assert again.executions.unfinished("s1") == []
    assert again.executions.result("s1", "e1") == result(text="all", status="ok")
    again.close()


def test_unfinished_executions_come_in_the_order_of_their_submission(journal: Journal) -> None:
    open_session(journal)
    for name in ("e3", "e1", "e2"):
        journal.executions.started(record(name))
    journal.executions.started(record("e3").model_copy(update={"state": "running"}))
    assert [found.execution_id for found in journal.executions.unfinished("s1")] == [
        "e3",
        "e1",
        "e2",
    ]


def test_an_execution_is_looked_up_by_session_and_by_principal(journal: Journal) -> None:
    open_session(journal)
    journal.executions.started(record())
    journal.executions.finished("e1", result(status="ok"), 1)
    assert journal.executions.result("s2", "e1") is None
    assert journal.session_of("mallory", "e1") is None
    row = journal.session_of("alice", "e1")
    assert row is not None
    assert row.session_id == "s1"


def test_sessions_are_found_by_principal_and_id_only(journal: Journal) -> None:
    open_session(journal)
    assert journal.session("alice", "s1") is not None
    assert journal.session("mallory", "s1") is None
    assert journal.session("alice", "s2") is None


def test_the_end_of_a_session_and_its_reason_are_kept(journal: Journal) -> None:
    open_session(journal)
    journal.used("s1", 123.0)
    assert [row.session_id for row in journal.not_ended()] == ["s1"]
    journal.ended("s1", "lost", "somebody removed it", Info(text="last"), 130.0)
    assert journal.not_ended() == []
    row = journal.session("alice", "s1")
    assert row is not None
    assert (row.state, row.reason, row.last_activity, row.ended_at, row.told) == (
        "lost",
        "somebody removed it",
        123.0,
        130.0,
        False,
    )
    assert row.info == '{"text":"last"}'
    journal.told("s1")
    row = journal.latest_default("alice", "")
    assert row is not None
    assert row.told


def test_a_caller_without_a_key_and_a_session_that_is_nobodys_default_differ(
    journal: Journal,
) -> None:
    open_session(journal, "s1", default_key=None)
    assert journal.latest_default("alice", "") is None


def test_a_session_that_never_opened_is_forgotten(journal: Journal) -> None:
    journal.claimed(claim(), now=1.0)
    assert [row.state for row in journal.not_ended()] == ["opening"]
    journal.not_opened("s1")
    assert journal.not_ended() == []


def test_a_claim_comes_back_as_it_was_written(path: Path, journal: Journal) -> None:
    journal.claimed(claim(), now=101.0)
    journal.close()
    again = Journal(path)
    (row,) = again.not_ended()
    assert {name: getattr(row, name) for name in asdict(claim())} == asdict(claim())
    assert (row.state, row.last_activity, row.ended_at) == ("opening", 101.0, None)
    assert again.of_sandbox("sb-s1") == row
    assert again.of_sandbox("sb-s2") is None
    again.close()


def test_no_sandbox_can_be_claimed_twice_not_even_after_its_session(journal: Journal) -> None:
    open_session(journal)
    with pytest.raises(InfrastructureError):
        journal.claimed(claim("s2", sandbox_id="sb-s1"), now=2.0)
    journal.ended("s1", "closed", "", None, now=3.0)
    with pytest.raises(InfrastructureError):
        journal.claimed(claim("s2", sandbox_id="sb-s1"), now=4.0)
    assert journal.session("alice", "s2") is None


def test_lone_surrogates_in_outputs_do_not_break_the_journal(journal: Journal) -> None:
    open_session(journal)
    journal.executions.started(record())
    journal.executions.finished("e1", result(text="a\ud800b", status="ok"), 1)
    found = journal.executions.result("s1", "e1")
    assert found is not None
    assert found.outputs[0]["text"] == "a?b"


@pytest.mark.parametrize("content", [b"not a database at all, but long enough" * 100, b"\0" * 4096])
def test_a_damaged_file_stops_the_controller_with_a_remedy(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Journal(path)
    assert str(path) in caught.value.message
    assert caught.value.remedy
    assert path.read_bytes() == content


def test_damaged_pages_are_noticed_at_the_start(path: Path, journal: Journal) -> None:
    open_session(journal)
    for number in range(50):
        journal.executions.started(record(f"e{number}"))
        journal.executions.progress(f"e{number}", result(f"e{number}", "x" * 5000), 1)
    journal.close()
    data = bytearray(path.read_bytes())
    for at in range(2 * 4096, len(data), 4096):
        data[at : at + 64] = b"\xaa" * 64
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"state\.db"):
        Journal(path)


def test_a_journal_of_a_newer_version_is_refused(path: Path, journal: Journal) -> None:
    journal.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="newer"):
        Journal(path)


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE other (x)")
    db.close()
    with pytest.raises(ConfigError, match="other program"):
        Journal(path)
    with sqlite3.connect(path) as db:
        tables = db.execute("SELECT name FROM sqlite_schema").fetchall()
    db.close()
    assert tables == [("other",)]


def test_an_absent_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Journal(tmp_path / "absent" / "state.db")


def test_the_file_is_private(path: Path, journal: Journal) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def fill(journal: Journal) -> None:
    """Let the file grow no further, as a full disk does."""
    pages = journal._db.read("PRAGMA page_count")[0][0]
    journal._db.write(f"PRAGMA max_page_count = {pages}")


def test_on_a_full_disk_writes_fail_with_a_remedy_and_work_again_when_there_is_room(
    journal: Journal,
) -> None:
    open_session(journal)
    journal.executions.started(record())
    fill(journal)
    long = result(text="x" * 100_000, status="ok")
    for write in (
        lambda: journal.executions.progress("e1", long, 3),
        lambda: journal.executions.finished("e1", long, 3),
        lambda: journal.executions.started(record("e2").model_copy(update={"code": "y" * 100_000})),
    ):
        with pytest.raises(InfrastructureError, match="full") as caught:
            write()
        assert "disk space" in caught.value.remedy
    assert [found.execution_id for found in journal.executions.unfinished("s1")] == ["e1"]

    journal._db.write("PRAGMA max_page_count = 1000000")
    journal.executions.finished("e1", long, 3)
    assert journal.executions.result("s1", "e1") == long
    assert journal.executions.unfinished("s1") == []


def test_old_and_surplus_results_are_forgotten_and_their_space_is_given_back(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEEP_FINISHED_PER_SESSION", 2)
    open_session(journal, "s1")
    open_session(journal, "s2")
    for number in range(20):
        journal.executions.started(record(f"e{number}"))
        journal.executions.finished(f"e{number}", result(f"e{number}", "x" * 50_000, "ok"), 1)
    journal.executions.started(record("running"))
    journal.ended("s2", "closed", "", None, now=1000.0)
    prune(journal, now=1001.0)
    kept = [number for number in range(20) if journal.executions.result("s1", f"e{number}")]
    assert kept == [19]  # the newest two places are this one's and the running one's
    assert [found.execution_id for found in journal.executions.unfinished("s1")] == ["running"]
    assert journal.session("alice", "s2") is not None
    prune(journal, now=1001.0 + KEEP_ENDED_S)
    assert journal.session("alice", "s2") is None
    journal.close()
    assert path.stat().st_size < 300_000


def test_all_results_together_fit_a_bound_in_bytes(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEEP_FINISHED_BYTES", 250_000)
    open_session(journal)
    for number in range(10):
        journal.executions.started(record(f"e{number}"))
        journal.executions.finished(f"e{number}", result(f"e{number}", "x" * 100_000, "ok"), 1)
    prune(journal, now=200.0)
    assert [number for number in range(10) if journal.executions.result("s1", f"e{number}")] == [
        8,
        9,
    ]


def test_executions_of_a_forgotten_session_go_with_it(journal: Journal) -> None:
    open_session(journal)
    journal.executions.started(record())
    journal.executions.finished("e1", result(status="ok"), 1)
    journal.ended("s1", "closed", "", None, now=0.0)
    prune(journal, now=KEEP_ENDED_S + 1)
    assert journal.executions.result("s1", "e1") is None


@pytest.mark.timed
def test_a_write_takes_a_fraction_of_a_millisecond(journal: Journal) -> None:
    """A wide bound, ten times what is usual: it fails when a write waits for the disk."""
    open_session(journal)
    took: list[float] = []
    for number in range(300):
        began = time.perf_counter()
        journal.executions.started(record(f"e{number}"))
        journal.executions.progress(f"e{number}", result(f"e{number}"), 1)
        journal.executions.finished(f"e{number}", result(f"e{number}", status="ok"), 2)
        took.append((time.perf_counter() - began) / 3)
    assert sorted(took)[150] < 0.002


def fill_with_results(journal: Journal, session_id: str, names: list[str], size: int) -> None:
    for name in names:
        journal.executions.started(record(name, session_id))
        journal.executions.finished(name, result(name, "x" * size, "ok"), 1)


def test_who_has_too_much_loses_its_own_oldest_results_and_nobody_elses(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEEP_FINISHED_BYTES", 250_000)
    open_session(journal, "quiet", principal="bob")
    open_session(journal, "loud", principal="alice")
    fill_with_results(journal, "quiet", ["kept"], 100_000)
    fill_with_results(journal, "loud", [f"e{number}" for number in range(10)], 100_000)
    prune(journal, now=200.0)
    assert journal.executions.result("quiet", "kept")
    assert [n for n in range(10) if journal.executions.result("loud", f"e{n}")] == [8, 9]


def test_past_the_bound_of_all_the_largest_loses_first(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEEP_FINISHED_BYTES_IN_ALL", 1_050_000)
    for principal, count in (("small", 1), ("large", 9), ("middle", 4)):
        open_session(journal, principal, principal=principal)
        names = [f"{principal}{number}" for number in range(count)]
        fill_with_results(journal, principal, names, 100_000)
    prune(journal, now=200.0)
    counts = {
        principal: sum(
            journal.executions.result(principal, f"{principal}{n}") is not None for n in range(9)
        )
        for principal in ("small", "middle", "large")
    }
    assert counts == {"small": 1, "middle": 4, "large": 5}


def test_a_flood_of_ended_sessions_removes_nobody_elses(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEEP_ENDED_SESSIONS", 5)
    monkeypatch.setattr(retention, "KEEP_ENDED_SESSIONS_IN_ALL", 6)
    open_session(journal, "first", principal="bob")
    journal.ended("first", "closed", "", None, now=100.0)
    for number in range(30):
        open_session(journal, f"s{number}", principal="alice")
        journal.ended(f"s{number}", "closed", "", None, now=101.0 + number)
    prune(journal, now=200.0)
    assert journal.session("bob", "first") is not None
    kept = [number for number in range(30) if journal.session("alice", f"s{number}")]
    assert kept == [25, 26, 27, 28, 29]


def test_no_step_of_forgetting_holds_the_loop_however_long_the_journal_is(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEEP_FINISHED_BYTES", 10_000_000)
    for number in range(120):
        open_session(journal, f"s{number}", principal=f"p{number % 3}")
    journal._db.write(
        "INSERT INTO executions WITH RECURSIVE numbers(n) AS"
        " (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 24999)"
        " SELECT 'e' || n, 's' || (n % 120), 1, 1, 2000, '{}', hex(zeroblob(1000)) FROM numbers"
    )
    longest = prune(journal, now=200.0)
    left = journal._db.read("SELECT count(*) FROM executions")[0][0]
    for number in range(120):
        journal.ended(f"s{number}", "closed", "", None, now=200.0)
    longest = max(longest, prune(journal, now=201.0 + KEEP_ENDED_S))
    assert left == 15_000
    assert journal._db.read("SELECT count(*) FROM executions")[0][0] == 0
    assert longest < 0.05


@pytest.mark.parametrize("version", range(1, len(SCHEMA)))
def test_a_journal_of_an_earlier_version_is_brought_up_to_date(path: Path, version: int) -> None:
    with sqlite3.connect(path) as db:
        for statements in EARLIER[:version]:
            db.executescript(statements)
        db.execute("PRAGMA application_id = 0x5A4E4458")
        db.execute(f"PRAGMA user_version = {version}")
        db.executemany(
            "INSERT INTO sessions (session_id, principal, default_key, opener_key, name, state,"
            " reason, told, info, last_activity, ended_at) VALUES"
            " (?, 'alice', '', '', 'mine', 'open', '', 0, '', 5.0, NULL)",
            [("s1",), ("s2",)],
        )
        row = (record().model_dump_json(), result(text="half").model_dump_json())
        db.execute("INSERT INTO executions VALUES ('e1', 's1', 0, 4, 10, ?, ?)", row)
    db.close()
    journal = Journal(path)
    found, other = journal.not_ended()
    assert (found.name, found.default_key, found.last_activity) == ("mine", "", 5.0)
    assert (found.sandbox_id, other.sandbox_id) == ("", "")  # of no sandbox, so of no container
    (execution,) = journal.executions.unfinished("s1")
    assert (execution.seq, execution.snapshot) == (4, result(text="half"))
    journal.tightened("s1", Tightening(is_off=True))
    assert journal.tightening("s1").is_off
    prune(journal, now=10.0)
    journal.close()
    Journal(path).close()


@pytest.mark.parametrize("record_text", ["{}", "not JSON at all", '{"execution_id": 5}'])
def test_a_record_that_cannot_be_read_is_set_aside_and_its_execution_lost(
    journal: Journal, record_text: str
) -> None:
    open_session(journal)
    journal.executions.started(record("good"))
    journal.executions.started(record("bad"))
    journal._db.write("UPDATE executions SET record = ? WHERE execution_id = 'bad'", record_text)
    assert [found.execution_id for found in journal.executions.unfinished("s1")] == ["good"]
    told = journal.executions.result("s1", "bad")
    assert told is not None
    assert told.status == "lost"
    assert "set aside" in (told.reason or "")
    assert journal.executions.unfinished("s1") != []
    ((content,),) = journal._db.read("SELECT content FROM set_aside WHERE id = 'bad'")
    assert record_text in json.loads(content)["row"][0]


def test_a_snapshot_that_cannot_be_read_is_told_and_not_raised(journal: Journal) -> None:
    open_session(journal)
    journal.executions.started(record())
    journal.executions.finished("e1", result(status="ok"), 1)
    journal._db.write('UPDATE executions SET snapshot = \'{"status": "new word"}\'')
    told = journal.executions.result("s1", "e1")
    assert told is not None
    assert told.status == "lost"
    assert journal.executions.result("s1", "e1") == told


def test_what_cannot_be_read_of_a_tightening_counts_as_all(journal: Journal) -> None:
    open_session(journal)
    journal.tightened("s1", Tightening())
    journal._db.write("UPDATE tightenings SET tightening = '{\"deny\": 5}'")
    assert journal.tightening("s1").is_off


def test_a_full_disk_does_not_make_an_unreadable_row_an_error(journal: Journal) -> None:
    open_session(journal)
    journal.executions.started(record())
    journal._db.write("UPDATE executions SET record = ?", "x" * 5000)
    fill(journal)
    journal._db.write("PRAGMA query_only = ON")
    assert journal.executions.unfinished("s1") == []


EARLIER = (
    """
    CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY, principal TEXT NOT NULL, default_key TEXT,
        opener_key TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
        told INTEGER NOT NULL, info TEXT NOT NULL, last_activity REAL NOT NULL, ended_at REAL
    ) STRICT;
    CREATE INDEX sessions_by_default ON sessions (principal, default_key);
    CREATE TABLE executions (
        execution_id TEXT PRIMARY KEY,
        session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
        finished INTEGER NOT NULL, seq INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
        record TEXT NOT NULL, snapshot TEXT
    ) STRICT;
    CREATE INDEX executions_by_session ON executions (session_id, finished);
    """,
    """
    CREATE TABLE tightenings (
        session_id TEXT PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
        tightening TEXT NOT NULL
    ) STRICT;
    """,
    """
    DROP INDEX executions_by_session;
    CREATE INDEX executions_by_session ON executions (session_id, finished, size_bytes);
    CREATE INDEX sessions_by_end ON sessions (ended_at);
    CREATE TABLE set_aside (
        at REAL NOT NULL, reason TEXT NOT NULL, id TEXT NOT NULL, content TEXT NOT NULL
    ) STRICT;
    """,
    """
    ALTER TABLE sessions ADD COLUMN sandbox_id TEXT NOT NULL DEFAULT '';
    ALTER TABLE sessions ADD COLUMN uid INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sessions ADD COLUMN policy_digest TEXT NOT NULL DEFAULT '';
    ALTER TABLE sessions ADD COLUMN workspace TEXT NOT NULL DEFAULT '';
    ALTER TABLE sessions ADD COLUMN created_at REAL NOT NULL DEFAULT 0;
    ALTER TABLE sessions ADD COLUMN expires_at REAL NOT NULL DEFAULT 0;
    CREATE UNIQUE INDEX sessions_by_sandbox ON sessions (sandbox_id) WHERE sandbox_id <> '';
    """,
    """
    CREATE TABLE commands (
        command_id TEXT PRIMARY KEY,
        session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
        finished INTEGER NOT NULL, size_bytes INTEGER NOT NULL, record TEXT NOT NULL, result TEXT
    ) STRICT;
    CREATE INDEX commands_by_session ON commands (session_id, finished, size_bytes);
    """,
    """
    CREATE TABLE notebooks (
        file_id TEXT PRIMARY KEY,
        session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, path TEXT NOT NULL,
        is_open INTEGER NOT NULL, kernel_id TEXT NOT NULL, etag TEXT NOT NULL, base BLOB
    ) STRICT;
    CREATE UNIQUE INDEX notebooks_by_path ON notebooks (session_id, path);
    CREATE TABLE notebook_updates (
        seq INTEGER PRIMARY KEY,
        file_id TEXT NOT NULL REFERENCES notebooks ON DELETE CASCADE,
        size_bytes INTEGER NOT NULL, data BLOB NOT NULL
    ) STRICT;
    CREATE INDEX notebook_updates_by_file ON notebook_updates (file_id, size_bytes);
    CREATE TABLE notebook_runs (
        execution_id TEXT PRIMARY KEY,
        file_id TEXT NOT NULL REFERENCES notebooks ON DELETE CASCADE, cell_id TEXT NOT NULL
    ) STRICT;
    CREATE INDEX notebook_runs_by_file ON notebook_runs (file_id);
    """,
    "ALTER TABLE sessions ADD COLUMN checkpoint TEXT NOT NULL DEFAULT ''",
)
"""What earlier versions wrote, as they wrote it; never to be edited."""


def test_an_end_is_found_with_the_last_message_in_it(journal: Journal) -> None:
    open_session(journal)
    table = journal.executions
    table.started(record())
    table.progress("e1", result(), 4)
    assert table.ended("s1", "e1") is None
    table.finished("e1", result(status="ok"), 7)
    found = table.ended("s1", "e1")
    assert found is not None
    assert (found.seq, found.epoch, found.snapshot) == (7, 1, result(status="ok"))
    assert table.ended("s2", "e1") is None
    assert table.ended("s1", "absent") is None


def test_a_full_disk_at_the_start_is_no_reason_to_move_the_journal_away(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(Database, "_prepare", full)
    with pytest.raises(ConfigError, match="full") as caught:
        Journal(path)
    assert caught.value.remedy == "Free some disk space there."


def test_an_end_that_cannot_be_written_counts_and_is_written_when_there_is_room(
    path: Path, journal: Journal
) -> None:
    open_session(journal)
    open_session(journal, "s2")
    journal.executions.started(record())
    journal._db.write("PRAGMA query_only = ON")
    with pytest.raises(InfrastructureError):
        journal.ended("s1", "closed", CLOSED, None, 7.0)
    with pytest.raises(InfrastructureError):
        journal.not_opened("s2")
    found = journal.session("alice", "s1")
    assert found is not None
    assert (found.state, found.reason, found.ended_at) == ("closed", CLOSED, 7.0)
    with pytest.raises(InfrastructureError):
        journal.settle()
    journal._db.write("PRAGMA query_only = OFF")
    journal.settle()
    with closing(Journal(path)) as following:
        assert following.not_ended() == []
        found = following.session("alice", "s1")
        assert found is not None
        assert (found.state, found.reason, found.ended_at) == ("closed", CLOSED, 7.0)
        ended = following.executions.result("s1", "e1")
        assert ended is not None
        assert CLOSED in (ended.reason or "")
