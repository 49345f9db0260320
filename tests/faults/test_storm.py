"""A short storm: three hostile principals beside two honest ones, in one order every time.

``make storm`` is the long one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.storm import storm

pytestmark = pytest.mark.anyio

SECONDS = 30
SEED = 7


@pytest.mark.timed
async def test_honest_principals_are_served_through_a_storm_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    report = await storm(tmp_path, SECONDS, SEED)
    print("", *report.lines(), sep="\n")
    assert report.faults() == []
