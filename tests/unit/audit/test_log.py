"""Writing a log: after a crash, on a full disk, past its bounds, and with somebody else in it."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.audit import AuditLog, DenialEntry, EgressEntry
from sandbox.audit import log as log_module
from sandbox.audit.chain import MAX_LINE_BYTES, Head
from sandbox.audit.floods import MAX_KINDS, OTHERS
from sandbox.audit.logfiles import HEAD, read_head, segments
from sandbox.errors import ConfigError, InfrastructureError

from .logs import Logs, call

SMALL = 64 * 1024


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Files cannot grow past a size: as good as a full disk, and needs no rights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- what is written


def test_entries_come_in_order_with_their_time_and_slot(logs: Logs) -> None:
    log = logs.open()
    log.record(call(tool="one"))
    logs.now += 5
    log.record(call(tool="two", session_id="s-1", code="timeout"))
    log.close()
    first, second = logs.lines()
    assert (first.seq, second.seq) == (1, 2)
    assert second.time - first.time == 5
    assert second.slot == "serve"
    assert second.values["session_id"] == "s-1"
    assert "session_id" not in first.values
    assert logs.verify().head == log.head


def test_the_log_is_private_whatever_the_umask_is(logs: Logs) -> None:
    before = os.umask(0)
    try:
        logs.write(1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(logs.folder.stat().st_mode) == 0o700
    for path in (logs.newest, logs.folder / HEAD):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_next_controller_goes_on_where_the_last_one_stopped(logs: Logs) -> None:
    for _ in range(3):
        logs.write(2)
    assert [line.seq for line in logs.lines()] == [1, 2, 3, 4, 5, 6]
    assert logs.verify().is_intact
    assert len(segments(logs.folder)) == 1


def test_a_folder_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    aside = tmp_path / "elsewhere"
    aside.mkdir()
    (tmp_path / "link").symlink_to(aside)
    (tmp_path / "file").write_text("")
    for name in ("link", "file", "absent/audit"):
        with pytest.raises(ConfigError):
            AuditLog(tmp_path / name, "serve")
    assert not list(aside.iterdir())


# --- after a crash


@pytest.mark.parametrize("left", [1, 30, -1])
def test_a_line_that_was_cut_off_is_set_aside_and_said(logs: Logs, left: int) -> None:
    logs.write(3)
    head = logs.verify().head
    whole = logs.newest.read_bytes()
    logs.write(1)
    torn = logs.newest.read_bytes()[len(whole) :][:left]
    logs.newest.write_bytes(whole + torn)
    (logs.folder / HEAD).write_bytes(head.encode())  # it is written after the line
    fault = logs.verify().fault
    assert fault is not None
    assert fault.kind == "torn"

    logs.write(1)

    repair = logs.lines()[3]
    assert repair.kind == "repair"
    assert repair.values["torn_bytes"] == len(torn)
    assert repair.values["torn_sha256"] == hashlib.sha256(torn).hexdigest()
    assert (logs.folder / repair.values["torn_file"]).read_bytes() == torn
    assert logs.verify().is_intact
    assert logs.verify().repairs
    assert [line.seq for line in logs.lines()] == [1, 2, 3, 4, 5]


def test_a_segment_whose_first_line_was_cut_off_is_set_aside_too(logs: Logs) -> None:
    logs.write(2)
    (logs.folder / "0000000000000003.jsonl").write_bytes(b'{"seq":3')
    logs.write(1)
    assert [line.kind for line in logs.lines()] == ["call", "call", "repair", "call"]
    assert logs.verify().is_intact


def test_a_line_that_was_set_aside_by_a_controller_that_then_died_is_said_by_the_next(
    logs: Logs,
) -> None:
    logs.write(1)
    with logs.newest.open("ab") as file:
        file.write(b'{"seq":2,"ti')
    logs.open()  # and killed before it wrote anything
    logs.write(1)
    assert [line.kind for line in logs.lines()] == ["call", "repair", "call"]
    assert logs.lines()[1].values["torn_bytes"] == 12


def test_a_head_that_is_one_line_behind_is_what_a_killed_controller_leaves(logs: Logs) -> None:
    logs.write(3)
    (logs.folder / HEAD).write_bytes(logs.lines()[1].head.encode())
    logs.write(1)
    assert [line.kind for line in logs.lines()] == ["call"] * 4
    assert logs.verify().is_intact


def test_a_killed_writer_leaves_a_log_that_is_whole_or_torn_and_goes_on(logs: Logs) -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from sandbox.audit import AuditLog, TokenEntry\n"
        "log = AuditLog(Path(sys.argv[1]), 'serve')\n"
        "print('ready', flush=True)\n"
        "while True: log.record(TokenEntry(event='x' * 200, principal='y' * 200))\n"
    )
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(logs.folder), str(Path.cwd())],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            first = logs.folder / "0000000000000001.jsonl"
            size = first.stat().st_size if first.exists() else 0
            while not first.exists() or first.stat().st_size < size + 200_000:
                pass
            process.send_signal(signal.SIGKILL)
        fault = logs.verify().fault
        assert fault is None or fault.kind == "torn"
    logs.write(1)
    assert logs.verify().is_intact
    assert logs.lines()[-1].kind == "call"


# --- with somebody else in it


def cut_off(logs: Logs) -> None:
    rows = logs.newest.read_bytes().splitlines(keepends=True)
    logs.newest.write_bytes(b"".join(rows[:-2]))


def change_last(logs: Logs) -> None:
    logs.newest.write_bytes(logs.newest.read_bytes().replace(b"tool_3", b"tool_X"))


def remove_head(logs: Logs) -> None:
    (logs.folder / HEAD).unlink()


def cut_off_and_remove_head(logs: Logs) -> None:
    cut_off(logs)
    remove_head(logs)


def break_head(logs: Logs) -> None:
    (logs.folder / HEAD).write_bytes(b"\xff" * 1000)


def remove_segments(logs: Logs) -> None:
    for path in segments(logs.folder):
        path.unlink()


def fill_with_garbage(logs: Logs) -> None:
    logs.newest.write_bytes(b"\0" * (4 * MAX_LINE_BYTES))


@pytest.mark.parametrize(
    "tamper",
    [
        cut_off,
        change_last,
        remove_head,
        cut_off_and_remove_head,
        break_head,
        remove_segments,
        fill_with_garbage,
    ],
)
def test_a_restart_says_what_it_found_and_does_not_heal_it(logs: Logs, tamper: object) -> None:
    logs.write(4)
    tamper(logs)  # type: ignore[operator]
    assert not logs.verify().is_intact
    log = logs.open()
    log.require()
    log.record(call(tool="afterwards"))
    log.close()
    assert not logs.verify().is_intact
    newest = [line for line in logs.newest.read_bytes().splitlines()][-2:]
    assert b'"kind":"repair"' in newest[0]
    assert b"afterwards" in newest[1]


def test_a_log_removed_under_a_running_controller_is_noticed_and_goes_on(logs: Logs) -> None:
    log = logs.open()
    log.record(call())
    shutil.rmtree(logs.folder)
    log.record(call(tool="afterwards"))
    log.close()
    assert [line.kind for line in logs.lines()] == ["repair", "call"]
    assert logs.lines()[0].seq == 2
    fault = logs.verify().fault
    assert fault is not None
    assert fault.kind == "removed"


def test_lines_written_by_somebody_else_are_noticed(logs: Logs) -> None:
    log = logs.open()
    log.record(call())
    with logs.newest.open("ab") as file:
        file.write(b'{"forged":true}\n')
    log.record(call(tool="afterwards"))
    log.close()
    assert b'"kind":"repair"' in logs.newest.read_bytes()
    assert not logs.verify().is_intact


# --- a full disk


def test_while_nothing_can_be_written_calls_are_refused_and_nothing_is_lost(logs: Logs) -> None:
    log = logs.open()
    log.record(call(tool="before"))
    log.require()
    size = logs.newest.stat().st_size
    with no_file_longer_than(size + 20):
        log.record(call(tool="under way"))
        with pytest.raises(InfrastructureError):
            log.require()
        log.record(call(tool="refused", outcome="failed"))
        assert logs.newest.stat().st_size == size  # no half line stays
        assert logs.verify().is_intact
    log.require()
    log.close()
    assert [line.values["tool"] for line in logs.lines()] == ["before", "under way", "refused"]
    assert logs.verify().is_intact


def test_what_waits_for_room_is_bounded_and_its_loss_is_said(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "MAX_WAITING", 3)
    log = logs.open()
    log.record(call())
    with no_file_longer_than(logs.newest.stat().st_size):
        for _ in range(8):
            log.record(call())
    log.require()
    log.close()
    assert len(logs.lines()) == 1 + 3 + 1
    assert "5 entries were lost" in logs.lines()[-1].values["reason"]


def test_a_new_segment_that_cannot_be_begun_is_begun_later(logs: Logs) -> None:
    log = logs.open(max_bytes=16 * 1000)
    log.record(call())
    with no_file_longer_than(500):
        for _ in range(5):
            log.record(call())
        with pytest.raises(InfrastructureError):
            log.require()
    log.require()
    log.close()
    assert len(logs.lines()) == 6
    assert logs.verify().is_intact


# --- retention


def test_past_its_size_the_oldest_lines_go_and_a_line_says_so(logs: Logs) -> None:
    log = logs.open(max_bytes=SMALL)
    for number in range(1000):
        log.record(call(tool=f"tool_{number}"))
        logs.now += 1
        log.tidy()
    log.close()
    total = sum(path.stat().st_size for path in segments(logs.folder))
    assert SMALL / 2 < total < SMALL * 1.2
    verdict = logs.verify()
    assert verdict.is_intact
    assert verdict.first > 1
    kept = logs.lines()
    gone = [line for line in kept if line.kind == "retention"][-1]
    assert gone.values["through"] == verdict.first - 1
    assert gone.values["last_hash"] == kept[0].prev


def test_past_their_age_lines_go_even_when_nothing_else_happens(logs: Logs) -> None:
    log = logs.open(max_age_s=10_000)
    log.record(call())
    logs.now += 9_000
    log.tidy()
    assert len(logs.lines()) == 1
    logs.now += 2_000
    log.tidy()
    log.close()
    assert [line.kind for line in logs.lines()] == ["retention"]
    assert logs.verify().is_intact
    assert logs.verify().first == 2


def test_the_beginning_cannot_be_removed_by_anybody_else(logs: Logs) -> None:
    log = logs.open(max_bytes=SMALL)
    for _ in range(1000):
        log.record(call())
        logs.now += 1
        log.tidy()
    log.close()
    segments(logs.folder)[0].unlink()
    fault = logs.verify().fault
    assert fault is not None
    assert fault.kind == "removed"


def test_a_removal_that_was_cut_short_leaves_an_intact_log(logs: Logs) -> None:
    for _ in range(4):
        logs.write(1, max_age_s=1000)
        logs.now += 900
    oldest = segments(logs.folder)[0]
    kept = oldest.read_bytes(), segments(logs.folder)[1].read_bytes()
    names = segments(logs.folder)[:2]
    logs.now += 100
    log = logs.open(max_age_s=1000)
    log.tidy()
    log.close()
    assert not any(name.exists() for name in names)
    names[1].write_bytes(kept[1])  # as if the process had been killed between the two
    assert logs.verify().is_intact
    names[0].write_bytes(kept[0])
    assert logs.verify().is_intact


# --- strangers


def test_strangers_are_counted_and_summed_up_once_a_minute(logs: Logs) -> None:
    log = logs.open()
    for _ in range(1000):
        log.deny("token", "192.0.2.7")
    log.deny("host", "192.0.2.8")
    assert len(logs.lines()) == 2
    logs.now += 61
    log.tidy()
    log.tidy()
    log.deny("token", "192.0.2.9")
    log.close()
    told = [line.values for line in logs.lines()]
    assert {line.kind for line in logs.lines()} == {DenialEntry.kind}
    assert [(each["reason"], each.get("repeated")) for each in told] == [
        ("token", None),
        ("host", None),
        ("token", 999),
        ("token", None),
    ]
    assert told[2]["client"] == "192.0.2.7"


# --- untrusted code


def verdict(host: str, **values: Any) -> EgressEntry:
    told: dict[str, Any] = {"verdict": "deny", "principal": "ann", "session_id": "s-1", "port": 443}
    return EgressEntry(host=host, **{**told, **values})


def test_verdicts_that_are_alike_are_summed_up_and_none_is_left_out(logs: Logs) -> None:
    log = logs.open()
    for _ in range(500):
        log.record(verdict("a.example"))
    log.record(verdict("a.example", verdict="allow"))
    log.record(verdict("b.example"))
    log.record(verdict("a.example", session_id="s-2"))
    logs.now += 61
    log.record(verdict("a.example"))
    log.close()
    told = [line.values for line in logs.lines()]
    assert [(each["session_id"], each["host"], each.get("repeated")) for each in told] == [
        ("s-1", "a.example", None),
        ("s-1", "a.example", None),
        ("s-1", "b.example", None),
        ("s-2", "a.example", None),
        ("s-1", "a.example", 499),
        ("s-1", "a.example", None),
    ]


def test_a_session_cannot_push_the_lines_about_it_out_of_the_log(logs: Logs) -> None:
    log = logs.open(max_bytes=SMALL)
    log.record(call(tool="what it wants to hide"))
    for number in range(20_000):
        log.record(verdict(f"{number}.example"))
        log.tidy()
    log.close()
    assert logs.verify().is_intact
    told = [line.values for line in logs.lines()]
    assert told[0]["tool"] == "what it wants to hide"
    assert sum(1 + each.get("repeated", 0) for each in told[1:-1]) == MAX_KINDS
    assert (told[-1]["host"], told[-1]["repeated"]) == (OTHERS, 20_000 - MAX_KINDS)


# --- its end


def test_a_closed_log_refuses_and_can_be_closed_again(logs: Logs) -> None:
    log = logs.open()
    log.record(call())
    log.close()
    log.close()
    log.record(call())
    with pytest.raises(InfrastructureError):
        log.require()
    assert len(logs.lines()) == 1


def test_a_head_of_an_empty_log_is_its_start(logs: Logs) -> None:
    log = logs.open()
    assert log.head == Head()
    log.close()
    assert read_head(logs.folder) in (None, Head())
