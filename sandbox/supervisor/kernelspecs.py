"""The kernels that can be started, by Jupyter's kernelspec files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NATIVE = "python3"
BASH = "bash"
_MAX_FILE_BYTES = 64 * 1024
_MAX_SPECS = 100


@dataclass(frozen=True, slots=True)
class InstalledKernel:
    """How a kernel is started and what it speaks."""

    name: str
    display_name: str
    language: str
    argv: tuple[str, ...] = ()
    """The program, with ``{connection_file}``; empty for the one that is forked."""
    env: tuple[tuple[str, str], ...] = ()
    resource_dir: str = ""
    interrupt_by_message: bool = False
    """Whether it wants a message instead of SIGINT."""


_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = (
    # No debugger is offered, and importing one takes 0.1 s and 10 MB.
    f"import sys; sys.path.insert(0, {_ROOT!r}); sys.modules['debugpy'] = None; "
    "from sandbox.supervisor.bashkernel.kernel import main; main(sys.argv[1])"
)
_OWN_BASH = InstalledKernel(
    BASH, "Bash", "bash", (sys.executable, "-I", "-c", _START, "{connection_file}")
)


def directories(workspace: str) -> tuple[str, ...]:
    """Where kernelspecs are looked for, the strongest first."""
    tails = ("/usr/local/share", "/usr/share")
    return (f"{workspace}/.local/share/jupyter/kernels", *(f"{t}/jupyter/kernels" for t in tails))


def find(folders: Iterable[str]) -> dict[str, InstalledKernel]:
    """All kernelspecs by name; what cannot be read is left out.

    ``python3`` is always there and always the supervisor's own interpreter; ``bash`` is our own
    unless another one is installed.
    """
    found = {NATIVE: InstalledKernel(NATIVE, "Python 3 (ipykernel)", "python")}
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names[:_MAX_SPECS]:
            if name.lower() in found or not name.isprintable():
                continue
            spec = _load(name.lower(), os.path.join(folder, name))
            if spec is not None:
                found[spec.name] = spec
    return {BASH: _OWN_BASH, **found}


def _load(name: str, folder: str) -> InstalledKernel | None:
    try:
        fd = os.open(os.path.join(folder, "kernel.json"), os.O_RDONLY | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            raw: dict[str, Any] = json.loads(file.read(_MAX_FILE_BYTES))
        env: dict[str, Any] = raw.get("env") or {}
        return InstalledKernel(
            name=name,
            display_name=str(raw.get("display_name", name)),
            language=str(raw.get("language", "")),
            argv=tuple(str(part) for part in raw["argv"]),
            env=tuple((str(k), str(v)) for k, v in env.items()),
            resource_dir=folder,
            interrupt_by_message=raw.get("interrupt_mode") == "message",
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
