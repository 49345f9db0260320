"""What a kernel's shell is given before its first cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.supervisor.pykernel import carrying

INSTALLED: tuple[Callable[[Any], None], ...] = (carrying.install,)
"""Each is called with the shell, in the new process."""
