"""What a reader sees of an execution, and that it always fits into one message."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from sandbox.kernels.models import ExecutionError, ExecutionResult
from sandbox.server.content import (
    MAX_IMAGES_BYTES,
    MAX_STRUCTURED_BYTES,
    execution_content,
    execution_line,
    fitting,
    shortened,
)
from sandbox.server.tool import reply

from ...support.results import result, stream

PNG = base64.b64encode(b"\x89PNG\r\n" + bytes(60)).decode()
MESSAGE_BYTES = 1024 * 1024


def display(**data: Any) -> dict[str, Any]:
    named = {key.replace("_", "/").replace("//", "_"): value for key, value in data.items()}
    return {"output_type": "display_data", "data": named, "metadata": {}}


def shown(found: ExecutionResult) -> list[Any]:
    return reply(found, *execution_content(found)).content


def size(found: ExecutionResult) -> int:
    content = [block.model_dump(mode="json") for block in shown(found)]
    return len(json.dumps(found.model_dump(mode="json"))) + len(json.dumps(content))


def test_text_and_pictures_keep_their_order() -> None:
    found = shown(
        result(
            stream("a\n"),
            stream("b\n"),
            display(image_png=PNG, text_plain="<Figure>"),
            stream("c\n"),
        )
    )
    assert [block.type for block in found] == ["text", "image", "text", "text"]
    assert found[0].text == "a\nb"
    assert found[1].data == PNG
    assert found[2].text == "c"


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
        ({"status": "ok", "truncated_bytes": 12}, "12 bytes of output were left out"),
    ],
)
def test_the_last_line_says_how_it_stands_and_what_to_do(
    fields: dict[str, Any], words: str
) -> None:
    assert words in execution_line(result(**fields))


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


def test_pictures_past_the_room_are_named_with_their_size_and_a_remedy() -> None:
    big = display(image_png="A" * (MAX_IMAGES_BYTES + 4))
    found = shown(result(big))
    assert [block.type for block in found] == ["text", "text"]
    assert "too large" in found[0].text


def test_many_pictures_share_the_room() -> None:
    one = display(image_png="A" * (MAX_IMAGES_BYTES // 2))
    found = shown(result(one, one, one))
    assert [block.type for block in found].count("image") == 2


def test_an_execution_of_hostile_size_fits_whatever_it_is_made_of() -> None:
    outputs = [
        stream("😀" * 200_000),
        stream("e" * 300_000, "stderr"),
        display(image_png="A" * 380_000),
        display(image_png="B" * 380_000),
        display(text_html="<p>" * 100_000),
        {
            "output_type": "display_data",
            "data": {"application/json": {"k": ["v"] * 90_000}},
            "metadata": {},
        },
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t" * 200_000]},
    ]
    assert size(fitting(result(*outputs))) < MESSAGE_BYTES


def test_of_a_great_many_small_outputs_the_last_ones_are_kept_and_all_are_counted() -> None:
    outputs = [display(text_plain=str(number)) for number in range(8_000)]
    kept = fitting(result(*outputs))
    gone = outputs[: -len(kept.outputs)]
    assert kept.outputs == outputs[len(gone) :]
    assert kept.truncated_bytes >= sum(len(json.dumps(each)) for each in gone) > 0


def test_shortened_text_says_how_much_is_missing() -> None:
    assert shortened("abc", 10) == "abc"
    assert "[… 91 characters left out …]" in shortened("x" * 100, 10)
