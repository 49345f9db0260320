"""How a cell ended, in the words of a reply."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

INTERRUPTED_CODE = 128 + signal.SIGINT
SYNTAX_CODE = 2
"""With which bash ends a text that it cannot read."""
CANNOT_RUN_CODE = 126


@dataclass(frozen=True, slots=True)
class Ending:
    """How a cell ended."""

    exit_code: int
    """Of its last command, or of the shell."""
    is_interrupted: bool = False
    shell_ended: str = ""
    """How, if the shell has ended and there is another one, or none."""
    problem: str = ""
    """Why nothing of it was run, in whole lines."""

    def error(self) -> dict[str, Any] | None:
        """What ``error`` messages say of it; None when it ended well."""
        if self.problem:
            return _error("bash", self.problem.removeprefix("bash: "))
        if self.is_interrupted:
            return _error("KeyboardInterrupt", "")
        if not self.exit_code:
            return None
        gone = f", and the shell has ended ({self.shell_ended})" if self.shell_ended else ""
        return _error("exit code", f"{self.exit_code}{gone}")


def shell_ending(returncode: int, *, is_interrupted: bool) -> Ending:
    """The end of a cell that has ended its shell.

    Args:
        returncode: As ``subprocess`` has it: negative for a signal.
    """
    if returncode >= 0:
        return Ending(returncode, shell_ended=f"exit {returncode}")
    number = -returncode
    names = {known.value: known.name for known in signal.Signals}
    return Ending(
        128 + number,
        is_interrupted=is_interrupted and number == signal.SIGINT,
        shell_ended=f"killed by {names.get(number, f'signal {number}')}",
    )


def _error(name: str, value: str) -> dict[str, Any]:
    return {"ename": name, "evalue": value, "traceback": []}
