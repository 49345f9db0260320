"""Every parser of foreign bytes takes time in proportion to them, whatever they are.

Each is given inputs that double in size. Measured is processor time, the least of several runs;
quadratic work takes four times as long for twice the input.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from sandbox.egress.heads import BadHead, parse_head
from sandbox.errors import InvalidRequest, ProtocolError
from sandbox.kernels.messages import open_envelope, read
from sandbox.link import wire
from sandbox.link.mux import Mux
from sandbox.notebooks.celldiff import text_diff
from sandbox.notebooks.ipynb import read_ipynb
from sandbox.outputs.collector import OutputCollector
from sandbox.outputs.headtail import HeadTail
from sandbox.outputs.invisible import visible
from sandbox.outputs.markup import drawing_text, page_text
from sandbox.outputs.plain import MAX_LINE, PlainText, clip, plain
from sandbox.outputs.redaction import Pieces, Redactor, TextPieces
from sandbox.outputs.streams import Streams
from sandbox.outputs.tracebacks import collapsed
from sandbox.terminals.screen import Display

MEASURABLE_S = 0.01
LIMIT_S = 2.0
MOST = 1 << 22
RATIO = 3.2
RUNS = 3
ATTEMPTS = 8

Case = Callable[[int], Callable[[], object]]


def message(content: bytes) -> bytes:
    parts = [b'{"seq":1,"epoch":1,"channel":"iopub"}', b"", b'{"msg_type":"stream"}', b"{}", b"{}"]
    return wire.pack_parts([*parts, content])


def reading(make: Callable[[int], bytes]) -> Case:
    def case(size: int) -> Callable[[], object]:
        data = message(make(size))
        return lambda: read(open_envelope(data))

    return case


def whole(parse: Callable[[str], object], unit: str, before: str = "") -> Case:
    def case(size: int) -> Callable[[], object]:
        text = before + unit * (size // len(unit))
        return lambda: parse(text)

    return case


def pieces_of_a_line(unit: str, *, first: str = "") -> Case:
    """A piece at a time, after a line that is as long as lines may be."""

    def case(size: int) -> Callable[[], object]:
        def work() -> None:
            editor = PlainText()
            editor.feed("y" * (MAX_LINE - 2) + first)
            for _ in range(size // 64):
                editor.feed(unit)

        return work

    return case


def collecting(kind: str, make: Callable[[int], dict[str, Any]], limit: int = 1 << 20) -> Case:
    def case(size: int) -> Callable[[], object]:
        content = make(size)
        return lambda: OutputCollector(limit).add(kind, content)

    return case


def shown_often(size: int) -> Callable[[], object]:
    """Many outputs under one id, and updates whose number grows: a constant for each of them."""
    collector = OutputCollector(1 << 20)
    display = {"data": {"text/plain": "x"}, "transient": {"display_id": "one"}}
    for _ in range(5000):
        collector.add("display_data", display)

    def work() -> None:
        for _ in range(size // 256):
            collector.add("update_display_data", display)

    return work


def updated_large(size: int) -> Callable[[], object]:
    collector = OutputCollector(1 << 20)
    for _ in range(5000):
        collector.add(
            "display_data", {"data": {"text/plain": "x"}, "transient": {"display_id": "one"}}
        )
    update = {"data": {"text/plain": ["yy"] * (size // 2)}, "transient": {"display_id": "one"}}
    return lambda: collector.add("update_display_data", update)


def clearing(size: int) -> Callable[[], object]:
    def work() -> None:
        collector = OutputCollector(1 << 20)
        for _ in range(size // 256):
            collector.add("stream", {"name": "stdout", "text": "x"})
            collector.add("clear_output", {"wait": True})

    return work


def alternating(size: int) -> Callable[[], object]:
    def work() -> None:
        streams: Streams[Any] = Streams(1 << 16)
        for n in range(size // 128):
            streams.write("stderr" if n % 2 else "stdout", "x")

    return work


def drawing(unit: bytes) -> Case:
    def case(size: int) -> Callable[[], object]:
        def work() -> None:
            display = Display(50, 200)
            display.write(unit * (size // 64 // len(unit)))
            while not display.is_drawn:
                display.draw(10)

        return work

    return case


def redacting(size: int) -> Callable[[], object]:
    redactor = Redactor({"key": "abcd" * 64})

    def work() -> None:
        pieces = TextPieces(redactor)
        for _ in range(size // 512):
            pieces.feed("abcd")

    return work


def redacting_bytes(size: int) -> Callable[[], object]:
    redactor, data = Redactor({"key": "abcdefgh" * 4}), b"abcd" * (size // 4)
    return lambda: Pieces(redactor).feed(data)


def frames(size: int) -> Callable[[], object]:
    hello = wire.encode(wire.HELLO, 0, wire.encode_json({"protocol": wire.PROTOCOL_VERSION}))
    ping = wire.encode(wire.PONG, 0, b"")
    data = hello + ping * (size // 16)

    def work() -> None:
        mux = Mux(initiator=True, hello={})
        for _ in mux.receive(data):
            pass

    return work


def frame_in_bytes(size: int) -> Callable[[], object]:
    hello = wire.encode(wire.HELLO, 0, wire.encode_json({"protocol": wire.PROTOCOL_VERSION}))
    ping = wire.encode(wire.PONG, 0, b"")

    def work() -> None:
        mux = Mux(initiator=True, hello={})
        for _ in mux.receive(hello):
            pass
        for byte in ping * (size // 1024):
            for _ in mux.receive(bytes((byte,))):
                pass

    return work


def flooding(size: int) -> Callable[[], object]:
    def work() -> None:
        kept = HeadTail(1 << 16)
        for _ in range(size // 64):
            kept.add(b"x")
        kept.text()

    return work


def head(size: int) -> Callable[[], object]:
    data = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * min(size // 6, 2000) + b"\r\n"

    def work() -> None:
        for _ in range(max(1, size // len(data))):
            with suppress(BadHead):
                parse_head(data)

    return work


def decoding(make: Callable[[int], bytes]) -> Case:
    def case(size: int) -> Callable[[], object]:
        data = make(size)

        def work() -> None:
            with suppress(ProtocolError):
                wire.decode_json(data)

        return work

    return case


def notebook_of(value: Callable[[int], str]) -> Case:
    """Reading a notebook with something in it, whether or not it is refused."""

    def case(size: int) -> Callable[[], object]:
        data = b'{"nbformat":4,"metadata":{},"cells":[%s]}' % value(size).encode()

        def work() -> None:
            with suppress(InvalidRequest):
                read_ipynb(data)

        return work

    return case


def differing(old: str, new: str, *, around: str = "same\n") -> Case:
    """The diff of two texts of lines, between lines that are alike."""

    def case(size: int) -> Callable[[], object]:
        count = size // 64
        ends = around * count
        before, after = ends + old * count + ends, ends + new * count + ends
        return lambda: text_diff("a", "b", before, after)

    return case


def bundle(name: str, value: Any) -> dict[str, Any]:
    return {"data": {name: value}, "metadata": {}}


CELL = '{"cell_type":"code","source":"","metadata":{},"outputs":[]}'
CASES: dict[str, Case] = {
    "message of commas and quotes": reading(lambda n: b"," * 250_001 + b'"' * n),
    "message of escaped quotes": reading(lambda n: b"," * 250_001 + b'\\"' * (n // 2)),
    "message of backslashes": reading(lambda n: b"," * 250_001 + b"\\" * n),
    "message of texts": reading(lambda n: b'{"a":[' + b'"",' * (n // 3) + b'""]}'),
    "message of lists": reading(lambda n: b'{"a":[' + b"[]," * (n // 3) + b"[]]}"),
    "message of opened lists": reading(lambda n: b"[" * n),
    "message of one text": reading(lambda n: json.dumps({"text": "\n" * n}).encode()),
    "JSON of surrogates": decoding(lambda n: b'{"a":"' + b"\\ud800" * (n // 6) + b'"}'),
    "JSON of digits": decoding(lambda n: b'{"a":' + b"1" * n + b".5}"),
    "display of text": collecting("display_data", lambda n: bundle("text/plain", "x" * n)),
    "display of lines": collecting("display_data", lambda n: bundle("text/plain", ["\n"] * n)),
    "display of markup": collecting("display_data", lambda n: bundle("text/html", "<\x01" * n)),
    "display of spaces": collecting("display_data", lambda n: bundle("image/png", "aa " * n)),
    "display of JSON": collecting("display_data", lambda n: bundle("application/json", [[]] * n)),
    "display of something": collecting("display_data", lambda n: bundle("x/y", [[]] * n)),
    "result": collecting("execute_result", lambda n: bundle("text/plain", "\r" * n)),
    "error": collecting("error", lambda n: {"ename": "E", "traceback": ["\x1b[31m"] * (n // 5)}),
    "stream of backspaces": collecting("stream", lambda n: {"text": "a\b" * (n // 2)}),
    "stream of returns": collecting("stream", lambda n: {"text": "ab\r" * (n // 3)}),
    "updates of many displays": shown_often,
    "a large update of many displays": updated_large,
    "clears": clearing,
    "streams in turn": alternating,
    "backspaces over a long line": pieces_of_a_line("a\b"),
    "returns over a long line": pieces_of_a_line("\r"),
    "overwriting a long line": pieces_of_a_line("a\r"),
    "colours in a long line": pieces_of_a_line("\x1b[31m"),
    "erasures after a long line": pieces_of_a_line("\r\x1b[K"),
    "a cursor that goes up and down": pieces_of_a_line("a\n\x1b[A"),
    "lines drawn anew": whole(plain, "one\ntwo\n\x1b[2A\x1b[J"),
    "jumps to the right": whole(plain, "\x1b[199Gx\n"),
    "frames that repeat": whole(collapsed, '  File "x", line 1\n'),
    "frames of a long cycle": whole(
        collapsed, "".join(f'  File "x", line {n}\n' for n in range(9))
    ),
    "tags": whole(page_text, "<p>"),
    "tags of a table": whole(page_text, "<table><tr><td>"),
    "unfinished tags": whole(page_text, "<a b='"),
    "scripts": whole(page_text, "<script></script>"),
    "labels": whole(drawing_text, "<text>a"),
    "a sequence that never ends": pieces_of_a_line("]", first="\x1b]"),
    "a text of sequences": whole(plain, "\x1b["),
    "a text of titles": whole(plain, "\x1b]0;"),
    "a text of backspaces": whole(plain, "a\b", "y" * 60_000),
    "a text of empty lines": whole(plain, "\r\n\b"),
    "a text of C1 controls": whole(plain, "\x9b"),
    "a clipped text": whole(lambda text: clip(text, 1 << 16), "\u6f22"),
    "invisible characters": whole(visible, "a\u200b"),
    "joiners": whole(visible, "\u0915\u200d"),
    "tags of flags": whole(visible, "\U0001f3f4\U000e0067\U000e0062"),
    "terminal, text": drawing(b"x"),
    "terminal, sequences": drawing(b"\x1b[1m"),
    "terminal, marks": drawing("e\u0301".encode()),
    "terminal, invisible": drawing("\u202ea".encode()),
    "beginnings of a secret, in pieces": redacting,
    "beginnings of a secret": redacting_bytes,
    "frames": frames,
    "frames, byte by byte": frame_in_bytes,
    "a command's output, byte by byte": flooding,
    "heads of requests": head,
    "a notebook of cells": notebook_of(lambda n: ",".join([CELL] * min(n // len(CELL), 10_000))),
    "a notebook of doubled ids": notebook_of(
        lambda n: ",".join([CELL.replace("{", '{"id":"a",', 1)] * min(n // 64, 10_000))
    ),
    "a notebook of lists": notebook_of(lambda n: "[]," * (n // 3) + "[]"),
    "a notebook of opened lists": notebook_of(lambda n: "[" * n),
    "a notebook of digits": notebook_of(lambda n: "1" * n),
    "a notebook of surrogates": notebook_of(lambda n: '"' + "\\ud800" * (n // 6) + '"'),
    "a diff of other lines": differing("a\n", "b\n"),
    "a diff of lines in turn": differing("a\nb\n", "b\na\n"),
    "a diff of alike lines": differing("same\n", "same\nsame\n"),
}


def seconds(case: Case, size: int) -> float:
    """The processor time that a case takes, the least of several runs.

    One that takes next to nothing is not run again: the least would be less still.
    """
    best = float("inf")
    for _ in range(RUNS):
        work = case(size)
        began = time.thread_time()
        work()
        best = min(best, time.thread_time() - began)
        if not MEASURABLE_S <= best <= LIMIT_S:
            break
    return best


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_twice_the_bytes_take_about_twice_the_time(case: Case) -> None:
    size = 1 << 15
    took = seconds(case, size)
    while took < MEASURABLE_S and size < MOST:
        size *= 2
        took = seconds(case, size)
    assert took < LIMIT_S, f"{size} take {took:.1f} s"
    if took < MEASURABLE_S:
        return  # the largest input takes next to nothing
    ratio = float("inf")
    for _ in range(ATTEMPTS):
        ratio = min(ratio, seconds(case, 2 * size) / seconds(case, size))
        if ratio < RATIO:
            return
    raise AssertionError(f"{2 * size} take {ratio:.1f} times as long as {size}")
