"""What a controller and a broker say to each other: one line of JSON each way, both bounded.

A connection carries one request and its answer, ``{"ok": …}`` or ``{"error": {…}}``. After a
``connect`` that went well it is the byte stream of the container's bridge. Those bytes begin with a
link's HELLO; where the bridge could not be started, another error stands in their place.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from sandbox.container.spec import ContainerSpec
from sandbox.errors import (
    Conflict,
    EngineUnavailable,
    ImageMissing,
    InfrastructureError,
    InvalidRequest,
    NotPermitted,
    PolicyNotEnforced,
    ProtocolError,
    QuotaExceeded,
    SandboxError,
    SessionLost,
)
from sandbox.link.link import printable
from sandbox.values import Frozen

MAX_REQUEST_BYTES = 256 * 1024
MAX_ANSWER_BYTES = 32 * 1024 * 1024
READ_SIZE = 256 * 1024
END = b"\n"
ERROR_BEGINS = b"{"
"""The first byte of an error where bytes of a link were due, whose own first byte is 0."""

MAX_LABELS = 16
MAX_MESSAGE = 4000

ContainerId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""An engine's full id: never a name or the beginning of an id."""
Label = Annotated[str, StringConstraints(max_length=256)]


class Engine(Frozen):
    """What the engine is."""

    op: Literal["engine"] = "engine"


class Image(Frozen):
    """Whether the engine has one of the images that policies name."""

    op: Literal["image"] = "image"
    reference: Label


class Create(Frozen):
    """Create a container; the broker compiles the spec itself and wants the same."""

    op: Literal["create"] = "create"
    spec: ContainerSpec


class List(Frozen):
    """The broker's containers that carry these labels."""

    op: Literal["list"] = "list"
    labels: Annotated[dict[Label, Label], Field(max_length=MAX_LABELS)]


class OfContainer(Frozen):
    """Something to be done with one container."""

    op: Literal["start", "pause", "unpause", "connect", "inspect", "remove", "stats"]
    container: ContainerId


Request = Annotated[
    Engine | Image | Create | List | OfContainer,
    Field(discriminator="op"),
]


class Failure(Frozen):
    """An error on its way: its class by its code, what happened, and what to do about it."""

    code: str
    message: str
    remedy: str = ""


class Answer(Frozen):
    """An answer: an error, or else what was asked for."""

    ok: Any = None
    error: Failure | None = None


_requests: TypeAdapter[Request] = TypeAdapter(Request)
_ERRORS: dict[str, type[SandboxError]] = {
    kind.code: kind
    for kind in (
        *(InvalidRequest, NotPermitted, QuotaExceeded, Conflict, EngineUnavailable, ImageMissing),
        *(PolicyNotEnforced, ProtocolError, SessionLost),
    )
}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once for each kind: making it takes longer than most calls."""
    return TypeAdapter(kind)


def encode_request(request: Request) -> bytes:
    """A request as a line."""
    return request.model_dump_json().encode() + END


def decode_request(line: bytes) -> Request:
    """The request in a line, without its end.

    Raises:
        InvalidRequest: It is none; the message says where.
    """
    try:
        return _requests.validate_json(line)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(
            f"This is no request to a broker: {printable(where, 200)}: {first['msg'][:200]}.",
            remedy="Run the controller and the broker from the same version.",
        ) from exc


def encode_answer(kind: Any, value: object) -> bytes:
    """What was asked for as a line."""
    return b'{"ok":' + _adapter(kind).dump_json(value) + b"}" + END


def encode_error(error: SandboxError) -> bytes:
    """An error as a line."""
    failure = Failure(
        code=error.code,
        message=printable(error.message, MAX_MESSAGE),
        remedy=printable(error.remedy, MAX_MESSAGE),
    )
    return Answer(error=failure).model_dump_json(exclude={"ok"}).encode() + END


def decode_answer(kind: Any, line: bytes) -> Any:
    """What was asked for, from a line without its end.

    Raises:
        SandboxError: What the broker refused with.
        ProtocolError: It is not an answer of that kind.
    """
    try:
        answer = Answer.model_validate_json(line)
        if answer.error is None:
            return _adapter(kind).validate_python(answer.ok)
    except ValidationError as exc:
        raise ProtocolError("The engine broker's answer is not of its protocol.") from exc
    failure = answer.error
    made = _ERRORS.get(failure.code, InfrastructureError)
    raise made(printable(failure.message, MAX_MESSAGE), remedy=printable(failure.remedy))
