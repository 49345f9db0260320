"""What a reader sees of an execution, and that it always fits into one message."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from sandbox.commands.models import CommandResult
from sandbox.kernels.models import ExecutionError, ExecutionResult
from sandbox.outputs.denials import Denial
from sandbox.server.content import (
    MAX_STRUCTURED_BYTES,
    cell_content,
    cell_line,
    fitting,
    told,
)
from sandbox.server.hosts import Shaping
from sandbox.server.pictures import Shown, pictures_of, shares
from sandbox.server.results import (
    MAX_RICH,
    MAX_TEXT,
    cell_summary,
    command_summary,
    shortened,
)

from ...support.results import display, png, result, stream

PNG = base64.b64encode(png(640, 480)).decode()
MESSAGE_BYTES = 1024 * 1024


def picture(size: int, letter: str = "A") -> str:
    return PNG + letter * (size - len(PNG))


def as_they_are(found: ExecutionResult, room: int = Shaping().pictures_bytes) -> list[Shown]:
    """Its pictures within a room, which is more than any answer has."""
    pictures = pictures_of(found.outputs)
    return [
        Shown(each, each.data, each.mime) if each.is_known else Shown(each, why_not="it is none")
        for each, share in zip(pictures, shares([len(e.data) for e in pictures], room), strict=True)
        if len(each.data) <= share
    ]


def answer(found: ExecutionResult, *, full: bool = False) -> Any:
    shown = as_they_are(found)
    summary = cell_summary(found, shown, sent=fitting(found) if full else None)
    return told(summary, cell_content(summary, shown))


def shown(found: ExecutionResult) -> list[Any]:
    return answer(found).content


def size(found: ExecutionResult, *, full: bool = True) -> int:
    return len(answer(found, full=full).model_dump_json(by_alias=True))


def test_the_text_stands_first_in_the_order_in_which_it_happened_and_then_the_pictures() -> None:
    found = shown(
        result(
            stream("a\n"),
            stream("b\n"),
            display(image_png=PNG, text_plain="<Figure>"),
            stream("c\n"),
        )
    )
    assert [block.type for block in found] == ["text", "text", "image"]
    assert found[0].text == "a\nb\n[picture 1: image/png, 640 × 480, 60 bytes]\nc"
    assert found[2].data == PNG


def test_what_a_picture_says_in_words_is_kept_beside_it() -> None:
    found = shown(result(display(image_png=PNG, text_plain="x**2")))
    assert found[0].text.startswith("x**2\n[picture 1: ")


def test_a_value_is_shown_as_its_plain_text_and_html_alone_as_its_words() -> None:
    table = display(text_plain="  a\n0 1", text_html="<table>…</table>")
    only_html = display(text_html="<b>x</b>")
    found = shown(result(table, only_html))
    assert "  a\n0 1" in found[0].text
    assert "<" not in found[0].text
    assert found[0].text.endswith("\nx")


def test_the_traceback_is_shown_once() -> None:
    error = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["line 1", "E: v"]}
    known = ExecutionError(name="E", value="v", traceback="line 1\nE: v")
    found = shown(result(error, status="error", error=known))
    assert "".join(block.text for block in found).count("E: v") == 1


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        (
            ["-" * 75, "E      Traceback (most recent call last)", "Cell In[1]", "E: v"],
            "Cell In[1]",
        ),
        (["-" * 75, "F  Traceback (most recent call last)", "F: w", "", "E: v"], "F: w"),
        (["  Cell In[1], line 1", "    a b", "E: v (x.py, line 1)"], "E: v (x.py, line 1)"),
    ],
)
def test_the_cause_of_an_error_stands_first_and_once(lines: list[str], read: str) -> None:
    error = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": lines}
    told = shown(result(error, status="error"))[0].text.splitlines()
    assert told[0] == "E: v"
    assert told[-1] == read
    assert "---" not in "".join(told)


def test_an_error_without_a_traceback_output_is_shown_too() -> None:
    known = ExecutionError(name="E", value="v", traceback="")
    found = shown(result(status="error", error=known))
    assert found[0].text == "E: v"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": "running", "state": "kept"}, "get_execution"),
        ({"status": "timeout", "state": "restarted"}, "variables are gone"),
        ({"status": "timeout", "state": "kept"}, "variables are kept"),
        ({"status": "died", "state": "restarted", "reason": "out of memory"}, "out of memory"),
        ({"status": "lost", "state": "lost"}, "lost"),
        ({"status": "interrupted", "state": "rolled_back"}, "those of the checkpoint"),
        ({"status": "died", "state": "lost", "checkpoint": "auto-2"}, "rollback_kernel(name='aut"),
        ({"status": "error", "state": "kept", "checkpoint": "auto-2"}, "rollback_kernel(name='a"),
    ],
)
def test_the_last_line_says_how_it_stands_and_what_to_do(
    fields: dict[str, Any], words: str
) -> None:
    assert words in cell_line(cell_summary(result(**fields)))


def test_what_fits_is_left_as_it_is() -> None:
    small = result(stream("x" * 1000), display(image_png=PNG))
    assert fitting(small) is small


@pytest.mark.parametrize("letter", ["x", "é", "你", "\u0001", "😀"])
def test_a_long_text_is_cut_in_the_middle_and_counted(letter: str) -> None:
    text = "head" + letter * 600_000 + "tail"
    found = fitting(result(stream(text)))
    kept = found.outputs[0]["text"]
    assert kept.startswith("head")
    assert kept.endswith("tail")
    assert found.truncated_bytes > 0
    assert len(json.dumps(found.outputs)) <= MAX_STRUCTURED_BYTES + 2048
    assert size(found) < MESSAGE_BYTES


def test_the_largest_value_gives_way_and_small_ones_stay() -> None:
    found = fitting(
        result(stream("small"), display(image_png="A" * 900_000, text_plain="fig"), stream("end"))
    )
    assert [output.get("text") for output in found.outputs] == ["small", None, "end"]
    assert found.outputs[1]["data"] == {"text/plain": "fig"}
    assert found.truncated_bytes >= 900_000


def test_a_great_many_outputs_keep_the_last_ones() -> None:
    found = fitting(result(*[stream(f"{n:05}" + "y" * 900) for n in range(2000)]))
    assert found.outputs[-1]["text"].startswith("01999")
    assert len(json.dumps(found.outputs)) <= MAX_STRUCTURED_BYTES
    assert size(found) < MESSAGE_BYTES


def test_a_picture_that_is_not_shown_is_named_with_its_size_the_reason_and_the_way_to_it() -> None:
    outputs = [display(image_png=picture(60_000)) for _ in range(3)]
    pictures = pictures_of(outputs)
    shown = [Shown(each, why_not="it is too large") for each in pictures]
    summary = cell_summary(result(*outputs), shown)
    text, tail, *links = told(summary, cell_content(summary, shown, links=True)).content
    assert text.text.splitlines()[0] == "[picture 1: image/png, 640 × 480, 45 kB; not shown]"
    assert "pictures 1 to 3 not shown, for it is too large: save to a file" in tail.text
    assert [link.type for link in links] == ["resource_link"] * 3
    assert links[1].uri == summary.rich[1].uri == "execution://e/outputs/1"


def test_bytes_that_are_no_picture_are_not_shown_as_one() -> None:
    found = shown(result(display(image_png="AAAA")))
    assert [block.type for block in found] == ["text", "text"]
    assert "not shown, for it is none" in found[1].text


def test_an_original_is_linked_to_where_a_copy_is_shown() -> None:
    (original,) = pictures_of([display(image_png=picture(60_000))])
    summary = cell_summary(result())
    copy = Shown(original, PNG, "image/png", how="shown as PNG, 640 × 480")
    as_it_is = Shown(original, original.data, original.mime)
    for links, each, types in (
        (True, copy, ["image", "resource_link"]),
        (False, copy, ["image"]),
        (True, as_it_is, ["image"]),
    ):
        _, *blocks = told(summary, cell_content(summary, [each], links=links)).content
        assert [block.type for block in blocks] == types


def test_the_structured_result_has_no_bytes_of_pictures_unless_asked_for() -> None:
    found = result(display(image_png=picture(30_000), text_html="<b>x</b>"))
    brief, full = answer(found).structured_content, answer(found, full=True).structured_content
    assert len(json.dumps(brief)) < 600
    assert [each["type"] for each in brief["rich"]] == ["image/png", "text/html"]
    assert full["outputs"] == found.outputs


def test_a_great_many_rich_forms_are_not_all_listed_and_that_is_said() -> None:
    summary = cell_summary(result(*[display(text_html="<b>x</b>", text_plain="x")] * 70))
    assert len(summary.rich) == MAX_RICH
    (told,) = summary.left_out
    assert told == "6 more rich forms are not listed: the resource execution://e has all"


def test_what_is_empty_is_not_sent() -> None:
    assert answer(result(stream("x"))).structured_content == {
        "execution_id": "e",
        "session_id": "s",
        "kernel_id": "k",
        "status": "ok",
        "state": "kept",
        "text": "x",
    }


def test_every_word_of_the_content_is_in_the_structured_result() -> None:
    denial = Denial(host="h", port=1, rule="r", reason="no", remedy="Ask.")
    found = result(
        stream("x" * 40_000),
        status="timeout",
        state="restarted",
        reason="It ran too long.",
        truncated_bytes=7,
        denials=(denial,),
    )
    summary = cell_summary(found, notes=["a note"])
    told_all = json.dumps(summary.model_dump(), ensure_ascii=False)
    for line in cell_content(summary)[-1].splitlines():
        for part in line.strip("[]").split("; ")[line.startswith("[timeout after") :]:
            assert part in told_all


def test_an_execution_of_hostile_size_fits_whatever_it_is_made_of() -> None:
    outputs = [
        stream("😀" * 200_000),
        stream("e" * 300_000, "stderr"),
        display(image_png=picture(380_000)),
        display(image_png=picture(380_000, "B")),
        display(text_html="<p>" * 100_000),
        {
            "output_type": "display_data",
            "data": {"application/json": {"k": ["v"] * 90_000}},
            "metadata": {},
        },
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t" * 200_000]},
    ]
    assert size(result(*outputs), full=False) < MESSAGE_BYTES
    assert size(result(*outputs)) < MESSAGE_BYTES


def test_of_a_great_many_small_outputs_the_last_ones_are_kept_and_all_are_counted() -> None:
    outputs = [display(text_plain=str(number)) for number in range(8_000)]
    kept = fitting(result(*outputs))
    gone = outputs[: -len(kept.outputs)]
    assert kept.outputs == outputs[len(gone) :]
    assert kept.truncated_bytes >= sum(len(json.dumps(each)) for each in gone) > 0


def test_a_text_of_large_letters_is_cut_sooner() -> None:
    summary = cell_summary(result(stream("😀" * 30_000)))
    assert len(summary.text.encode()) < 2 * MAX_TEXT + 100
    assert cell_summary(result(stream("e" * 30_000))).text == "e" * 30_000


def test_shortened_text_says_how_much_is_missing() -> None:
    assert shortened("abc", 10) == "abc"
    assert "[… 91 characters left out …]" in shortened("x" * 100, 10)


@pytest.mark.parametrize("over", [1, 10, 1000])
def test_what_is_left_out_is_counted_as_it_is(over: int) -> None:
    cell = cell_summary(result(stream("é" * (MAX_TEXT + over))))
    (told,) = (each for each in cell.left_out if "characters" in each)
    assert f"[… {told.split()[0].replace(',', '')} characters left out …]" in cell.text
    command = command_summary(
        CommandResult(
            command_id="c-1",
            session_id="s-1",
            status="exited",
            stdout="é" * (MAX_TEXT + over),
            stderr="",
            truncated_bytes=3,
        )
    )
    kept = command.stdout.count("é")
    assert command.truncated_bytes == 3 + 2 * (MAX_TEXT + over - kept) > 0
    assert command.left_out[0].startswith(f"{command.truncated_bytes:,} bytes of output")


def test_the_exceptions_of_a_group_are_told_beside_its_name() -> None:
    traceback = (
        "  + Exception Group Traceback (most recent call last):\n"
        "  |   Cell In[1], line 1, in <module>\n"
        "  | ExceptionGroup: g (2 sub-exceptions)\n"
        "  +-+---------------- 1 ----------------\n"
        "    | ValueError: inner one\n"
        "    +---------------- 2 ----------------\n"
        "    | my.OwnError: inner two\n"
        "    +------------------------------------"
    )
    error = ExecutionError(name="ExceptionGroup", value="g (2 sub-exceptions)", traceback=traceback)
    summary = cell_summary(result(status="error", error=error))
    assert summary.error["exceptions"] == "ValueError: inner one; my.OwnError: inner two"
    alone = ExecutionError(name="ValueError", value="x", traceback="Traceback\n  | A: b")
    assert "exceptions" not in cell_summary(result(status="error", error=alone)).error
