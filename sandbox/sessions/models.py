"""The values that sessions take from and give to callers."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from sandbox.container.checks import Check
from sandbox.egress.models import NetworkInfo
from sandbox.kernels.models import ExecutionStatus, KernelInfo, KernelState
from sandbox.policy import Limits
from sandbox.sessions.journal import SessionState

WORKSPACE = "/workspace"
PASSING = "mcp:"
"""What default keys begin with whose conversations end with their controller at the latest."""


def passing_key(token_id: str, conversation: str) -> str:
    """The default key of a conversation of one token that passes."""
    return f"{PASSING}{token_id} {conversation}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Args:
        principal: Whose sessions these are; everything is looked up by principal and id.
        default_key: Tells apart the conversations of one principal, each with a default session.
        policies: The policies it may name, the default one first; None for all. Sessions under
            others are not there for this caller.
    """

    principal: str
    default_key: str = ""
    policies: tuple[str, ...] | None = None

    @property
    def line(self) -> str:
        """What the keys of its token's conversations begin with; empty when its own one lasts."""
        token, found, _ = self.default_key.partition(" ")
        return token + found if found and token.startswith(PASSING) else ""

    @property
    def default_lock(self) -> tuple[str, str, str]:
        """What is held while its default session is looked for or opened."""
        return ("default", self.principal, self.default_key)

    def may_use(self, policy: str) -> bool:
        """Whether it may have sessions under a policy."""
        return self.policies is None or policy in self.policies


class ExecutionSummary(BaseModel, frozen=True):
    """An execution in a list of them."""

    execution_id: str
    session_id: str
    kernel_id: str
    status: ExecutionStatus
    """``running`` also for one that waits for those before it."""
    state: KernelState
    """What became of the kernel's variables."""
    age_s: float
    """Since it was asked for."""
    duration_s: float = 0.0
    """From its start in the kernel; 0 when it has not begun."""
    code: str
    """The first line that says something, cut where it is long."""


class SessionProof(BaseModel, frozen=True):
    """What was compared before the session's caller got it, or when a later controller took over.

    After the session was handed over its own code may have a part in what is measured inside, so a
    check that is not ``ok`` then is shown, and does not end the session.
    """

    proved_at: float
    """Unix time, seconds."""
    runtime: str
    checks: tuple[Check, ...]
    """What was measured inside, mostly by trying."""
    inspected: int
    """How many facts of the engine's own inspection were compared with the policy, and equal."""


class SessionInfo(BaseModel, frozen=True):
    """A session as it is now, or as it was when it ended."""

    session_id: str
    name: str
    """As its opener named it; empty for none."""
    state: SessionState
    is_default: bool
    """Whether it is some caller's default session."""
    policy: str
    policy_digest: str = ""
    """SHA-256 of all that its policy says, as it was when the session was opened."""
    image: str
    runtime: str
    created_at: float
    """Unix time, seconds."""
    was_ready: bool = False
    """Whether its sandbox was there before it was asked for."""
    frozen_since: float | None = None
    """Unix time since which all in it is stopped, since nothing went on; its next use lets it go
    on. Null while it runs."""
    awake_because: tuple[str, ...] = ()
    """What kept it from being frozen when it was looked at last; empty when nothing did, or that
    was not looked at."""
    forked_from: str = ""
    """The session whose files and variables it began with; empty for none."""
    expires_at: float
    """Unix time at which it ends whatever it does."""
    idle_expires_at: float
    """Unix time at which it ends unless it is used; moves with each use."""
    limits: Limits
    room: str = ""
    """What there is to work with, in a line: memory, CPUs, disk, time, packages, network; empty
    in a list."""
    workspace: str = WORKSPACE
    """The folder inside."""
    workspace_name: str = ""
    """Of the named workspace, whose files are kept; empty when they end with the session."""
    workspace_saved_at: float | None = None
    """Unix time as of which its files are kept; null when nothing was saved yet."""
    workspace_bytes: int = 0
    """What is kept takes that much."""
    workspace_problem: str = ""
    """Why the last save came to nothing, so that only what was kept before is; empty when it
    did not."""
    checkpoint: str = ""
    """``auto`` when a checkpoint is made before each cell."""
    kernels: tuple[KernelInfo, ...] = ()
    checks_passed: int = 0
    """How many facts about its isolation were measured inside and found as the policy says."""
    proof: SessionProof | None = None
    """The checks one by one; None where a session is only listed, and before the proof is made."""
    network: NetworkInfo = NetworkInfo(mode="none")
    """What it may reach, what went there, and what was refused."""
