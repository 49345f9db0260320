"""What a request gives: the parts of its path, its query, and the JSON object in its body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from pydantic_core import from_json
from starlette.requests import Request

from sandbox.bulkheads.bulkhead import Section
from sandbox.errors import InvalidRequest
from sandbox.server.http.place import Http
from sandbox.server.wording import printable, unknown

_NAME = re.compile(r"{(\w+)")


def names_in(path: str) -> tuple[str, ...]:
    """The arguments that a path names."""
    return tuple(_NAME.findall(path))


def given_by(
    request: Request, http: Http, taken: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The arguments of a request, not yet looked at beyond their names.

    Args:
        taken: What may be given, in JSON Schema; of those in the path only what is taken counts.

    Raises:
        InvalidRequest: The body is no JSON object, or something is given twice or unknown.
    """
    named = {name: request.path_params[name] for name in names_in(http.path) if name in taken}
    elsewhere = [name for name in taken if name not in named]
    asked = http.query if http.has_body else elsewhere
    query = _query(request, {name: taken[name] for name in asked})
    body = _object(request) if http.has_body else {}
    for name in body:
        if name not in elsewhere:
            raise _strange(name, elsewhere)
        if name in query:
            raise InvalidRequest(f"{name} is in the query and in the body: give it once.")
    return {**query, **body, **named}


def _query(request: Request, taken: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name not in taken:
            raise _strange(name, list(taken))
        if taken[name].get("type") == "array":
            found.setdefault(name, []).append(value)
        elif name in found:
            raise InvalidRequest(f"{name} is given more than once.")
        else:
            found[name] = value
    return found


def _strange(name: str, known: list[str]) -> InvalidRequest:
    if known:
        return InvalidRequest(unknown(name, known))
    return InvalidRequest(f"{printable(name)}: nothing is taken here beside what the path says.")


def _object(request: Request) -> dict[str, Any]:
    """The JSON object in the body that was taken in; an empty one where there is none."""
    data: bytes = request.state.body
    if not data.strip():
        return {}
    try:
        with Section("a request"):
            found: object = from_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError as exc:
        raise InvalidRequest(f"The body is no JSON: {printable(str(exc))}.") from exc
    if not isinstance(found, dict):
        raise InvalidRequest("The body must be an object, with the arguments by their names.")
    return cast("dict[str, Any]", found)
