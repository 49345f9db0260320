"""What a kernel's sockets carry and what a link does: signed, cut to size, and told of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jupyter_client.session import Session

from sandbox.jupyter.kernelwire import (
    DELIMITER,
    MAX_MESSAGE,
    PIECE_BYTES,
    aborted,
    bounded,
    header_of,
    opened,
    sealed,
)
from sandbox.kernels.messages import Messages, new_id
from sandbox.link import wire


@pytest.fixture
def session() -> Session:
    return Session(key=b"a key", check_pid=False)


def message(session: Session, kind: str, content: dict[str, Any]) -> list[bytes]:
    return session.serialize(session.msg(kind, content))


def test_a_signed_message_is_taken_and_its_signature_left_out(session: Session) -> None:
    frames = message(session, "status", {"execution_state": "idle"})
    parts = opened(session, [b"topic", *frames])
    assert parts is not None
    assert parts[0] == b""
    assert json.loads(parts[4]) == {"execution_state": "idle"}


@pytest.mark.parametrize("change", ["content", "signature", "nothing after it", "no delimiter"])
def test_what_is_not_signed_with_the_kernels_key_is_no_message(
    session: Session, change: str
) -> None:
    frames = message(session, "status", {"execution_state": "idle"})
    match change:
        case "content":
            frames[5] = b'{"execution_state":"busy"}'
        case "signature":
            frames[1] = b"0" * 64
        case "nothing after it":
            frames = [DELIMITER]
        case _:
            frames = frames[1:]
    assert opened(session, frames) is None


def test_a_request_of_ours_is_signed_with_the_kernels_key(session: Session) -> None:
    packed = Messages().execute("1+1", new_id())
    _, *parts = wire.unpack_parts(packed)
    frames = sealed(session, parts)
    assert frames[0] == DELIMITER
    assert opened(session, frames) == parts


def test_a_long_text_is_cut_between_characters(session: Session) -> None:
    text = "ä€𝄞x" * 40_000
    parts = opened(session, message(session, "stream", {"name": "stdout", "text": text}))
    assert parts is not None
    pieces = bounded(parts)
    assert not isinstance(pieces, dict)
    found = [json.loads(piece[4]) for piece in pieces]
    assert "".join(each["text"] for each in found) == text
    assert {each["name"] for each in found} == {"stdout"}
    assert len(found) > 1
    assert max(len(each["text"].encode()) for each in found) <= PIECE_BYTES


def test_a_message_that_is_too_large_is_told_of(session: Session) -> None:
    data = {"data": {"text/plain": "x" * MAX_MESSAGE}, "metadata": {}}
    parts = opened(session, message(session, "display_data", data))
    assert parts is not None
    event = bounded(parts)
    assert isinstance(event, dict)
    assert event["event"] == "oversize"
    assert event["msg_type"] == "display_data"
    assert event["bytes"] > MAX_MESSAGE


def test_a_request_that_is_taken_back_is_answered_as_given_up() -> None:
    execution_id = new_id()
    _, *parts = wire.unpack_parts(Messages().execute("1+1", execution_id))
    reply, idle = aborted(parts)
    assert [header_of(each)["msg_type"] for each in (reply, idle)] == ["execute_reply", "status"]
    assert [header_of(each, 2)["msg_id"] for each in (reply, idle)] == [execution_id] * 2
    assert json.loads(reply[4]) == {"status": "aborted"}
    assert json.loads(idle[4]) == {"execution_state": "idle"}
