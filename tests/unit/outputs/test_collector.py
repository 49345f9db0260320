"""Outputs of a cell within their budget."""

from __future__ import annotations

import base64
import json
import re
import time
import tracemalloc
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.kernels.models import ExecutionResult
from sandbox.outputs.collector import (
    IMAGE_FACTOR,
    MAX_DROPPED_TYPES,
    MAX_SHOWN,
    OutputCollector,
)
from sandbox.outputs.plain import is_plain
from sandbox.outputs.redaction import Redactor

LIMIT = 16 * 1024
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 100).decode()
ESCAPED = "\x1b[31mred\x1b[0m"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=20,
)
NAMES = st.sampled_from(
    [
        *("name", "text", "data", "metadata", "transient", "display_id", "execution_count", "wait"),
        *("ename", "evalue", "traceback", "text/plain", "text/html", "image/png", "image/svg+xml"),
    ]
)
CONTENTS = st.dictionaries(NAMES, JSON | st.dictionaries(NAMES, JSON), max_size=5)
TYPES = st.sampled_from(
    ["stream", "display_data", "execute_result", "update_display_data", "clear_output", "error"]
)


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"name": name, "text": text}


def shown(data: dict[str, Any], display_id: str = "") -> dict[str, Any]:
    return {"data": data, "metadata": {}, "transient": {"display_id": display_id}}


def collected(*messages: tuple[str, dict[str, Any]], limit: int = LIMIT) -> OutputCollector:
    collector = OutputCollector(limit)
    for kind, content in messages:
        collector.add(kind, content)
    return collector


def texts(collector: OutputCollector) -> list[str]:
    return [output["text"] for output in collector.outputs() if output["output_type"] == "stream"]


def test_consecutive_texts_of_one_stream_are_one_output() -> None:
    collector = collected(
        ("stream", stream("a\n")), ("stream", stream("b")), ("stream", stream("c\n", "stderr"))
    )

    assert collector.outputs() == [
        {"output_type": "stream", "name": "stdout", "text": "a\nb"},
        {"output_type": "stream", "name": "stderr", "text": "c\n"},
    ]


def test_what_is_collected_is_a_valid_notebook() -> None:
    collector = collected(
        ("stream", stream(ESCAPED)),
        ("display_data", shown({"text/plain": "x", "image/png": PNG}, "d1")),
        ("execute_result", {**shown({"application/json": {"a": [1]}}), "execution_count": 3}),
        ("error", {"ename": "E", "evalue": "v", "traceback": [ESCAPED, "two"]}),
    )
    cell = nbformat.v4.new_code_cell(
        "x", outputs=[nbformat.from_dict(o) for o in collector.outputs()]
    )

    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
    assert [output["output_type"] for output in collector.outputs()] == [
        *("stream", "display_data", "execute_result", "error")
    ]


def test_escape_codes_reach_nobody() -> None:
    collector = collected(
        ("stream", stream(ESCAPED + "\x9b31m\n")),
        ("execute_result", shown({"text/plain": ESCAPED, "text/html": f"<b>{ESCAPED}</b>"})),
        ("error", {"ename": ESCAPED, "evalue": ESCAPED, "traceback": [ESCAPED]}),
    )

    assert "\x1b" not in json.dumps(collector.outputs(), ensure_ascii=False)
    assert "\\u001b" not in json.dumps(collector.outputs())
    assert collector.error == {"ename": "red", "evalue": "red", "traceback": "red"}


def test_a_progress_bar_is_shown_as_it_stands() -> None:
    collector = OutputCollector(LIMIT)
    for percent in range(101):
        collector.add("stream", stream(f"\r{percent:3}%|{'#' * percent}", "stderr"))

    assert texts(collector) == [f"100%|{'#' * 100}"]


def test_nested_bars_are_a_line_each_and_keep_nobody_from_going_on() -> None:
    collector = OutputCollector(LIMIT)
    for percent in range(101):
        collector.add("stream", stream("\router 1/3", "stderr"))
        collector.add("stream", stream(f"\n\rinner {percent}/100\x1b[A", "stderr"))
        assert collector.is_settled
    collector.add("stream", stream("a print"))

    assert texts(collector) == ["outer 1/3\ninner 100/100", "a print"]


@given(
    st.lists(
        st.sampled_from(["ab", "c\n", "\r", "\x1b[A", "\x1b[K", "\x1b[2K", "漢\n"]), max_size=40
    ),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_it_makes_no_difference_in_which_messages_a_text_comes(
    parts: list[str], cuts: list[int]
) -> None:
    raw = "".join(parts)
    ends = [*sorted(cuts), len(raw)]
    pieces = [raw[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    whole = collected(("stream", stream(raw)))

    assert collected(*[("stream", stream(piece)) for piece in pieces]).outputs() == whole.outputs()


def test_a_flood_keeps_head_and_tail_and_says_what_is_missing() -> None:
    lines = "".join(f"line {n}\n" for n in range(100_000))
    collector = OutputCollector(LIMIT)
    for start in range(0, len(lines), 1000):
        collector.add("stream", stream(lines[start : start + 1000]))
    (text,) = texts(collector)
    marker = re.search(r"\n\[… ([\d,]+) bytes cut …\]\n", text)

    assert marker is not None
    head, tail = text[: marker.start()], text[marker.end() :]
    assert lines.startswith(head)
    assert lines.endswith(tail)
    assert 0.5 < len(head) / len(tail) < 2
    assert len(text) <= LIMIT
    assert collector.truncated_bytes == int(marker[1].replace(",", ""))
    kept = len(head) + len(tail) + collector.truncated_bytes
    assert kept in (len(lines), len(lines) - 1)  # the marker's own line end may stand for one


@given(st.lists(st.tuples(st.booleans(), st.text("ab€漢\n", max_size=3000)), max_size=30))
def test_every_byte_is_kept_or_counted(pieces: list[tuple[bool, str]]) -> None:
    collector = OutputCollector(4096)
    for is_error, text in pieces:
        collector.add("stream", stream(text, "stderr" if is_error else "stdout"))
    kept = "".join(re.sub(r"\n?\[… [\d,]+ bytes cut …\]\n", "", t) for t in texts(collector))
    sent = "".join(text for _, text in pieces)
    size = len(kept.encode()) + collector.truncated_bytes

    assert len(sent.encode()) - size in (0, 1)
    assert collector.truncated_bytes > 0 or kept == sent
    assert sum(len(t.encode()) for t in texts(collector)) <= 4096


def test_memory_stays_flat_under_an_endless_flood() -> None:
    collector = OutputCollector(LIMIT)
    flood = [
        ("stream", stream("x" * 100_000)),
        ("stream", stream("\r" * 1000, "stderr")),
        ("stream", stream("y")),
        ("display_data", shown({"text/plain": "z" * 100, "image/png": PNG}, "id")),
        ("update_display_data", shown({"text/plain": "w" * 200}, "id")),
        ("error", {"ename": "E", "evalue": "v" * 1000, "traceback": ["t" * 1000]}),
    ]
    tracemalloc.start()
    sizes: list[int] = []
    for _ in range(4):
        for kind, content in flood * 50:
            collector.add(kind, content)
        collector.outputs()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()

    assert sizes[-1] - sizes[0] < LIMIT
    assert len(json.dumps(collector.outputs())) < 3 * LIMIT * (1 + IMAGE_FACTOR)


def test_alternating_streams_cost_more_than_their_letters() -> None:
    collector = OutputCollector(LIMIT)
    for n in range(20_000):
        collector.add("stream", stream("x", ("stdout", "stderr")[n % 2]))

    assert len(collector.outputs()) < LIMIT / 32
    assert collector.truncated_bytes + sum(
        len(text) for text in texts(collector) if "bytes cut" not in text
    ) in range(19_900, 20_001)


def test_the_last_value_is_shown_after_a_flood() -> None:
    collector = collected(
        *[("stream", stream("x" * 10_000))] * 20, ("execute_result", shown({"text/plain": "42"}))
    )

    assert collector.outputs()[-1]["data"] == {"text/plain": "42"}


def test_a_picture_between_floods_stays_in_its_place() -> None:
    flood = [("stream", stream("x" * 10_000))] * 20
    collector = collected(*flood, ("display_data", shown({"image/png": PNG})), *flood)
    kinds = [output["output_type"] for output in collector.outputs()]

    assert kinds == ["stream", "display_data", "stream"]
    assert all("bytes cut" in text for text in texts(collector))


def test_json_that_is_too_big_becomes_a_note_of_its_type_and_size() -> None:
    value = {"a": "x" * 100_000}
    bare = "<IPython.core.display.JSON object>"
    collector = collected(
        ("execute_result", shown({"application/json": value, "text/plain": bare}))
    )
    (output,) = collector.outputs()

    assert list(output["data"]) == ["text/plain"]
    assert output["data"]["text/plain"].startswith(bare + "\n[application/json: 100,008 bytes")
    assert collector.truncated_bytes == 100_008
    assert collector.dropped_types == {"application/json": 1}


@pytest.mark.parametrize("mime", ["text/plain", "text/markdown", "text/latex", "text/html"])
def test_a_value_that_runs_long_keeps_head_and_tail(mime: str) -> None:
    collector = collected(("execute_result", shown({mime: "BEGIN" + "x" * 300_000 + "END"})))
    value = collector.outputs()[0]["data"][mime]
    marker = re.search(r"\n\[… ([\d,]+) bytes cut …\]\n", value)

    assert marker is not None
    assert value.startswith("BEGIN")
    assert value.endswith("END")
    assert collector.truncated_bytes == int(marker[1].replace(",", ""))
    assert len(value) - len(marker[0]) + collector.truncated_bytes == 300_008
    assert len(value) < LIMIT
    assert collector.dropped_types == {}


def test_what_is_cut_leaves_room_for_what_comes_after_it() -> None:
    long = shown({"text/plain": "x" * 300_000})
    collector = collected(*[("display_data", long)] * 3, ("execute_result", long))
    sizes = [len(output["data"]["text/plain"]) for output in collector.outputs()]

    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) > 500
    assert sum(sizes) < LIMIT


def test_an_update_of_a_value_that_was_cut_counts_only_what_is_missing_now() -> None:
    collector = collected(("display_data", shown({"text/plain": "x" * 300_000}, "one")))
    assert collector.truncated_bytes > 280_000

    collector.add("update_display_data", shown({"text/plain": "short"}, "one"))
    assert (collector.truncated_bytes, collector.size_bytes < 4096) == (0, True)


@given(st.lists(st.tuples(st.booleans(), st.text("ab€漢\n", max_size=4000)), max_size=8))
def test_every_byte_of_a_value_is_kept_or_counted(values: list[tuple[bool, str]]) -> None:
    collector = OutputCollector(4096)
    for is_update, text in values:
        kind = "update_display_data" if is_update else "display_data"
        collector.add(kind, shown({"text/plain": text}, "one"))
    shown_now: list[str] = []
    for is_update, text in values:
        if is_update:
            shown_now = [text] * len(shown_now)
        else:
            shown_now.append(text)
    came = sum(len(text.encode()) for text in shown_now)
    kept = sum(
        len(re.sub(r"\n\[… [\d,]+ bytes cut …\]\n", "", value).encode())
        for output in collector.outputs()
        if not (value := output["data"]["text/plain"]).startswith("[text/plain: ")
    )

    assert kept + collector.truncated_bytes == came
    assert sum(len(str(output).encode()) for output in collector.outputs()) < 3 * 4096


def test_pictures_that_move_and_charts_are_kept() -> None:
    bundle = {
        "image/gif": PNG,
        "image/webp": PNG,
        "application/pdf": PNG,
        "image/svg+xml": "<svg/>",
        "application/geo+json": {"type": "Point"},
        "application/vnd.vegalite.v5+json": {"mark": "bar"},
        "application/vnd.plotly.v1+json": {"data": []},
        "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
    }
    collector = collected(("display_data", shown(bundle)))
    (output,) = collector.outputs()
    cell = nbformat.v4.new_code_cell("", outputs=[nbformat.from_dict(output)])

    assert output["data"] == bundle
    assert (collector.truncated_bytes, collector.dropped_types) == (0, {})
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
    second = OutputCollector(LIMIT)
    second.restore(collector.outputs(), 0)
    assert second.outputs() == collector.outputs()


def test_markup_that_is_too_big_is_left_out_where_the_plain_text_says_it() -> None:
    bare = "<IPython.core.display.HTML object>"
    long = "<p>" + "x" * 100_000
    told = collected(("display_data", shown({"text/html": long, "text/plain": "a table"})))
    untold = collected(("display_data", shown({"text/html": long, "text/plain": bare})))

    assert told.dropped_types == {"text/html": 1}
    assert list(untold.outputs()[0]["data"]) == ["text/plain", "text/html"]
    assert untold.dropped_types == {}


def test_a_deep_recursion_is_shown_once_and_what_is_left_out_is_counted() -> None:
    frames = [f'  File "x.py", line {n % 2}, in f{n % 2}\n    call()' for n in range(2000)]
    lines = ["Traceback (most recent call last):", *frames, "RecursionError: too deep"]
    collector = collected(("error", {"ename": "E", "evalue": "v", "traceback": lines}))
    assert collector.error is not None
    kept = collector.error["traceback"]

    assert kept.count("\n") < 12
    assert "[… the same 2 frames, 998 times …]" in kept
    assert kept.endswith("RecursionError: too deep")
    assert collector.truncated_bytes == len("\n".join(lines)) - len(kept.encode())


def test_the_small_form_of_a_big_result_is_kept() -> None:
    bundle = {"text/html": "x" * 100_000, "text/plain": "a table"}
    collector = collected(("execute_result", shown(bundle)))

    assert collector.outputs()[0]["data"] == {"text/plain": "a table"}
    assert collector.truncated_bytes == 100_000


def test_images_have_a_budget_of_their_own() -> None:
    image = base64.b64encode(b"i" * (LIMIT * IMAGE_FACTOR // 2)).decode()
    collector = collected(*[("display_data", shown({"image/png": image}))] * 2)
    first, second = collector.outputs()

    assert first["data"] == {"image/png": image}
    assert "image/png" in second["data"]["text/plain"]


@pytest.mark.parametrize(
    ("mime", "value"),
    [
        ("image/png", "not base64!"),
        ("image/png", {"no": "text"}),
        ("text/plain", 5),
        ("text/html", ["a", 1]),
        ("application/json", float("nan")),
        ("application/vnd.acme", "x"),
        ("image/webp", "no base64!"),
        ("application/vnd.plotly.v1+json", float("inf")),
        ("no type at all \x1b[31m", "x"),
    ],
)
def test_what_cannot_be_shown_becomes_a_note(mime: str, value: Any) -> None:
    (output,) = collected(("display_data", shown({mime: value}))).outputs()

    assert list(output["data"]) == ["text/plain"]
    assert "cannot be shown" in output["data"]["text/plain"]
    assert is_plain(output["data"]["text/plain"])


def test_a_type_that_is_left_out_is_counted_and_named() -> None:
    bundle = {"application/vnd.acme": {"a": 1}, "text/plain": "words"}
    collector = collected(("display_data", shown(bundle)), ("display_data", shown(bundle)))

    assert collector.outputs()[0]["data"] == {"text/plain": "words"}
    assert collector.dropped_types == {"application/vnd.acme": 2}
    assert collector.truncated_bytes == 2 * len('{"a":1}')


def test_what_an_update_replaces_is_no_longer_counted_as_left_out() -> None:
    collector = collected(
        ("display_data", shown({"application/vnd.acme": "xxxx"}, "one")),
        ("update_display_data", shown({"application/vnd.b": "yy"}, "one")),
    )
    assert (dict(collector.dropped_types), collector.truncated_bytes) == (
        {"application/vnd.b": 1},
        2,
    )

    collector.add("update_display_data", shown({"text/plain": "ok"}, "one"))
    assert (dict(collector.dropped_types), collector.truncated_bytes) == ({}, 0)


def test_the_types_that_are_named_are_bounded() -> None:
    collector = OutputCollector(1 << 20)
    for n in range(1000):
        collector.add("display_data", shown({f"x/{n}": "v"}))

    assert len(collector.dropped_types) <= MAX_DROPPED_TYPES + 1
    assert sum(collector.dropped_types.values()) == 1000


def test_who_restores_knows_what_was_left_out() -> None:
    first = collected(("display_data", shown({"x/y": "v", "text/plain": "words"})))
    second = OutputCollector(LIMIT)
    second.restore(first.outputs(), first.truncated_bytes, first.dropped_types)

    assert second.dropped_types == first.dropped_types == {"x/y": 1}
    assert second.truncated_bytes == first.truncated_bytes == 1


def test_an_update_changes_what_was_shown_under_its_id() -> None:
    collector = collected(
        ("display_data", shown({"text/plain": "1%"}, "bar")),
        ("display_data", shown({"text/plain": "other"}, "other")),
        ("update_display_data", shown({"text/plain": "100%"}, "bar")),
    )

    assert [output["data"]["text/plain"] for output in collector.outputs()] == ["100%", "other"]
    assert not collector.add("update_display_data", shown({"text/plain": "?"}, "unknown"))


def test_clear_output_clears_at_once_or_with_the_next_output() -> None:
    collector = collected(
        ("stream", stream("one")), ("clear_output", {"wait": False}), ("stream", stream("two"))
    )
    assert texts(collector) == ["two"]

    collector.add("clear_output", {"wait": True})
    assert texts(collector) == ["two"]
    assert not collector.is_settled

    collector.add("stream", stream("three"))
    assert texts(collector) == ["three"]
    assert collector.is_settled


def test_a_long_traceback_keeps_its_head_and_tail() -> None:
    lines = [f"frame {n}" for n in range(10_000)]
    collector = collected(("error", {"ename": "E", "evalue": "v", "traceback": lines}))
    assert collector.error is not None
    kept = collector.error["traceback"].split("\n")

    assert kept[0] == "frame 0"
    assert kept[-1] == "frame 9999"
    assert any("bytes cut" in line for line in kept)
    assert collector.truncated_bytes > 0


def test_an_error_is_kept_when_a_flood_came_before() -> None:
    collector = collected(
        *[("display_data", shown({"text/plain": "x" * 1000}))] * 100,
        ("error", {"ename": "ValueError", "evalue": "no", "traceback": ["here"]}),
    )

    assert collector.outputs()[-1] == {
        "output_type": "error",
        "ename": "ValueError",
        "evalue": "no",
        "traceback": ["here"],
    }


@settings(max_examples=25)
@given(st.lists(st.tuples(TYPES, CONTENTS), max_size=12))
def test_no_content_whatever_does_harm(messages: list[tuple[str, dict[str, Any]]]) -> None:
    collector = OutputCollector(4096)
    for kind, content in messages:
        collector.add(kind, content)
    result = ExecutionResult(
        execution_id="e",
        session_id="s",
        kernel_id="k",
        status="ok",
        state="kept",
        outputs=collector.outputs(),
        truncated_bytes=collector.truncated_bytes,
    )
    cell = nbformat.v4.new_code_cell("", outputs=[nbformat.from_dict(o) for o in result.outputs])

    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
    assert ExecutionResult.model_validate_json(result.model_dump_json()) == result
    assert collector.truncated_bytes >= 0


MESSAGES = st.lists(
    st.one_of(
        st.builds(
            lambda text, name: ("stream", stream(text, name)),
            st.text("ab\n", max_size=600),
            st.sampled_from(["stdout", "stderr"]),
        ),
        st.builds(
            lambda text, name: ("display_data", shown({"text/plain": text}, name)),
            st.text("ab", max_size=20),
            st.sampled_from(["", "d1", "d2"]),
        ),
        st.builds(
            lambda text, name: ("update_display_data", shown({"text/plain": text}, name)),
            st.text("ab", max_size=20),
            st.sampled_from(["d1", "d2"]),
        ),
        st.just(("clear_output", {"wait": False})),
    ),
    max_size=12,
)


@given(MESSAGES, MESSAGES)
def test_who_restores_outputs_goes_on_as_if_nothing_had_happened(
    before: list[tuple[str, dict[str, Any]]], after: list[tuple[str, dict[str, Any]]]
) -> None:
    limit = 64 * 1024
    first = collected(*before, limit=limit)
    second = OutputCollector(limit)
    second.restore(first.outputs(), first.truncated_bytes)

    assert first.is_settled
    for kind, content in after:
        first.add(kind, content)
        second.add(kind, content)
    assert second.outputs() == first.outputs()
    assert second.truncated_bytes == first.truncated_bytes


def test_restored_outputs_go_on_being_cut() -> None:
    first = collected(*[("stream", stream("x" * 999 + "\n"))] * 100)
    second = OutputCollector(LIMIT)
    second.restore(first.outputs(), first.truncated_bytes)
    second.add("stream", stream("y" * 20_000))
    (text,) = texts(second)

    assert text.startswith("xxx")
    assert text.endswith("yyy")
    assert second.truncated_bytes > first.truncated_bytes + 10_000
    assert len(text) <= LIMIT


SECRET = "sk-1234567890"


def redacting(limit: int = LIMIT) -> OutputCollector:
    return OutputCollector(limit, redactor=Redactor({"key": SECRET}))


@pytest.mark.parametrize("at", range(1, len(SECRET)))
def test_a_secret_cut_anywhere_between_two_messages_is_not_shown(at: int) -> None:
    collector = redacting()
    collector.add("stream", {"name": "stdout", "text": f"key: {SECRET[:at]}"})
    assert collector.outputs() == [{"output_type": "stream", "name": "stdout", "text": "key: "}]
    assert not collector.is_settled
    collector.add("stream", {"name": "stdout", "text": f"{SECRET[at:]}!"})
    assert collector.outputs()[0]["text"] == "key: [secret key]!"
    assert collector.is_settled


def test_the_beginning_of_a_secret_that_is_none_is_shown_in_the_end() -> None:
    collector = redacting()
    collector.add("stream", {"name": "stdout", "text": "ask"})
    collector.add("stream", {"name": "stderr", "text": "sk-"})
    collector.finish()
    assert [output["text"] for output in collector.outputs()] == ["ask", "sk-"]


def test_a_secret_is_not_shown_by_cutting_what_surrounds_it() -> None:
    collector = redacting(4096)
    for size in range(1500, 1700, 3):
        text = "x" * size + SECRET + "y" * 8000
        collector.add("stream", {"name": "stdout", "text": text})
        collector.add("error", {"ename": "E", "evalue": text, "traceback": [text, text]})
    shown = str(collector.outputs())
    assert "567" not in shown
    assert "sk-" not in shown


def test_a_secret_in_rich_outputs_and_errors_is_not_shown() -> None:
    collector = redacting()
    data = {
        "text/plain": repr(SECRET),
        "text/html": f"<b>{SECRET}</b>",
        "application/json": {"a": [SECRET]},
    }
    collector.add("display_data", {"data": data, "metadata": {}})
    collector.add("error", {"ename": "E", "evalue": SECRET, "traceback": [f"no {SECRET}"]})
    assert SECRET not in str(collector.outputs())
    assert str(collector.outputs()).count("[secret key]") == 5
    assert collector.error is not None
    assert collector.error["evalue"] == "[secret key]"


def test_a_secret_broken_up_by_escape_sequences_is_not_shown() -> None:
    collector = redacting()
    text = f"{SECRET[:4]}\x1b[1m{SECRET[4:]}\n"
    collector.add("stream", {"name": "stdout", "text": text})
    assert collector.outputs()[0]["text"] == "[secret key]\n"


def shown_times(count: int, value: str = "x") -> OutputCollector:
    return collected(
        *[("display_data", shown({"text/plain": value}, "one"))] * count, limit=1 << 20
    )


def test_an_update_changes_the_last_outputs_of_an_id_and_counts_each_of_them() -> None:
    collector = shown_times(1000)
    update = shown({"text/plain": "y" * 100_000}, "one")
    assert collector.add("update_display_data", update)

    sizes = [len(output["data"]["text/plain"]) for output in collector.outputs()]
    assert 0 < sum(size == 100_000 for size in sizes) <= MAX_SHOWN
    assert sum(sizes) < 1 << 20
    assert collector.truncated_bytes > 0


def test_one_large_update_is_looked_at_once_however_often_it_is_shown() -> None:
    collector = shown_times(5000)
    update = shown({"text/plain": ["y" * 1000] * 7_000}, "one")
    began = time.thread_time()
    collector.add("update_display_data", update)
    assert time.thread_time() - began < 1


def test_json_takes_no_more_memory_than_it_counts() -> None:
    text = json.dumps([[]] * 5_000)
    collectors: list[OutputCollector] = []
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(5):
        display = ("display_data", shown({"application/json": json.loads(text)}))
        collectors.append(collected(display, limit=1 << 15))
        collectors[-1].outputs()
        del display
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert collectors[0].outputs()[0]["data"] == {"application/json": json.loads(text)}
    assert after - before < 2 * sum(collector.size_bytes for collector in collectors)


def test_many_small_outputs_count_what_they_take() -> None:
    collector = OutputCollector(1 << 18)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for n in range(10_000):
        collector.add("stream", stream("x", ("stdout", "stderr")[n % 2]))
    collector.outputs()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before < 2 * collector.size_bytes
