"""Where the served controller of a state folder listens, for the commands that talk to it."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

FILE = "server.json"


@contextmanager
def announced(state_dir: Path, url: str) -> Generator[None]:
    """Keep the address of this process in the state folder while it serves."""
    path = state_dir / FILE
    fresh = path.with_name(f"{FILE}.{os.getpid()}")
    fresh.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
    fresh.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_address(state_dir: Path) -> tuple[str, int] | None:
    """The address and process id of the server; None when none was started.

    A server that was killed leaves its address behind: whoever uses it must expect no answer.
    """
    try:
        found = json.loads((state_dir / FILE).read_text())
        return str(found["url"]), int(found["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
