"""The log: one line for each event, on standard error."""

from __future__ import annotations

import logging
import sys
import time

QUIET = ("mcp", "uvicorn", "httpx2", "urllib3", "docker", "asyncio", "sse_starlette")


def configure(level: str) -> None:
    """Log to standard error from this level on; libraries only when something is wrong."""
    formatter = logging.Formatter(
        "%(asctime)sZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
