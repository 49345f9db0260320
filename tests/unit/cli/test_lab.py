"""What `sandbox lab` is asked to open."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from sandbox.cli import lab, logs
from sandbox.cli.targets import ControllerTarget
from sandbox.config import Settings

SHARED = "http://127.0.0.1:8000/jupyter/s-1/lab/tree/a%20b.ipynb?token=for-a-guest"


@pytest.mark.parametrize("given", [SHARED, "-"], ids=["as an argument", "from standard input"])
def test_an_address_with_a_token_may_be_kept_off_the_command_line(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str, str, bool]] = []

    async def run(own: Settings, target: ControllerTarget, work: lab.LabWork) -> int:
        async with lab._session(own, target, work) as (upstream, path, is_guest):
            opened.append((upstream.authorization, upstream.prefix, path, is_guest))
        return 0

    monkeypatch.setattr(lab, "_run", run)
    monkeypatch.setattr(logs, "configure", lambda _level: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SHARED}\n"))
    assert lab.run_lab(Settings(state_dir=tmp_path), ControllerTarget(), lab.LabWork(given)) == 0
    assert opened == [("Bearer for-a-guest", "/jupyter/s-1", "a b.ipynb", True)]
