"""Errors over REST: problem details (RFC 9457), one status for each kind of error."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse

from sandbox.errors import (
    Conflict,
    EngineUnavailable,
    FileError,
    ImageMissing,
    InfrastructureError,
    InvalidRequest,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    SandboxError,
    SessionLost,
    TooMuchWork,
)
from sandbox.server.grants import InsufficientScope
from sandbox.server.http.idempotency import KeyReused

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[SandboxError], int], ...] = (
    (KeyReused, 422),
    (InvalidRequest, 400),
    (NotFound, 404),
    (NotPermitted, 403),
    (QuotaExceeded, 429),
    (Conflict, 409),
    (TooMuchWork, 413),
    (EngineUnavailable, 503),
    (ImageMissing, 503),
    (SessionLost, 410),
    (InfrastructureError, 500),
)
_FILE_STATUS = {
    "not_found": 404,
    "exists": 409,
    "conflict": 409,
    "not_empty": 409,
    "permission_denied": 403,
    "read_only": 403,
    "outside": 403,
    "no_space": 507,
    "too_large": 413,
    "io_error": 500,
}


def status_of(error: SandboxError) -> int:
    """The HTTP status that says what kind of error it is."""
    if isinstance(error, FileError):
        return _FILE_STATUS.get(error.reason, 400)
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(
    status: int,
    detail: str,
    remedy: str = "",
    *,
    code: str = "",
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A response that says what is wrong and what to do about it."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    body |= {key: text for key, text in (("code", code), ("remedy", remedy)) if text}
    headers = {"X-Content-Type-Options": "nosniff", **(headers or {})}
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def problem_of(error: SandboxError) -> JSONResponse:
    """The response for an error of ours."""
    code = f"{error.code}.{error.reason}" if isinstance(error, FileError) else error.code
    headers = None
    if isinstance(error, InsufficientScope):
        headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{error.scope}"'}
    return problem(status_of(error), error.message, error.remedy, code=code, headers=headers)
