"""Containers that outlived what made them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def left_of(state: Path) -> list[str]:
    """The containers that the controllers of a state folder left behind."""
    found: list[str] = []
    for owner in state.glob("controllers/*/owner"):
        label = f"label=io.sandbox.owner={owner.read_text().strip()}"
        listed = subprocess.run(
            ["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True
        )
        found += listed.stdout.split()
    return found
