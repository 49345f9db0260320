"""What to do about a cell or command that failed: told as the reason for its end."""

from __future__ import annotations

from contextlib import suppress

from sandbox.commands.models import CommandResult
from sandbox.errors import SandboxError
from sandbox.kernels.models import ExecutionResult
from sandbox.policy import Policy, PolicySet
from sandbox.server.failures import NOTHING, seen_in
from sandbox.server.missing import advice_for, advice_for_command, images_of, is_missing
from sandbox.server.remedies import is_told_by_evidence, remedy_for, remedy_for_command
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

WELL = ("ok", "running")


async def advised(
    result: ExecutionResult,
    session: Session | None,
    policy: Policy,
    policies: PolicySet,
    caller: Caller,
) -> ExecutionResult:
    """The result of a cell, with what can be done about its failure, as far as the cause is known.

    Args:
        session: Its session; None where that is over, so that nobody can look there any more.
    """
    if result.status in WELL:
        return result
    evidence = NOTHING
    if session is not None and is_told_by_evidence(result):
        with suppress(SandboxError):
            evidence = await session.kernels.kernel(result.kernel_id).evidence()
    advice = ""
    if is_missing(result.error):
        advice = advice_for(result.error, policy, images_of(policies, caller))
    seen = seen_in(result, policy, evidence, _named(policies, caller))
    advice = advice or remedy_for(result, seen)
    return result.model_copy(update={"reason": _joined(result.reason, advice)})


def advised_command(
    result: CommandResult, policy: Policy, policies: PolicySet, caller: Caller
) -> CommandResult:
    """The same of a command."""
    advice = advice_for_command(result, policy, lambda: images_of(policies, caller))
    advice = advice or remedy_for_command(result, policy, _named(policies, caller))
    return result.model_copy(update={"reason": _joined(result.reason, advice)})


def _named(policies: PolicySet, caller: Caller) -> list[Policy]:
    """The policies that a caller may name."""
    return [policies.get(name) for name in policies.names() if caller.may_use(name)]


def _joined(reason: str | None, advice: str) -> str | None:
    return " ".join(filter(None, (reason, advice))) or None
