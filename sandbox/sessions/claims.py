"""A principal's claim of one sandbox: what makes a session, and whose it is."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass

from sandbox.container.identity import SandboxIdentity
from sandbox.policy import Policy

AUTO = "auto"
"""Of a session that makes a checkpoint before each cell."""
_ID_LENGTH = 26  # of five bits each: 130


def new_session_id() -> str:
    """A session id that nobody can guess: ``s-`` and 130 random bits in lower-case letters."""
    return "s-" + base64.b32encode(secrets.token_bytes(20)).decode().lower()[:_ID_LENGTH]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the journal holds of a session before anybody hears of it.

    Args:
        sandbox_id: The sandbox that is claimed; ``uid`` and ``policy_digest`` are that sandbox's
            too, and what its container's labels must say.
        name: As its opener named it; empty for none.
        opener_key: The default key of the caller that opened it.
        default_key: The key of the caller whose default session it is; None for nobody's.
        workspace: The name of the workspace that it keeps; empty for none.
        checkpoint: :data:`AUTO` for one that makes a checkpoint before each cell; else empty.
        created_at: Unix time, seconds.
        expires_at: Unix time at which it ends whatever it does, seconds.
        forked_from: The session whose files and variables it began with; empty for none.
    """

    session_id: str
    principal: str
    sandbox_id: str
    uid: int
    policy_digest: str
    name: str
    opener_key: str
    default_key: str | None
    workspace: str
    created_at: float
    expires_at: float
    checkpoint: str = ""
    forked_from: str = ""

    @property
    def holder(self) -> str:
        """What it takes its workspace with."""
        return f"{self.session_id} {self.sandbox_id}"

    def fits(self, identity: SandboxIdentity, policy: Policy) -> bool:
        """Whether a sandbox is the one that was claimed."""
        claimed = (self.sandbox_id, self.uid, self.policy_digest)
        return claimed == (identity.sandbox_id, identity.uid, policy.digest)
