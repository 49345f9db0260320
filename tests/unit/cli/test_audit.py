"""`sandbox audit` over logs of several controllers, good ones and bad ones."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sandbox.audit import AuditLog, CallEntry, SessionEntry
from sandbox.audit.logfiles import segments
from sandbox.cli import auditlogs, exits, token
from sandbox.config import Settings
from sandbox.errors import ConfigError, InvalidRequest
from sandbox.server.tokens import TokenStore

EVIL = '=cmd|\x1b[2J\n{"seq":1}\u202e'


class State:
    """A state folder with the logs of some controllers.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.settings = Settings(state_dir=root)
        self._root = root
        self.now = 1_700_000_000.0

    def folder(self, slot: str) -> Path:
        return self._root / "controllers" / slot / "audit"

    def open(self, slot: str) -> AuditLog:
        folder = self.folder(slot)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return AuditLog(folder, slot, clock=lambda: self.now)

    def write(self, slot: str, *tools: str, **values: Any) -> None:
        """Add calls a second apart."""
        log = self.open(slot)
        for tool in tools:
            self.now += 1
            told = {"principal": "ann", "arguments": "0" * 64, "outcome": "ok", **values}
            log.record(CallEntry(tool=tool, transport="http", **told))
        log.close()

    def change_a_byte(self, slot: str) -> None:
        path = segments(self.folder(slot))[0]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.fixture
def state(tmp_path: Path) -> State:
    root = tmp_path / "state"
    root.mkdir(mode=0o700)
    return State(root)


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_the_latest_entries_of_all_logs_come_by_time(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    state.write("serve", "one", "two")
    state.write("stdio-1", "three")
    state.write("serve", "four")
    auditlogs.tail(state.settings, "", 3, follow=False, as_json=False)
    lines = printed(capsys)
    assert [line.split("tool=")[1].split()[0] for line in lines] == ["two", "three", "four"]
    assert lines[1].startswith("2023-11-14 22:13:23Z stdio-1 call ")
    auditlogs.tail(state.settings, "serve", 1, follow=False, as_json=True)
    (line,) = printed(capsys)
    assert json.loads(line)["tool"] == "four"
    auditlogs.tail(state.settings, "", 0, follow=False, as_json=True)
    assert printed(capsys) == []


def test_what_came_from_callers_is_shown_on_one_line_and_escaped(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    log = state.open("serve")
    log.record(SessionEntry(event="opened", name=EVIL, reason='a="b" c=d'))
    log.close()
    for as_json in (False, True):
        auditlogs.tail(state.settings, "", 9, follow=False, as_json=as_json)
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        assert out[:-1].isascii()
        assert out[:-1].isprintable()
    auditlogs.export(state.settings, "", auditlogs.Filter(), "csv")
    header, row = csv.reader(io.StringIO(capsys.readouterr().out))
    cell = row[header.index("name")]
    assert cell.startswith("'=")
    assert cell.isprintable()


def test_tail_goes_on_with_what_comes(state: State) -> None:
    state.write("serve", "before")
    with subprocess.Popen(
        [sys.executable, "-m", "sandbox", "audit", "tail", "--follow", "--json"],
        env={**os.environ, "SANDBOX_STATE_DIR": str(state.settings.state_dir)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["tool"] == "before"
            state.write("serve", "after")
            assert json.loads(process.stdout.readline())["tool"] == "after"
        finally:
            process.kill()


def test_verify_says_that_all_is_well_and_prints_the_heads(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    state.write("serve", "one", "two")
    state.write("run-1", "three")
    assert auditlogs.verify_logs(state.settings, "", "") == exits.OK
    run, serve = printed(capsys)
    assert run.startswith("run-1: intact, 1 lines from 1, head 1:")
    head = serve.rpartition(" ")[2]
    state.write("serve", "four")
    assert auditlogs.verify_logs(state.settings, "serve", head) == exits.OK
    forged = head[:-1] + ("0" if head[-1] != "0" else "1")
    assert auditlogs.verify_logs(state.settings, "serve", forged) == exits.FAILED


def test_verify_names_the_log_and_line_that_is_wrong(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    state.write("serve", "one", "two", "three")
    state.write("run-1", "four")
    state.change_a_byte("serve")
    assert auditlogs.verify_logs(state.settings, "", "") == exits.FAILED
    run, serve = printed(capsys)
    assert "intact" in run
    assert "BROKEN" in serve
    assert "line 2: changed" in serve
    assert auditlogs.verify_logs(state.settings, "run-1", "") == exits.OK


def test_a_slot_whose_log_is_gone_is_broken(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    state.folder("serve").parent.mkdir(parents=True)
    assert auditlogs.verify_logs(state.settings, "", "") == exits.FAILED
    assert "there is no log" in printed(capsys)[0]


def test_without_any_controller_there_is_nothing_to_find(state: State) -> None:
    assert auditlogs.verify_logs(state.settings, "", "") == exits.OK


def test_export_takes_what_was_asked_for_as_it_is_stored(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    state.write("serve", "one", session_id="s-1")
    state.write("serve", "two", session_id="s-2", principal="bob")
    state.write("serve", "three", session_id="s-1")
    stored = segments(state.folder("serve"))[0].read_text().splitlines()

    def exported(**wanted: Any) -> list[str]:
        assert auditlogs.export(state.settings, "", auditlogs.Filter(**wanted), "jsonl") == exits.OK
        return printed(capsys)

    assert exported() == stored
    assert exported(session_id="s-1") == [stored[0], stored[2]]
    assert exported(principal="bob") == [stored[1]]
    assert exported(since=state.now, until=state.now + 1) == [stored[2]]
    assert exported(until=state.now) == stored[:2]


def test_export_leaves_out_what_cannot_be_trusted_and_says_so(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    state.write("serve", "one", "two", "three")
    state.change_a_byte("serve")
    assert auditlogs.export(state.settings, "", auditlogs.Filter(), "jsonl") == exits.FAILED
    told = capsys.readouterr()
    assert [json.loads(line)["tool"] for line in told.out.splitlines()] == ["one", "three"]
    assert "line 2" in told.err


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2023-11-14", 1_699_920_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        ("2023-11-14T22:13:20+00:00", 1_700_000_000.0),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000.0),
        ("1700000000.5", 1_700_000_000.5),
    ],
)
def test_times_are_read_as_people_write_them(text: str, moment: float) -> None:
    assert auditlogs.Filter.of(text, "", "", "").since == moment


@pytest.mark.parametrize("text", ["yesterday", "-1", "2023-13-01", "nan", "1e999", "9" * 400])
def test_a_time_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        auditlogs.Filter.of(text, "", "", "")


@pytest.mark.parametrize(
    ("slot", "expect"),
    [("../serve", ""), ("absent", ""), ("", "1:" + "0" * 64), ("serve", "1:x"), ("serve", "head")],
)
def test_a_wrong_slot_or_head_is_refused(state: State, slot: str, expect: str) -> None:
    state.write("serve", "one")
    with pytest.raises(InvalidRequest):
        auditlogs.verify_logs(state.settings, slot, expect)


def test_tokens_that_are_given_out_and_taken_back_are_on_record(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    token.create_token(
        state.settings,
        "ann",
        "execute",
        application=EVIL.splitlines()[0].replace("\x1b", ""),
        policies="",
        expires="7d",
        as_json=True,
    )
    made = json.loads(capsys.readouterr().out)
    token.revoke_tokens(state.settings, token_id=made["token_id"], principal="")
    token.rotate_local(state.settings)
    capsys.readouterr()
    assert auditlogs.export(state.settings, "", auditlogs.Filter(), "jsonl") == exits.OK
    out = capsys.readouterr().out
    told = [json.loads(line) for line in out.splitlines()]
    assert [(each["event"], each["principal"], each["token_id"]) for each in told] == [
        ("created", "ann", made["token_id"]),
        ("revoked", "ann", made["token_id"]),
        ("rotated", "local", "local"),
    ]
    assert {each["by"] for each in told} == {f"uid {os.geteuid()}"}
    assert {each["slot"] for each in told} == {"admin-1"}
    assert made["token"] not in out
    assert auditlogs.verify_logs(state.settings, "", "") == exits.OK


def test_no_token_is_given_out_that_cannot_be_put_on_record(state: State) -> None:
    state.folder("admin-1").parent.mkdir(parents=True)
    state.folder("admin-1").write_text("not a folder")
    with pytest.raises(ConfigError):
        token.create_token(
            state.settings,
            "ann",
            "execute",
            application="",
            policies="",
            expires="7d",
            as_json=True,
        )
    with closing(TokenStore(state.settings.state_dir)) as store:
        assert store.list() == []


def test_a_broker_which_has_no_callers_has_no_log(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    state.write("serve", "one")
    state.folder("broker").parent.mkdir(parents=True)
    assert auditlogs.verify_logs(state.settings, "", "") == exits.OK
    assert [line.partition(":")[0] for line in printed(capsys)] == ["serve"]
