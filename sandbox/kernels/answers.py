"""What supervisors and kernels answer, checked before anybody believes it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from sandbox.errors import InfrastructureError, ProtocolError
from sandbox.kernels.models import Completion, Inspection, KernelSpec
from sandbox.plaintext import clip, plain

KERNEL_ID = r"^k-[a-z0-9]{1,32}$"
KERNEL_NAME = r"^[A-Za-z0-9._-]{1,100}$"
MAX_LISTED = 256
MAX_MATCHES = 500
MAX_MATCH = 1000

_Model = TypeVar("_Model", bound=BaseModel)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Listed(_Answer):
    """A kernel as the supervisor lists it."""

    kernel_id: Annotated[str, StringConstraints(pattern=KERNEL_ID)]
    name: Annotated[str, StringConstraints(pattern=KERNEL_NAME)]
    epoch: Annotated[int, Field(gt=0, lt=2**31)]
    alive: bool
    last_seq: Annotated[int, Field(ge=0, lt=2**63)]


class Listing(_Answer):
    """The answer to ``kernel.list``."""

    kernels: Annotated[list[Listed], Field(max_length=MAX_LISTED)]


class Info(_Answer):
    """The part of the answer to ``info`` that is about kernels."""

    kernelspecs: Annotated[
        dict[Annotated[str, StringConstraints(pattern=KERNEL_NAME)], KernelSpec],
        Field(max_length=MAX_LISTED),
    ]


def parse(model: type[_Model], answer: dict[str, Any]) -> _Model:
    """Make a model of an answer.

    Raises:
        ProtocolError: It does not fit.
    """
    try:
        return model.model_validate(answer)
    except ValidationError as exc:
        raise ProtocolError(f"The supervisor's {model.__name__.lower()} makes no sense.") from exc


def epoch_of(answer: Mapping[str, Any]) -> int:
    """The epoch in the answer to a start or restart."""
    epoch = answer.get("epoch")
    if type(epoch) is not int or not 0 < epoch < 2**31:
        raise InfrastructureError("The supervisor did not say which epoch the kernel is in.")
    return epoch


def size_of(event: Mapping[str, Any]) -> int:
    """The bytes that an event speaks of; 0 when it does not say."""
    size = event.get("bytes")
    return size if type(size) is int and 0 <= size < 2**50 else 0


def cause_of(event: Mapping[str, Any], *, is_oom: bool) -> str:
    """Why a kernel has exited, in words."""
    if is_oom:
        return "It was killed because the sandbox ran out of memory."
    number, exit_code = event.get("signal"), event.get("exit_code")
    if type(number) is int and 0 < number < 65:
        names = {known.value: known.name for known in signal.Signals}
        return f"It was ended by {names.get(number, f'signal {number}')}."
    if type(exit_code) is int:
        return f"It exited with code {exit_code & 0xFF}."
    return "Its process is gone, for a reason that is not known."


def completion(reply: Mapping[str, Any], size: int, position: int) -> Completion:
    """Read a ``complete_reply``.

    Args:
        reply: Its content.
        size: The length of the code, in characters.
        position: The cursor's.
    """
    raw = reply.get("matches")
    matches = cast("list[Any]", raw)[:MAX_MATCHES] if isinstance(raw, list) else []
    texts = [plain(match[:MAX_MATCH]) for match in matches if isinstance(match, str)]
    start, end = (
        at if type(at) is int and 0 <= at <= size else position
        for at in (reply.get("cursor_start"), reply.get("cursor_end"))
    )
    return Completion(matches=texts, cursor_start=min(start, end), cursor_end=end)


def inspection(reply: Mapping[str, Any], limit_bytes: int) -> Inspection:
    """Read an ``inspect_reply``, of which ``limit_bytes`` of text are kept."""
    data = reply.get("data")
    text = cast("dict[str, Any]", data).get("text/plain") if isinstance(data, dict) else None
    shown = clip(plain(clip(text, 2 * limit_bytes)), limit_bytes) if isinstance(text, str) else ""
    return Inspection(found=reply.get("found") is True, text=shown)
