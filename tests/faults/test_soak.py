"""A short soak: many clients, few sessions at once, in one order every time.

``make soak`` is the long one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.soak import soak

SECONDS = 20
SEED = 7
SESSIONS = 12
WORKERS = 6


@pytest.mark.timed
def test_many_sessions_come_and_go_and_nothing_is_wrong_lost_or_left(tmp_path: Path) -> None:
    report = soak(tmp_path, SECONDS, SEED, SESSIONS, WORKERS)
    print("", *report.lines(), sep="\n")
    assert report.faults() == []
