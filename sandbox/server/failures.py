"""What there is to see of a cell or command that failed, for whoever looks for its cause."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.commands.models import CommandResult
from sandbox.kernels.evidence import Evidence
from sandbox.kernels.models import ExecutionResult
from sandbox.policy import Policy
from sandbox.policy.units import format_size

LOOKED_AT = 4000
"""The characters at the end of what was written that are looked at."""
MAX_ERROR = 2000
BROKEN = (
    r"BrokenProcessPool|terminated abruptly|TerminatedWorkerError|DataLoader worker .* is killed"
)
KILLED = r"SIGKILL|[Kk]illed by signal(?: 9|: Killed)|exit code:? -9\b|returned? .*-9\b"
OF_OTHERS = rf"^CalledProcessError|{BROKEN}|{KILLED}"
"""The errors whose cause is in what other processes wrote."""
NOTHING = Evidence()


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to see of a failure."""

    policy: Policy
    error: str = ""
    """Its name and value, such as ``OSError: [Errno 28] No space left on device``."""
    written: str = ""
    """The end of its traceback and of what was written to stderr."""
    reason: str = ""
    """How it ended, in words of ours."""
    evidence: Evidence = NOTHING
    others: Sequence[Policy] = ()
    """The policies that the caller may name instead."""

    def has(self, signs: str) -> bool:
        """Whether the error or what was written has signs, a regular expression."""
        return any(re.search(signs, text) for text in (self.error, self.written))

    def roomier(self, measure: Callable[[Policy], int]) -> str:
        """Which policy has most of something, if one has more than this; else empty."""
        best = max(self.others, key=measure, default=self.policy)
        if measure(best) <= measure(self.policy):
            return ""
        return f", or open_session(policy={best.name!r}), which has {format_size(measure(best))}"


def seen_in(
    result: ExecutionResult, policy: Policy, evidence: Evidence, others: Sequence[Policy] = ()
) -> Seen:
    """What there is to see of a cell that failed."""
    error = said_of(result)
    written = result.error.traceback[-LOOKED_AT:] if result.error else ""
    if result.status == "timeout" or re.search(OF_OTHERS, error):
        stderr = "".join(_stderr(output) for output in result.outputs[-8:])
        written = f"{stderr[-LOOKED_AT:]}\n{written}"
    return Seen(policy, error, written, result.reason or "", evidence, others)


def said_of(result: ExecutionResult) -> str:
    """The name and value of a cell's error; empty without one."""
    error = result.error
    return f"{error.name}: {error.value}"[:MAX_ERROR] if error else ""


def seen_of_command(result: CommandResult, policy: Policy, others: Sequence[Policy]) -> Seen:
    """What there is to see of a command that failed."""
    return Seen(policy, "", result.stderr[-LOOKED_AT:], result.reason or "", others=others)


def _stderr(output: dict[str, Any]) -> str:
    if output.get("output_type") != "stream" or output.get("name") != "stderr":
        return ""
    return str(output.get("text", ""))[-LOOKED_AT:]
