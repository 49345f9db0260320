"""The environment that kernels, commands and terminals start from."""

from __future__ import annotations

import os

_DEFAULTS = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "USER": "sandbox",
    "LOGNAME": "sandbox",
}
_OURS = ("SANDBOX_SUPERVISOR", "SANDBOX_STATE", "SANDBOX_WORKSPACE", "SANDBOX_EGRESS_PORT")


def base_environment(workspace: str, state_dir: str) -> dict[str, str]:
    """What the container was created with, and what every program expects to find besides."""
    env = {**_DEFAULTS, **os.environ}
    if env.get("HOME", "/") == "/":  # what an engine says of a uid that no passwd file knows
        env["HOME"] = workspace
    env.setdefault("PYTHONUSERBASE", f"{env['HOME']}/.local")
    env.setdefault("IPYTHONDIR", f"{state_dir}/ipython")
    for name in _OURS:
        env.pop(name, None)
    return env
