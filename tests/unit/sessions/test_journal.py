"""The journal: what survives the controller, and what a bad file or a full disk does."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from sandbox.errors import ConfigError, InfrastructureError
from sandbox.kernels.models import ExecutionRecord, ExecutionResult
from sandbox.sessions import journal as journal_module
from sandbox.sessions.journal import KEEP_ENDED_S, Journal


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


def open_session(journal: Journal, session_id: str = "s1", default_key: str | None = "") -> None:
    journal.opening(session_id, "alice", "", "", now=100.0)
    journal.opened(session_id, Info(), default_key)


def test_an_execution_is_found_with_its_progress_by_the_next_controller(
    path: Path, journal: Journal
) -> None:
    open_session(journal)
    journal.started(record())
    journal.started(record().model_copy(update={"state": "running", "started_at": 2.0}))
    journal.progress("e1", result(text="half"), 7)
    journal.close()

    again = Journal(path)
    (found,) = again.unfinished("s1")
    assert (found.state, found.started_at, found.seq) == ("running", 2.0, 7)
    assert found.snapshot == result(text="half")
    again.finished("e1", result(text="all", status="ok"), 9)
    assert again.unfinished("s1") == []
    assert again.result("s1", "e1") == result(text="all", status="ok")
    again.close()


def test_unfinished_executions_come_in_the_order_of_their_submission(journal: Journal) -> None:
    open_session(journal)
    for name in ("e3", "e1", "e2"):
        journal.started(record(name))
    journal.started(record("e3").model_copy(update={"state": "running"}))
    assert [found.execution_id for found in journal.unfinished("s1")] == ["e3", "e1", "e2"]


def test_an_execution_is_looked_up_by_session_and_by_principal(journal: Journal) -> None:
    open_session(journal)
    journal.started(record())
    journal.finished("e1", result(status="ok"), 1)
    assert journal.result("s2", "e1") is None
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
    journal.opening("s1", "alice", "", "", now=1.0)
    assert [row.state for row in journal.not_ended()] == ["opening"]
    journal.not_opened("s1")
    assert journal.not_ended() == []


def test_lone_surrogates_in_outputs_do_not_break_the_journal(journal: Journal) -> None:
    open_session(journal)
    journal.started(record())
    journal.finished("e1", result(text="a\ud800b", status="ok"), 1)
    found = journal.result("s1", "e1")
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
        journal.started(record(f"e{number}"))
        journal.progress(f"e{number}", result(f"e{number}", "x" * 5000), 1)
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
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")


def test_on_a_full_disk_writes_fail_with_a_remedy_and_work_again_when_there_is_room(
    journal: Journal,
) -> None:
    open_session(journal)
    journal.started(record())
    fill(journal)
    long = result(text="x" * 100_000, status="ok")
    for write in (
        lambda: journal.progress("e1", long, 3),
        lambda: journal.finished("e1", long, 3),
        lambda: journal.started(record("e2").model_copy(update={"code": "y" * 100_000})),
    ):
        with pytest.raises(InfrastructureError, match="full") as caught:
            write()
        assert "disk space" in caught.value.remedy
    assert [found.execution_id for found in journal.unfinished("s1")] == ["e1"]

    journal._db.execute("PRAGMA max_page_count = 1000000")
    journal.finished("e1", long, 3)
    assert journal.result("s1", "e1") == long
    assert journal.unfinished("s1") == []


def test_a_session_found_by_its_container_only_can_have_executions(journal: Journal) -> None:
    journal.adopted("s1", "alice", now=5.0)
    journal.started(record())
    assert [row.state for row in journal.not_ended()] == ["open"]


def test_old_and_surplus_results_are_forgotten_and_their_space_is_given_back(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "KEEP_FINISHED_PER_SESSION", 2)
    open_session(journal, "s1")
    open_session(journal, "s2")
    for number in range(20):
        journal.started(record(f"e{number}"))
        journal.finished(f"e{number}", result(f"e{number}", "x" * 50_000, "ok"), 1)
    journal.started(record("running"))
    journal.ended("s2", "closed", "", None, now=1000.0)
    journal.prune(now=1001.0)
    kept = [number for number in range(20) if journal.result("s1", f"e{number}")]
    assert kept == [19]  # the newest two places are this one's and the running one's
    assert [found.execution_id for found in journal.unfinished("s1")] == ["running"]
    assert journal.session("alice", "s2") is not None
    journal.prune(now=1001.0 + KEEP_ENDED_S)
    assert journal.session("alice", "s2") is None
    journal.close()
    assert path.stat().st_size < 300_000


def test_all_results_together_fit_a_bound_in_bytes(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "KEEP_FINISHED_BYTES", 250_000)
    open_session(journal)
    for number in range(10):
        journal.started(record(f"e{number}"))
        journal.finished(f"e{number}", result(f"e{number}", "x" * 100_000, "ok"), 1)
    journal.prune(now=200.0)
    assert [number for number in range(10) if journal.result("s1", f"e{number}")] == [8, 9]


def test_executions_of_a_forgotten_session_go_with_it(journal: Journal) -> None:
    open_session(journal)
    journal.started(record())
    journal.finished("e1", result(status="ok"), 1)
    journal.ended("s1", "closed", "", None, now=0.0)
    journal.prune(now=KEEP_ENDED_S + 1)
    assert journal.result("s1", "e1") is None


def test_a_write_takes_a_fraction_of_a_millisecond(journal: Journal) -> None:
    """A wide bound, ten times what is usual: it fails when a write waits for the disk."""
    open_session(journal)
    took: list[float] = []
    for number in range(300):
        began = time.perf_counter()
        journal.started(record(f"e{number}"))
        journal.progress(f"e{number}", result(f"e{number}"), 1)
        journal.finished(f"e{number}", result(f"e{number}", status="ok"), 2)
        took.append((time.perf_counter() - began) / 3)
    assert sorted(took)[150] < 0.002
