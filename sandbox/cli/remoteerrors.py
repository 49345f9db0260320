"""Errors of a served controller, as the errors that they were there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from sandbox.errors import FileError, InfrastructureError, SandboxError

MAX_TEXT = 4000


def error_of(told: Mapping[str, Any]) -> SandboxError:
    """The error of a code, a reason (of a file error), a message and a remedy."""
    message, remedy = _text(told.get("message")), _text(told.get("remedy"))
    code = told.get("code")
    if code == FileError.code:
        return FileError(_text(told.get("reason")), message, remedy=remedy)
    known: dict[str, type[SandboxError]] = {}
    for kind in _kinds(SandboxError):
        known.setdefault(kind.code, kind)  # those derived from it may want more to be made
    return known.get(str(code), InfrastructureError)(message, remedy=remedy)


def of_problem(told: object, otherwise: str) -> SandboxError:
    """The error of problem details (RFC 9457), which may be something else altogether.

    Args:
        told: As JSON was read, or the text of it.
        otherwise: The message when they say nothing.
    """
    if isinstance(told, bytes):
        try:
            told = cast(object, json.loads(told))
        except (ValueError, RecursionError):
            told = None
    found = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    code, _, reason = str(found.get("code", "")).partition(".")
    message, remedy = found.get("detail") or otherwise, found.get("remedy", "")
    return error_of({"code": code, "reason": reason, "message": message, "remedy": remedy})


def ended(reason: str) -> SandboxError:
    """The error of a connection that the server ended for a reason."""
    return InfrastructureError(f"The server ended the connection: {_text(reason)}")


def _text(value: object) -> str:
    return "".join(c for c in str(value or "")[:MAX_TEXT] if c.isprintable() or c == "\n")


def _kinds(kind: type[SandboxError]) -> Iterator[type[SandboxError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
