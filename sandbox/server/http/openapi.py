"""The table of operations as a document of OpenAPI 3.1.

FastAPI makes the document, and the schemas of the results from their models. What an operation
takes is what is checked of its arguments, so its schemas are put in as they are.

Source: https://spec.openapis.org/oas/v3.1.1.html.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response

from sandbox.server.auth import GUARDED
from sandbox.server.http.given import names_in
from sandbox.server.http.idempotency import MAX_KEY
from sandbox.server.http.operation import EVENTS, JSON, OCTETS, Operation, Schema
from sandbox.server.http.place import MADE, STARTED
from sandbox.server.problems import MEDIA_TYPE
from sandbox.server.scopes import SCOPES

VERSION = "1"
"""Of the API; that of the program is nobody's business who has no token."""
PROBLEM = "Problem"
BEARER = "token"
DESCRIPTION = (
    "Isolated containers with Jupyter kernels, terminals and files. Each operation needs a bearer "
    "token with the scope that is named at it; the policy of a session says which are allowed in "
    "it. Errors are problem details (RFC 9457) with a code and what to do."
)
REFUSALS = {
    400: "What was sent cannot be done as it stands.",
    401: "There is no valid bearer token.",
    403: "The policy or the token does not allow it.",
    404: "There is no such thing for this caller.",
    408: "The body did not come in time.",
    409: "The thing is in a state in which this cannot be done.",
    410: "The session is gone, with everything in it.",
    413: "The body is too large, or working on it took too long.",
    421: "The Host header names another server.",
    422: "The Idempotency-Key came with another request before.",
    429: "A limit is reached.",
    431: "The request has too many headers.",
    500: "The server's fault; its log has the details.",
    503: "The container engine does not answer.",
}
"""What any operation may answer instead of what it is for."""


class Problem(BaseModel):
    """What is wrong, and what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    code: str = ""
    """For programs, such as ``not_permitted``."""
    remedy: str = ""


def openapi_of(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document."""
    document = get_openapi(
        title="Sandbox",
        version=VERSION,
        description=DESCRIPTION,
        routes=[_route(each) for each in operations],
        separate_input_output_schemas=False,
    )
    components = document.setdefault("components", {})
    components["schemas"][PROBLEM] = Problem.model_json_schema()
    components["securitySchemes"] = {
        BEARER: {
            "type": "http",
            "scheme": "bearer",
            "description": "Scopes: " + "; ".join(f"{k}: {v}" for k, v in SCOPES.items()) + ".",
        }
    }
    return document


def _route(operation: Operation) -> APIRoute:
    http = operation.http
    return APIRoute(
        GUARDED + http.template,
        operation.answer,
        methods=[http.method],
        name=operation.name,
        operation_id=operation.name,
        summary=operation.title,
        description=f"{operation.description}\n\n{_needed(operation)}",
        tags=[tag_of(http.template)],
        response_model=None,
        status_code=http.status,
        response_class=Response,
        responses=_answers(operation),
        openapi_extra={
            "security": [{BEARER: [*operation.scopes]}],
            "parameters": _parameters(operation),
            **_body(operation),
        },
    )


def _needed(operation: Operation) -> str:
    named = " and ".join(f"`{scope}`" for scope in operation.scopes)
    return f"Scope: {named}." if len(operation.scopes) == 1 else f"Scopes: {named}."


def tag_of(path: str) -> str:
    """The kind of thing that a path is about."""
    nouns = [part for part in path.split("/") if not part.startswith("{")][1:]
    if nouns[0] == "admin":
        return "admin"
    if nouns[-1] in _OF_FILES:
        return "files"
    return next(noun for noun in reversed(nouns) if noun in _KINDS)


_KINDS = frozenset(
    (
        *("sessions", "executions", "kernels", "commands", "terminals", "files", "notebooks"),
        *("workspaces", "policies"),
    )
)
_OF_FILES = frozenset(("edit", "move", "stat"))


def _answers(operation: Operation) -> dict[int | str, dict[str, Any]]:
    http = operation.http
    good: dict[str, Any] = {"description": operation.title}
    if operation.result is not None:
        good["model"] = operation.result
    else:
        good["content"] = {media: _schema_of(media) for media in operation.media}
    if http.items:
        good["headers"] = {"Link": _header("Where the next page is, as rel=next (RFC 8288).")}
    located = {"Location": _header("Where what was made, or goes on, is.")} if http.location else {}
    if located and http.status == MADE:
        good["headers"] = located
    found: dict[int | str, dict[str, Any]] = {http.status: good}
    for status, said in operation.statuses.items():
        found[status] = {**good, "description": said} if status < 300 else _refusal(said)
        if located and status == STARTED:
            found[status]["headers"] = located
        if status in (204, 304):
            found[status] = {"description": said}
    for status, said in REFUSALS.items():
        found.setdefault(status, _refusal(said))
    if operation.events:
        found[http.status]["content"] = {EVENTS: {}}
    return found


def _schema_of(media: str) -> dict[str, Any]:
    return {"schema": {}} if media == JSON else {}


def _header(said: str) -> dict[str, Any]:
    return {"description": said, "schema": {"type": "string"}}


def _refusal(said: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{PROBLEM}"}
    return {"description": said, "content": {MEDIA_TYPE: {"schema": schema}}}


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    http = operation.http
    in_path = names_in(http.path)
    asked = http.query if http.has_body else [n for n in operation.arguments if n not in in_path]
    found = [
        _parameter("path", name, operation.arguments.get(name, {"type": "string"}), True)
        for name in in_path
    ]
    found += [
        _parameter("query", name, operation.arguments[name], name in operation.required)
        for name in asked
    ]
    headers = dict(operation.headers)
    if http.method == "POST":
        headers["Idempotency-Key"] = (
            f"1 to {MAX_KEY} characters of your own. The same request with the same key is done "
            "once and answered as before, for a day, unless the server was started again."
        )
    return [
        *found,
        *(
            {"in": "header", "name": name, "description": said, "schema": {"type": "string"}}
            for name, said in headers.items()
        ),
    ]


def _parameter(place: str, name: str, schema: Schema, required: bool) -> dict[str, Any]:
    told = _told(schema)
    said = told.pop("description", "")
    if place == "path":
        told.pop("default", None)
        told = {"minLength": 1, **told}
    return {
        "in": place,
        "name": name,
        "required": required or place == "path",
        "schema": told,
        **({"description": said} if said else {}),
    }


def _told(schema: Schema) -> dict[str, Any]:
    """A schema without a name that says nothing, and a default that is none."""
    return {
        key: value
        for key, value in schema.items()
        if key != "title" and (key, value) != ("default", None)
    }


def _body(operation: Operation) -> dict[str, Any]:
    http = operation.http
    if http.is_bytes:
        return {"requestBody": {"required": True, "content": {OCTETS: {}}}}
    if not http.has_body:
        return {}
    in_path = names_in(http.path)
    fields = {
        name: _told(schema) for name, schema in operation.arguments.items() if name not in in_path
    }
    required = [name for name in fields if name in operation.required]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": fields,
        "additionalProperties": False,
    }
    if required:
        schema["required"] = required
    return {"requestBody": {"required": bool(required), "content": {JSON: {"schema": schema}}}}
