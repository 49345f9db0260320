"""Exit codes, the same for every command."""

from __future__ import annotations

from sandbox.errors import (
    ConfigError,
    InfrastructureError,
    InvalidRequest,
    NotPermitted,
    QuotaExceeded,
    SandboxError,
)

OK = 0
FAILED = 1
"""The code that was run failed, or a check found something wrong."""
USAGE = 2
"""The command line, a setting or a policy is wrong."""
INFRASTRUCTURE = 3
"""The engine, an image or the controller does not work."""
REFUSED = 4
"""A policy or a quota does not allow it."""
TIMED_OUT = 124
INTERRUPTED = 130

HELP = (
    "Exit codes: 0 it worked · 1 the code failed or a check found something · 2 wrong usage or "
    "configuration · 3 engine, image or controller trouble · 4 refused by policy or quota · "
    "124 timed out · 130 interrupted."
)


def exit_code(error: SandboxError) -> int:
    """The code for an error that ends a command."""
    if isinstance(error, InvalidRequest | ConfigError):
        return USAGE
    if isinstance(error, NotPermitted | QuotaExceeded):
        return REFUSED
    if isinstance(error, InfrastructureError):
        return INFRASTRUCTURE
    return FAILED
