"""A short storm: three hostile principals beside two honest ones.

``make storm`` is the long one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.storm import storm

pytestmark = pytest.mark.anyio

SECONDS = 30


@pytest.mark.timed
async def test_honest_principals_are_served_through_a_storm_and_nothing_is_left(
    tmp_path: Path, seed: int
) -> None:
    report = await storm(tmp_path, SECONDS, seed)
    print("", *report.lines(), sep="\n")
    assert report.faults() == []
