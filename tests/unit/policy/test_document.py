from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import PolicyError
from sandbox.policy.document import MAX_BYTES, parse_document, read_document


def refusal(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_document(text, "p.yaml")
    return caught.value


def test_scalars_are_read_by_one_short_rule() -> None:
    document = parse_document(
        "a: 1\nb: 1.5\nc: true\nd: no\ne: '1'\nf: 1:30\ng: 0x10\nh: 010\ni: ~\nj: 2026-01-01\n"
        "k: 1e3\nl: .inf\nm: null\nn:\no: -3\np: 0777\nq: 1_000\n"
    )
    assert document.data == {
        **{"a": 1, "b": 1.5, "c": True, "d": "no", "e": "1", "f": "1:30", "g": "0x10"},
        **{"h": "010", "i": None, "j": "2026-01-01", "k": "1e3", "l": ".inf", "m": None},
        **{"n": None, "o": -3, "p": "0777", "q": "1_000"},
    }


def test_every_key_and_entry_has_its_line() -> None:
    document = parse_document("a: 1\nb:\n  c:\n    - x\n    - y\n")
    assert document.lines == {
        **{("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", 0): 4, ("b", "c", 1): 5},
    }


def test_an_error_about_an_absent_key_has_the_line_of_what_it_should_be_in() -> None:
    document = parse_document("a: 1\nb:\n  c: 1\n", "p.yaml")
    error = document.error(("b", "missing"), "is missing")
    assert (error.file, error.line, error.key) == ("p.yaml", 2, "b.missing")
    assert document.error(("zz",), "is missing").line == 0


@pytest.mark.parametrize(
    ("text", "line", "key", "reason"),
    [
        ("a: 1\na: 2\n", 2, "a", "twice"),
        ("a: 1\nb: {c: 1, d: 2, c: 3}\n", 2, "b.c", "twice"),
        ("a: 1\n'a': 2\n", 2, "a", "twice"),
        ("a: &x 1\n", 1, "a", "anchor"),
        ("a: &x [1]\nb: *x\n", 1, "a", "anchor"),
        ("&x a: 1\n", 1, "", "anchor"),
        ("a: *x\n", 1, "a", "alias"),
        ("a: !!str 1\n", 1, "a", "tag"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "a", "tag"),
        ("!x a: 1\n", 1, "", "tag"),
        ("a: 1\n---\nb: 2\n", 2, "", "second document"),
        ("---\na: 1\n...\n---\n", 4, "", "second document"),
        ("%YAML 1.1\n---\na: 1\n", 1, "", "directive"),
        ("1: a\n", 1, "", "not text"),
        ("true: a\n", 1, "", "not text"),
        ("~: a\n", 1, "", "not text"),
        ("[a]: b\n", 1, "", "not text"),
        ("{a: 1}: b\n", 1, "", "not text"),
        ("- a\n", 1, "", "mapping"),
        ("text\n", 1, "", "mapping"),
        ("a: " + "[" * 9 + "]" * 9 + "\n", 1, "a.0.0.0.0.0.0.0.0", "nested"),
        ("a:\n\t- b\n", 2, "", "YAML"),
        ("a: [1\nb: 2\n", 2, "", "YAML"),
        ("a: \x00\n", 0, "", "YAML"),
        ("", 0, "", "empty"),
        ("# only a comment\n", 0, "", "empty"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_place(
    text: str, line: int, key: str, reason: str
) -> None:
    error = refusal(text)
    assert reason in error.reason
    assert (error.file, error.key) == ("p.yaml", key)
    assert error.line == line


def test_a_merge_key_is_a_key_like_any_other() -> None:
    assert parse_document("<<: {a: 1}\n").data == {"<<": {"a": 1}}


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 8)}]\n" for n in range(8)
    )
    assert "anchor" in refusal(bomb).reason


@pytest.mark.timed
def test_a_file_of_brackets_is_refused_at_once() -> None:
    started = time.monotonic()
    assert "nested" in refusal("a: " + "[" * 60_000).reason
    assert time.monotonic() - started < 5


@given(st.text(max_size=200) | st.text("a:-[]{}&*!%#'\"|>\n \t?,<~1", max_size=60))
def test_any_text_is_a_document_or_a_policy_error(text: str) -> None:
    try:
        document = parse_document(text, "p.yaml")
    except PolicyError:
        return
    assert isinstance(document.data, dict)


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("a: 1\n" + "#" * MAX_BYTES)
    with pytest.raises(PolicyError, match="longer than"):
        read_document(path)


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("a: 1\n".ljust(MAX_BYTES, "#"))
    assert read_document(path).data == {"a": 1}


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(PolicyError, match="UTF-8"):
        read_document(path)


def test_what_cannot_be_opened_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        read_document(tmp_path / "absent.yaml")


@pytest.mark.timed
@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    started = time.monotonic()
    with pytest.raises(PolicyError):
        read_document(path)
    assert time.monotonic() - started < 2
