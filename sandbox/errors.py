"""Every error this project raises on purpose.

    SandboxError                    something went wrong, with a cause and a remedy
    ├── InvalidRequest              what the caller sent cannot be done; nothing was changed
    │   └── PolicyError             a policy file is wrong: file, key path, reason
    ├── NotFound                    no such session, kernel, terminal, execution or policy for you
    ├── NotPermitted                the policy or the token does not allow it
    ├── QuotaExceeded               a limit of the policy is reached; something must be closed first
    ├── Conflict                    the thing is in a state in which this cannot be done
    ├── FileError                   a file operation inside the sandbox failed
    ├── TooMuchWork                 what was sent takes the controller too long; it was set aside
    ├── ConfigError                 the controller's own configuration is wrong
    └── InfrastructureError         our fault, not the caller's code's
        ├── EngineUnavailable       the container engine does not answer
        ├── ImageMissing            the policy's image is not on the engine
        ├── PolicyNotEnforced       the container did not match its spec; it has been removed
        ├── ProtocolError           the other end of a link broke the protocol; the link is closed
        ├── LinkLost                the link to the container ended
        └── SessionLost             the session's container is gone

A cell that raises, times out or kills its kernel is a result, not an exception.
Foreign exceptions (docker, sqlite, zmq) are translated once, at the adapter, with ``from exc``.
"""

from __future__ import annotations

from typing import ClassVar


class SandboxError(Exception):
    """The root of all errors that a caller may see."""

    code: ClassVar[str] = "sandbox_error"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


class InvalidRequest(SandboxError):
    """What the caller sent cannot be done as it stands; nothing was changed."""

    code = "invalid_request"


class PolicyError(InvalidRequest):
    """A policy is wrong.

    Args:
        file: The policy's file as the caller knows it; empty when it has none.
        line: The line in the file, from 1; 0 when it is not known.
        key: The dotted path of the offending key; empty for the whole file.
    """

    code = "policy_error"

    def __init__(
        self, message: str, *, file: str = "", line: int = 0, key: str = "", remedy: str = ""
    ) -> None:
        place = f"{file}:{line}" if file and line else file
        where = ": ".join(part for part in (place, key) if part)
        sentence = message if message.endswith(".") else f"{message}."
        super().__init__(f"{where}: {sentence}" if where else sentence, remedy=remedy)
        self.file = file
        self.line = line
        self.key = key
        self.reason = message


class NotFound(SandboxError):
    """There is no such thing for this caller; a foreign and an absent one look the same."""

    code = "not_found"


class NotPermitted(SandboxError):
    """The policy or the token does not allow this."""

    code = "not_permitted"


class QuotaExceeded(SandboxError):
    """A limit of the policy is reached."""

    code = "quota_exceeded"


class Conflict(SandboxError):
    """The thing is in a state in which this cannot be done."""

    code = "conflict"


class FileError(SandboxError):
    """A file operation inside the sandbox failed.

    Args:
        reason: One of ``not_found``, ``exists``, ``is_directory``, ``not_a_directory``,
            ``not_a_file``, ``not_empty``, ``permission_denied``, ``read_only``, ``no_space``,
            ``too_large``, ``outside``, ``invalid_name``, ``not_text``, ``no_match``,
            ``many_matches``, ``io_error``.
    """

    code = "file_error"

    def __init__(self, reason: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class TooMuchWork(SandboxError):
    """Working on what a session or a caller sent took too long; it was stopped and set aside."""

    code = "too_much_work"


class ConfigError(SandboxError):
    """The controller's own configuration is wrong."""

    code = "config_error"


class InfrastructureError(SandboxError):
    """Our fault: never to be shown as the fault of the caller's code."""

    code = "infrastructure_error"


class EngineUnavailable(InfrastructureError):
    """The container engine does not answer."""

    code = "engine_unavailable"


class ImageMissing(InfrastructureError):
    """The policy's image is not on the engine."""

    code = "image_missing"


class PolicyNotEnforced(InfrastructureError):
    """The container did not match its spec, so it has been removed."""

    code = "policy_not_enforced"


class ProtocolError(InfrastructureError):
    """The other end of a link broke the protocol; the link is closed."""

    code = "protocol_error"


class LinkLost(InfrastructureError):
    """The link to the container ended."""

    code = "link_lost"


class SessionLost(InfrastructureError):
    """The session's container is gone, and with it everything that was in it."""

    code = "session_lost"
