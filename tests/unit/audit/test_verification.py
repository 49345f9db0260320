"""Every way to tamper with a log, and what verification says of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sandbox.audit import SessionEntry, verify
from sandbox.audit.chain import MAX_LINE_BYTES, Head
from sandbox.audit.chain import write_line as sealed_line
from sandbox.audit.logfiles import HEAD, read_head, segments

from .logs import SLOT, Logs, call

LINES = 6


@pytest.fixture
def whole(logs: Logs) -> Logs:
    """A log of six calls in one segment."""
    logs.write(LINES)
    assert logs.verify().is_intact
    return logs


def kind(logs: Logs) -> str:
    fault = logs.verify().fault
    return fault.kind if fault else "intact"


def rows(logs: Logs) -> list[bytes]:
    return logs.newest.read_bytes().splitlines(keepends=True)


def test_an_untouched_log_is_intact(whole: Logs) -> None:
    verdict = whole.verify()
    assert (verdict.is_intact, verdict.lines, verdict.first) == (True, LINES, 1)
    assert verdict.head == read_head(whole.folder)


def test_one_changed_byte_is_found_wherever_it_is(logs: Logs) -> None:
    logs.write(2)
    path = logs.newest
    data = path.read_bytes()
    for place in range(len(data)):
        for flipped in (data[place] ^ 1, data[place] ^ 0x80, 0x0A, 0x20):
            if flipped == data[place]:
                continue
            path.write_bytes(data[:place] + bytes([flipped]) + data[place + 1 :])
            assert not verify(logs.folder, SLOT, tries=1).is_intact, f"byte {place} as {flipped:#x}"
    path.write_bytes(data)
    assert logs.verify().is_intact


def test_one_changed_byte_of_the_head_is_found(whole: Logs) -> None:
    path = whole.folder / HEAD
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert not verify(whole.folder, SLOT, tries=1).is_intact, f"byte {place}"


@pytest.mark.parametrize("gone", range(LINES))
def test_a_removed_line_is_found(whole: Logs, gone: int) -> None:
    kept = rows(whole)
    del kept[gone]
    whole.newest.write_bytes(b"".join(kept))
    expected = "truncated" if gone == LINES - 1 else "removed" if gone else "reordered"
    assert kind(whole) == expected


def test_the_first_wrong_line_is_named(whole: Logs) -> None:
    kept = rows(whole)
    del kept[2:4]
    whole.newest.write_bytes(b"".join(kept))
    fault = whole.verify().fault
    assert fault is not None
    assert fault.place == f"{whole.newest.name}, line 3"
    assert "3 to 4" in fault.reason
    assert whole.verify().lines == 2


@pytest.mark.parametrize("first", range(LINES - 1))
def test_two_lines_that_changed_places_are_found(whole: Logs, first: int) -> None:
    moved = rows(whole)
    moved[first], moved[first + 1] = moved[first + 1], moved[first]
    whole.newest.write_bytes(b"".join(moved))
    assert kind(whole) == "reordered"


@pytest.mark.parametrize("twice", range(LINES))
def test_a_line_that_comes_twice_is_found(whole: Logs, twice: int) -> None:
    doubled = rows(whole)
    doubled.insert(twice, doubled[twice])
    whole.newest.write_bytes(b"".join(doubled))
    assert kind(whole) == "repeated"


@pytest.mark.parametrize("rewritten", range(LINES))
def test_a_line_that_was_written_anew_with_a_right_hash_is_found(
    whole: Logs, rewritten: int
) -> None:
    changed = rows(whole)
    before = whole.lines()[rewritten - 1].head if rewritten else Head()
    values = call(tool="something_else").values()
    changed[rewritten] = sealed_line(before, 1.0, SLOT, "call", values)
    whole.newest.write_bytes(b"".join(changed))
    assert kind(whole) == "changed"


def test_a_log_whose_last_lines_are_cut_off_is_found(whole: Logs) -> None:
    whole.newest.write_bytes(b"".join(rows(whole)[:-2]))
    fault = whole.verify().fault
    assert fault is not None
    assert (fault.kind, "last 2 of 6" in fault.reason) == ("truncated", True)


def test_a_half_line_at_the_end_is_torn(whole: Logs) -> None:
    whole.newest.write_bytes(whole.newest.read_bytes()[:-10])
    assert kind(whole) == "torn"


def test_an_emptied_or_a_missing_log_is_found(whole: Logs) -> None:
    whole.newest.write_bytes(b"")
    assert kind(whole) == "truncated"
    whole.newest.unlink()
    assert kind(whole) == "truncated"
    shutil.rmtree(whole.folder)
    assert kind(whole) == "removed"


def test_a_log_without_its_head_is_found(whole: Logs) -> None:
    (whole.folder / HEAD).unlink()
    assert kind(whole) == "removed"


def test_a_head_that_is_behind_is_no_fault_because_a_killed_controller_leaves_it(
    whole: Logs,
) -> None:
    (whole.folder / HEAD).write_bytes(whole.lines()[-2].head.encode())
    assert kind(whole) == "intact"


def test_another_slots_log_in_this_place_is_found(whole: Logs) -> None:
    fault = verify(whole.folder, "stdio-1").fault
    assert fault is not None
    assert fault.kind == "foreign"


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_removed_segment_is_found(logs: Logs, gone: int) -> None:
    for _ in range(3):
        logs.write(2, max_age_s=1000)
        logs.now += 900
    paths = segments(logs.folder)
    assert len(paths) == 3
    paths[gone].unlink()
    assert kind(logs) == ("truncated" if gone == 2 else "removed")


def test_segments_that_changed_names_are_found(logs: Logs) -> None:
    for _ in range(2):
        logs.write(2, max_age_s=1000)
        logs.now += 900
    first, second = segments(logs.folder)
    aside = logs.folder / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    assert kind(logs) == "reordered"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"{}\n",
        b"\xff" * 100 + b"\n",
        b"[" * (2 * MAX_LINE_BYTES),
        b"\0" * (3 * MAX_LINE_BYTES) + b"\n",
    ],
)
@pytest.mark.parametrize("place", [0, 3])
def test_garbage_between_lines_is_found_within_bounds(
    whole: Logs, garbage: bytes, place: int
) -> None:
    mixed = rows(whole)
    mixed.insert(place, garbage)
    whole.newest.write_bytes(b"".join(mixed))
    assert kind(whole) in ("changed", "damaged")


def test_a_log_written_anew_as_a_whole_is_found_by_a_head_kept_elsewhere(
    whole: Logs, tmp_path: Path
) -> None:
    known = whole.verify().head
    shutil.rmtree(whole.folder)
    whole.write(LINES + 1)
    assert kind(whole) == "intact"  # nothing in the folder can tell
    whole.now += 1
    shutil.rmtree(whole.folder)
    whole.write(LINES + 1)
    fault = verify(whole.folder, SLOT, known).fault
    assert fault is not None
    assert fault.kind == "changed"
    assert verify(whole.folder, SLOT, whole.verify().head).is_intact
    later = Head(100, "f" * 64)
    fault = verify(whole.folder, SLOT, later).fault
    assert fault is not None
    assert fault.kind == "truncated"


def test_a_log_may_grow_while_it_is_verified(logs: Logs) -> None:
    log = logs.open()
    for number in range(50):
        log.record(SessionEntry(event="opened", session_id=str(number)))
        assert logs.verify().is_intact
    log.close()
