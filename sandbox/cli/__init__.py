"""The command ``sandbox``: the composition root, where everything is wired together.

Modules are imported by the commands that need them, so that ``--help`` is quick.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with a code that means something (``sandbox.cli.exits``)."""
    from sandbox.cli.app import run

    run()
