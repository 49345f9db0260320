"""What was set aside is logged with its digest, and a session that goes on so is ended."""

from __future__ import annotations

import logging
from hashlib import sha256

import pytest

from sandbox.bulkheads.overruns import MAX_OVERRUNS, Overruns
from sandbox.errors import TooMuchWork

ERROR = TooMuchWork("Working on a test took more than 0.25 s and was given up.")


def test_it_is_logged_with_session_reason_size_and_digest(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Overruns("s-ada").note(ERROR, b"some bytes")
    (line,) = caplog.messages
    assert "s-ada" in line
    assert "a test" in line
    assert "10 bytes" in line
    assert sha256(b"some bytes").hexdigest() in line


def test_a_session_is_ended_once_after_repeats() -> None:
    reasons: list[str] = []
    overruns = Overruns("s-ada", reasons.append)
    for _ in range(MAX_OVERRUNS - 1):
        overruns.note(ERROR)
    assert reasons == []
    for _ in range(3):
        overruns.note(ERROR)
    assert len(reasons) == 1
    assert "too long" in reasons[0]
