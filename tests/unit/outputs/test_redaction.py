"""Values are found in every form that is promised, and wherever a stream is cut."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from sandbox.outputs.redaction import Pieces, Redactor, TextPieces

VALUE = 'sk-Zq7/9"pA+x<tö'
KEY = "-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG9w0B\nAQEFAASCAUAwggE8AgEAAkEA\n-----END KEY-----"
MARK = b"[secret api-key]"


@pytest.fixture
def redactor() -> Redactor:
    return Redactor({"api-key": VALUE, "tls-key": KEY})


def test_nothing_is_copied_where_there_is_nothing_to_find(redactor: Redactor) -> None:
    text, data, value = "some text", b"some bytes", {"a": ["b", 1, None]}
    assert redactor.text(text) is text
    assert redactor.data(value) is value
    assert Redactor().data(value) is value
    assert Pieces(Redactor()).feed(data) is data


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        VALUE.encode().hex(),
        VALUE.encode().hex().upper(),
        quote(VALUE, safe=""),
        json.dumps(VALUE)[1:-1],
        json.dumps(VALUE, ensure_ascii=False)[1:-1],
        VALUE.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;"),
    ],
)
def test_a_value_is_taken_out_in_its_usual_forms(redactor: Redactor, form: str) -> None:
    assert redactor.text(f"before {form} after") == "before [secret api-key] after"


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_a_text_around_a_value_does_not_tell_it(
    redactor: Redactor, before: int, encode: object
) -> None:
    assert callable(encode)
    shown = redactor.bytes(encode(b"u" * before + VALUE.encode() + b":tail"))
    assert MARK in shown
    left, right = shown.split(MARK)
    assert len(left) < 4 * (before // 3 + 1) + 1
    assert len(right) < 13


def test_the_lines_of_a_value_are_taken_out_one_by_one(redactor: Redactor) -> None:
    assert redactor.text(f"> {KEY}") == "> [secret tls-key]"
    assert "MII" not in redactor.text("MIIBVgIBADANBgkqhkiG9w0B")
    assert "AQEF" not in redactor.text(KEY.replace("\n", "\r\n"))


def test_values_are_taken_out_of_keys_and_texts_of_a_json_value(redactor: Redactor) -> None:
    found = redactor.data({VALUE: [VALUE, 7, {"deep": f"x{VALUE}y"}]})
    assert found == {"[secret api-key]": ["[secret api-key]", 7, {"deep": "x[secret api-key]y"}]}


@pytest.mark.parametrize("at", range(1, len(VALUE.encode())))
def test_a_value_that_is_cut_anywhere_is_taken_out(redactor: Redactor, at: int) -> None:
    data = b"before " + VALUE.encode() + b" after"
    pieces = Pieces(redactor)
    shown = [pieces.feed(data[: 7 + at]), pieces.feed(data[7 + at :]), pieces.last()]
    assert b"".join(shown) == b"before " + MARK + b" after"
    assert shown[0] == b"before "


def test_a_value_that_comes_byte_by_byte_is_taken_out(redactor: Redactor) -> None:
    data = b"s sk- " + VALUE.encode() * 2 + VALUE.encode()[:6]
    pieces = Pieces(redactor)
    shown = b"".join(pieces.feed(data[at : at + 1]) for at in range(len(data)))
    assert shown == b"s sk- " + MARK * 2
    assert not pieces.is_settled
    assert pieces.last() == VALUE.encode()[:6]
    assert pieces.is_settled


def test_values_that_overlap_are_taken_out_wholly() -> None:
    redactor = Redactor({"a": "abcdefgh", "b": "efghijklmn", "c": "abcdefghXYZ"})
    text = b"_abcdefghijklmn_abcdefghXYZ_"
    assert redactor.bytes(text) == b"_[secret a]_[secret c]_"
    pieces = Pieces(redactor)
    shown = b"".join(pieces.feed(text[at : at + 1]) for at in range(len(text))) + pieces.last()
    assert shown == b"_[secret a]_[secret c]_"


def test_a_value_that_repeats_itself_holds_back_no_more_than_its_length() -> None:
    redactor = Redactor({"a": "aaaaaaaaaa"})
    pieces = Pieces(redactor)
    shown = b"".join(pieces.feed(b"a" * 7) for _ in range(1000)) + pieces.last(b"!")
    assert shown == b"[secret a]!"


@pytest.mark.parametrize("at", range(1, len(VALUE.encode())))
def test_where_lengths_matter_stars_take_the_place_of_a_value(redactor: Redactor, at: int) -> None:
    data = b"before " + VALUE.encode() + b" after"
    pieces = Pieces(redactor, keep_length=True)
    shown = pieces.feed(data[: 7 + at]) + pieces.feed(data[7 + at :]) + pieces.last()
    assert shown == b"before " + b"*" * len(VALUE.encode()) + b" after"


def test_stars_keep_the_length_when_values_overlap() -> None:
    redactor = Redactor({"a": "aaaaaaaaaa", "b": "aaaaXYZXYZ"})
    data = b"." + b"a" * 33 + b"XYZXYZ."
    for size in range(1, len(data)):
        pieces = Pieces(redactor, keep_length=True)
        parts = [pieces.feed(data[at : at + size]) for at in range(0, len(data), size)]
        assert b"".join([*parts, pieces.last()]) == b"." + b"*" * 39 + b"."


def test_lone_surrogates_pass_unharmed(redactor: Redactor) -> None:
    pieces = TextPieces(redactor)
    assert pieces.feed("\ud800 sk-") + pieces.feed(VALUE[3:]) + pieces.last() == (
        "\ud800 [secret api-key]"
    )


def test_a_redactor_shows_no_value(redactor: Redactor) -> None:
    assert "Zq7" not in repr(redactor)
