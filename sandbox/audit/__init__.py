"""The audit log: who did what in which session, under which policy, and what came of it.

One log for each slot of the state directory: lines of JSON in ``audit/``, each with the hash of the
line before it, so that a line that was changed, removed or moved is found (``verify``). A
controller writes through an ``AuditLog``: ``require()`` before anything is done for a caller, and
``record()`` when it is done. What is recorded is in ``sandbox.audit.entries``.
"""

from sandbox.audit.calls import DEFECT, Call, about, recorded
from sandbox.audit.entries import (
    ApprovalEntry,
    CallEntry,
    ControllerEntry,
    DenialEntry,
    EgressEntry,
    Entry,
    Outcome,
    PolicyEntry,
    SessionEntry,
    TokenEntry,
    digest_of,
)
from sandbox.audit.log import AuditLog
from sandbox.audit.verification import Verification, verify

__all__ = [
    "DEFECT",
    "ApprovalEntry",
    "AuditLog",
    "Call",
    "CallEntry",
    "ControllerEntry",
    "DenialEntry",
    "EgressEntry",
    "Entry",
    "Outcome",
    "PolicyEntry",
    "SessionEntry",
    "TokenEntry",
    "Verification",
    "about",
    "digest_of",
    "recorded",
    "verify",
]
