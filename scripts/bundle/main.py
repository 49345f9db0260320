"""Starts the installed ``sandbox mcp`` for a desktop client.

The bundle has no copy of the package: what runs untrusted code should be one installation, kept
up to date in one place. Needs nothing but Python 3.8.
"""

import os
import shutil
import sys

COMMAND = "SANDBOX_BUNDLE_COMMAND"
SETTINGS = ("SANDBOX_DEFAULT_POLICY", "SANDBOX_TOOLS", "SANDBOX_POLICIES")
PLACES = ("~/.local/bin", "/usr/local/bin", "/opt/homebrew/bin")
"""Where programs are installed; desktop applications do not have the PATH of a shell."""


def chosen(name: str) -> str:
    """What a person set, taken out of the environment; empty when nothing.

    A client may leave the placeholder of an option that nobody set as it is.
    """
    value = os.environ.pop(name, "").strip()
    return "" if value.startswith("${") else value


def found(command: str) -> "str | None":
    """The program of that name or path."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(os.path.expanduser, PLACES)])
    return shutil.which(os.path.expanduser(command), path=path)


def main() -> None:
    """Become ``sandbox mcp``, or say what is missing and end with 1."""
    command = chosen(COMMAND) or "sandbox"
    for name in SETTINGS:
        value = chosen(name)
        if value:
            os.environ[name] = value
    program = found(command)
    if program is None:
        sys.exit(
            f"sandbox: the program {command!r} was not found. Install the package (make setup in a "
            "checkout, or pip install of the wheel that make dist builds there), or give the full "
            "path in this extension's settings: of a checkout it is .venv/bin/sandbox."
        )
    sys.stdout.flush()
    os.execv(program, [program, "mcp"])  # noqa: S606  # as the client has it


if __name__ == "__main__":
    main()
