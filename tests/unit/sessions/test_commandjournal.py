"""Commands in the journal: what the next controller finds, and what is forgotten of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.commands.models import CommandRecord, CommandResult
from sandbox.sessions import retention
from sandbox.sessions.journal import Journal
from sandbox.sessions.retention import KEEP_ENDED_S

from .test_journal import fill, fill_with_results, open_session, prune


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "state.db")
    open_session(journal)
    yield journal
    journal.close()


def record(command_id: str = "c1", session_id: str = "s1") -> CommandRecord:
    return CommandRecord(
        command_id=command_id,
        session_id=session_id,
        command=("make", "all"),
        started_at=5.0,
        timeout_s=30.0,
    )


def result(command_id: str = "c1", text: str = "out") -> CommandResult:
    return CommandResult(
        command_id=command_id, session_id="s1", status="exited", exit_code=0, stdout=text
    )


def add(journal: Journal, session_id: str, names: list[str], size: int) -> None:
    for name in names:
        journal.commands.started(record(name, session_id))
        journal.commands.finished(result(name, "x" * size))


def test_a_command_is_unfinished_until_its_end_is_noted(journal: Journal) -> None:
    journal.commands.started(record())
    assert journal.commands.unfinished("s1") == [record()]
    assert journal.commands.result("s1", "c1") is None
    journal.commands.finished(result())
    assert journal.commands.unfinished("s1") == []
    assert journal.commands.result("s1", "c1") == result()
    assert journal.commands.session_of("c1") == "s1"


def test_a_command_is_found_in_its_own_session_only(journal: Journal) -> None:
    open_session(journal, "s2", principal="bob")
    journal.commands.started(record())
    journal.commands.finished(result())
    assert journal.commands.result("s2", "c1") is None
    assert journal.commands.unfinished("s2") == []
    assert journal.commands.session_of("c2") == ""


def test_a_command_that_was_refused_is_not_remembered(journal: Journal) -> None:
    journal.commands.started(record())
    journal.commands.refused("c1")
    assert journal.commands.unfinished("s1") == []
    assert journal.commands.session_of("c1") == ""


@pytest.mark.parametrize("is_full", [False, True])
def test_a_row_that_cannot_be_read_is_told_as_lost(journal: Journal, is_full: bool) -> None:
    for name in ("bad", "good", "ended"):
        journal.commands.started(record(name))
    journal.commands.finished(result("ended"))
    journal._db.write("UPDATE commands SET record = '{}' WHERE command_id = 'bad'")
    journal._db.write("UPDATE commands SET result = '{}' WHERE command_id = 'ended'")
    if is_full:
        fill(journal)
        journal._db.write("PRAGMA query_only = ON")
    assert journal.commands.unfinished("s1") == [record("good")]
    for name in ("ended",) if is_full else ("ended", "bad"):
        found = journal.commands.result("s1", name)
        assert found is not None
        assert found.status == "lost"
        assert found.reason


def test_commands_of_a_forgotten_session_go_with_it(journal: Journal) -> None:
    add(journal, "s1", ["c1"], 10)
    journal.ended("s1", "closed", "", None, now=0.0)
    prune(journal, now=KEEP_ENDED_S + 1)
    assert journal._db.read("SELECT count(*) FROM commands") == [(0,)]


def test_a_session_keeps_only_so_many_ended_commands(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEEP_FINISHED_PER_SESSION", 2)
    add(journal, "s1", [f"c{number}" for number in range(5)], 10)
    prune(journal, now=200.0)
    assert [n for n in range(5) if journal.commands.result("s1", f"c{n}")] == [3, 4]


def test_commands_and_executions_share_their_principals_bound(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEEP_FINISHED_BYTES", 450_000)
    open_session(journal, "quiet", principal="bob")
    add(journal, "quiet", ["kept"], 300_000)
    add(journal, "s1", [f"c{number}" for number in range(6)], 100_000)
    fill_with_results(journal, "s1", ["e0", "e1"], 100_000)
    journal.commands.started(record("running"))
    prune(journal, now=200.0)
    assert [n for n in range(6) if journal.commands.result("s1", f"c{n}")] == [4, 5]
    assert all(journal.executions.result("s1", name) for name in ("e0", "e1"))
    assert journal.commands.result("quiet", "kept")
    assert journal.commands.unfinished("s1") == [record("running")]
