"""What is recorded: one frozen value for each kind of entry.

Values are taken as they come, from callers and containers too: texts are cut and escaped when they
are written (``sandbox.audit.chain``), and nothing here can fail. What is empty or None is left out
of the line. No entry holds what a caller sent or got, only digests of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

Outcome = Literal["ok", "failed", "refused", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What all entries have: a kind."""

    kind: ClassVar[str]

    def values(self) -> dict[str, Any]:
        """The fields that say something, in order."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) not in ("", None)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEntry(Entry):
    """One call of a tool, or one request, at its end."""

    kind: ClassVar[str] = "call"
    principal: str
    token_id: str = ""
    tool: str
    """The tool's name; over REST the method and the route."""
    arguments: str
    """SHA-256 of the arguments (:func:`digest_of`)."""
    outcome: Outcome
    """``refused`` when nothing was done, ``failed`` when it was tried in vain."""
    code: str = ""
    """The code of the error, or the status of the execution."""
    session_id: str = ""
    """The session it was about, as far as it is known; of a call that was refused, the one that the
    caller named."""
    policy: str = ""
    policy_digest: str = ""
    duration_s: float = 0.0
    transport: Literal["http", "rest", "websocket", "stdio", "cli"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEntry(Entry):
    """Something in the life of a session."""

    kind: ClassVar[str] = "session"
    event: Literal["opened", "not_opened", "adopted", "passed_on", "tightened", "ended", "removed"]
    """``opened``, ``not_opened`` (its container is removed), ``adopted`` (taken back from an
    earlier controller), ``passed_on`` (to another conversation), ``tightened`` (its network),
    ``ended``, ``removed`` (a container that was no session's)."""
    session_id: str = ""
    principal: str = ""
    state: str = ""
    """How it ended: ``closed``, ``expired``, ``lost``, or ``kept`` for the next controller."""
    reason: str = ""
    name: str = ""
    policy: str = ""
    policy_digest: str = ""
    runtime: str = ""
    image: str = ""
    container_id: str = ""
    checks: int | None = None
    """How many facts about its isolation were measured inside and found right."""
    proof: str = ""
    """SHA-256 of those checks."""
    forked_from: str = ""
    """The session that it is a fork of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressEntry(Entry):
    """A decision about a connection out of a session; ``repeated`` counts more that were alike."""

    kind: ClassVar[str] = "egress"
    verdict: Literal["allow", "deny"]
    principal: str
    session_id: str
    host: str
    port: int
    rule: str = ""
    reason: str = ""
    policy: str = ""
    policy_digest: str = ""
    repeated: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalEntry(Entry):
    """What became of asking a person."""

    kind: ClassVar[str] = "approval"
    decision: str
    """Such as ``asked``, ``approved``, ``denied``, ``timeout``."""
    principal: str
    session_id: str
    subject: str
    decided_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntry(Entry):
    """A token was made or taken away."""

    kind: ClassVar[str] = "token"
    event: str
    """Such as ``created`` or ``revoked``."""
    principal: str
    token_id: str = ""
    """Its public id; never the token."""
    by: str = ""
    """The principal that did it."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEntry(Entry):
    """The set of policies was read."""

    kind: ClassVar[str] = "policy"
    event: Literal["loaded", "reloaded", "refused"]
    """``loaded``, ``reloaded``, or ``refused`` when the files were wrong."""
    policies: int | None = None
    """How many there are."""
    digest: str = ""
    """SHA-256 of their names and digests."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerEntry(Entry):
    """The controller itself."""

    kind: ClassVar[str] = "controller"
    event: Literal["started", "stopped"]
    version: str = ""
    pid: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialEntry(Entry):
    """A request that was turned away at the gate; ``repeated`` counts more that were alike."""

    kind: ClassVar[str] = "denial"
    reason: str
    client: str = ""
    repeated: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionEntry(Entry):
    """The lines up to ``through`` were removed because of their age or the log's size."""

    kind: ClassVar[str] = "retention"
    through: int
    last_hash: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairEntry(Entry):
    """The log was not as the last writer must have left it."""

    kind: ClassVar[str] = "repair"
    reason: str
    torn_file: str = ""
    torn_bytes: int | None = None
    torn_sha256: str = ""


KINDS: tuple[type[Entry], ...] = (
    CallEntry,
    SessionEntry,
    EgressEntry,
    ApprovalEntry,
    TokenEntry,
    PolicyEntry,
    ControllerEntry,
    DenialEntry,
    RetentionEntry,
    RepairEntry,
)
"""All kinds there are."""


def digest_of(value: object) -> str:
    """SHA-256 of a JSON value in one form: keys sorted, no spaces, ASCII.

    Returns:
        64 hexadecimal digits; empty when the value has no such form.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()
