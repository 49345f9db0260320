"""One operation over HTTP, and how those are declared that are no tool.

A tool declares its place with ``@tool(…, http=Http(…))``. What has no tool of its own, such as a
file streamed as it is, is a method of an :class:`EndpointGroup` with ``@endpoint``. Routes, OpenAPI
and the pages to read are made of the operations of both.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from sandbox.errors import InvalidRequest, NotFound
from sandbox.server.desk import Desk, caller_of_request, permit_unasked
from sandbox.server.grants import Grant
from sandbox.server.http.given import given_by
from sandbox.server.http.place import Http
from sandbox.server.scopes import scopes_of
from sandbox.server.tool import StrictTool
from sandbox.server.wording import problem
from sandbox.sessions.session import Session
from sandbox.values import Frozen

Answer = Callable[[Request], Awaitable[Response]]
Schema = Mapping[str, Any]
_Method = TypeVar("_Method", bound=Callable[..., Awaitable[Response]])

JSON = "application/json"
OCTETS = "application/octet-stream"
EVENTS = "text/event-stream"
MAX_PROBLEMS = 8


class NoArguments(Frozen):
    """What is asked for without saying anything."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What may be asked for at one path with one method."""

    name: str
    title: str
    description: str
    http: Http
    tool: str
    """The tool whose rights it needs; empty where a scope alone says it."""
    scope: str
    """That it needs where there is no such tool."""
    answer: Answer
    arguments: Mapping[str, Schema]
    """All that it takes, those in the path among them, in JSON Schema."""
    required: frozenset[str] = frozenset()
    result: type[BaseModel] | None = None
    """The model of its answer in JSON."""
    media: tuple[str, ...] = (JSON,)
    """The types that its answer may be of."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Headers that it looks at, and what each is for."""
    events: bool = False
    """Whether it answers with server-sent events where those are accepted."""
    statuses: Mapping[int, str] = field(default_factory=dict[int, str])
    """What else it may answer that is no error of everybody's."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """That the token needs."""
        return scopes_of(self.tool) if self.tool else (self.scope,)

    def require(self, grant: Grant) -> None:
        """Refuse a token that may not be used for it.

        Raises:
            InsufficientScope: It may not.
        """
        if self.tool:
            grant.require(self.tool)
        else:
            grant.require_beyond_one_notebook(self.scope, self.name)


@dataclass(frozen=True, slots=True)
class _Declared:
    title: str
    http: Http
    tool: str
    scope: str
    arguments: type[BaseModel]
    more: Mapping[str, Any]


_declared: dict[object, _Declared] = {}


def endpoint(
    title: str,
    http: Http,
    *,
    tool: str = "",
    scope: str = "",
    arguments: type[BaseModel] = NoArguments,
    **more: Any,
) -> Callable[[_Method], _Method]:
    """Make a method of an :class:`EndpointGroup` an operation that is over HTTP only.

    It is called with the request and what that asks for; its docstring tells people what it does.

    Args:
        tool: The tool that does the same as far as rights go; the scopes are those of the tool.
        scope: That the token needs, where no tool is like it.
        arguments: What it takes beside what its path names.
        more: The other fields of :class:`Operation`.
    """

    def declare(method: _Method) -> _Method:
        _declared[method] = _Declared(title, http, tool, scope, arguments, more)
        return method

    return declare


class EndpointGroup:
    """Operations over a desk's sessions that are no tools: its methods with a title."""

    def __init__(self, desk: Desk, tools: Mapping[str, StrictTool]) -> None:
        self._desk = desk
        self._tools = tools
        self._manager = desk.manager

    def operations(self) -> list[Operation]:
        """The operations, in the order of the methods."""
        return [
            _operation(getattr(self, name), _declared[value])
            for name, value in vars(type(self)).items()
            if inspect.isfunction(value) and value in _declared
        ]

    async def _session(self, request: Request, *tools: str) -> Session:
        """The session in the path, whose policy allows these tools; a default one is never opened.

        Raises:
            NotFound, NotPermitted: There is none, or it does not.
        """
        caller = caller_of_request(request)
        session = await self._manager.get(caller, request.path_params["session_id"])
        for tool in tools:
            permit_unasked(session.policy, tool)
        return session

    def _check(self, request: Request, session_id: str, *tools: str) -> None:
        """Refuse what is of another session than the path says, or what its policy refuses; also
        some time after its end.

        Raises:
            NotFound, NotPermitted: It is so.
        """
        if session_id != request.path_params["session_id"]:
            raise NotFound("There is nothing of that id in this session.")
        policy = self._desk.policy_of(caller_of_request(request), session_id)
        for tool in tools:
            permit_unasked(policy, tool)


def _operation(method: Any, declared: _Declared) -> Operation:
    schema = declared.arguments.model_json_schema()
    schemas: dict[str, Schema] = schema.get("properties", {})

    async def answer(request: Request) -> Response:
        given = given_by(request, declared.http, schemas)
        return await method(request, _validated(declared.arguments, given, schemas))

    return Operation(
        name=method.__name__,
        title=declared.title,
        description=" ".join((inspect.getdoc(method) or "").split()),
        http=declared.http,
        tool=declared.tool,
        scope=declared.scope,
        answer=answer,
        arguments=schemas,
        required=frozenset(schema.get("required", ())),
        **declared.more,
    )


def _validated(model: type[BaseModel], given: Schema, schemas: Mapping[str, Schema]) -> BaseModel:
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False)
        raise InvalidRequest(
            "; ".join(problem(error, schemas) for error in errors[:MAX_PROBLEMS]) + "."
        ) from exc
