"""Sessions: one caller's container each, opened, kept, expired, and found again after a crash."""

from sandbox.sessions.approvals import Approvals, Asker, Reply
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller, SessionInfo
from sandbox.sessions.session import Session

__all__ = ["Approvals", "Asker", "Caller", "Reply", "Session", "SessionInfo", "SessionManager"]
