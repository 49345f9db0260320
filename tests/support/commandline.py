"""The command line within this process: what it prints, and the code that it exits with.

A process of its own takes most of a second to start, and there are many commands. That a real start
works is tested in ``tests/integration/test_cli.py``.
"""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from sandbox.cli import main


def run(*words: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``sandbox`` with these words in this environment, reading nothing, to its end."""
    out, err = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with (
        mock.patch.dict(os.environ, env, clear=True),
        mock.patch.object(sys, "argv", ["sandbox", *words]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
    return subprocess.CompletedProcess(["sandbox", *words], code, out.getvalue(), err.getvalue())
