"""What a kernel's shell is given before its first cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

INSTALLED: tuple[Callable[[Any], None], ...] = ()
"""Each is called with the shell, in the new process."""
