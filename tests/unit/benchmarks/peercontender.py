"""A contender that runs Python in its adapter's own process, for the driver's tests."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.peers.adapters.loop import Adapter, Lacking, serve


class Here(Adapter):
    """A session is a dictionary of variables, and a folder."""

    def start(self, settings: Mapping[str, str]) -> None:
        self._folder = Path(settings["folder"])
        self._alone = threading.Lock()

    def open(self) -> dict[str, Any]:
        print("what a contender prints is no answer")
        return {"__name__": "__main__"}

    def run(self, session: dict[str, Any], code: str) -> str:
        printed = io.StringIO()
        with self._alone, contextlib.redirect_stdout(printed):  # which is of the whole process
            exec(code, session)  # noqa: S102  (the tests' own code)
        return printed.getvalue()

    def put(self, session: dict[str, Any], source: Path, name: str) -> None:
        shutil.copyfile(source, self._folder / f"in-{name}")

    def get(self, session: dict[str, Any], name: str, target: Path) -> None:
        raise Lacking("files go in and stay")

    def restart(self, session: dict[str, Any]) -> None:
        raise ValueError("it cannot be had")

    def close(self, session: dict[str, Any]) -> None:
        if session.get("is_fatal"):
            os._exit(1)


if __name__ == "__main__":
    serve(Here())
