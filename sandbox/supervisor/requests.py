"""The fields of a request, checked, so that what is wrong is refused at once; and the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from sandbox.errors import InvalidRequest
from sandbox.link.stream import Stream

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


async def answer(stream: Stream, **fields: Any) -> None:
    """Send the one answer to a request."""
    await stream.send_json(fields)
    stream.end()


def identifier(request: Mapping[str, Any], name: str) -> str:
    """A field that names a kernel or terminal: letters, digits, ``_ . -``, 64 at most."""
    value = request.get(name)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidRequest(f"{name} must be 1 to 64 letters, digits, '_', '.' or '-'.")
    return value


def text(request: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A field that is text without NUL; refused when absent and there is no default."""
    value = request.get(name, default)
    if not isinstance(value, str) or "\0" in value:
        raise InvalidRequest(f"{name} must be text without NUL characters.")
    return value


def whole(request: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """A field that is a whole number from ``low`` to ``high``."""
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest(f"{name} must be a whole number from {low} to {high}.")
    return value


def flag(request: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """A field that is true or false; false when absent, unless the default is another."""
    value = request.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false.")
    return value


def strings(request: Mapping[str, Any], name: str) -> list[str] | None:
    """A field that is a list of texts, not empty; None when absent."""
    value = request.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"{name} must be a list of texts without NUL characters.")
    return [_argument(name, item) for item in cast("list[object]", value)]


def variables(request: Mapping[str, Any], name: str) -> dict[str, str]:
    """A field that maps names of environment variables to texts; empty when absent."""
    value: object = request.get(name) or {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must map names to texts.")
    pairs = cast("dict[str, object]", value)
    if any(not key or "=" in key or "\0" in key for key in pairs):
        raise InvalidRequest(f"{name} has a name that no variable can have.")
    return {key: _argument(name, item) for key, item in pairs.items()}


def _argument(name: str, value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise InvalidRequest(f"{name} must hold texts without NUL characters.")
    return value
