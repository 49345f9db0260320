"""What a kernel's shell is given before its first cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.supervisor.pykernel import carrying, figures, shellcommands, spawning, tracebacks

INSTALLED: tuple[Callable[[Any], None], ...] = (
    shellcommands.install,
    figures.install,
    spawning.install,
    tracebacks.install,
    carrying.install,
)
"""Each is called with the shell, in the new process."""
