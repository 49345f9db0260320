"""Cells run over a channel to a kernel: their outputs put together again as they change."""

from __future__ import annotations

from typing import Any, cast

from pydantic import ValidationError

from sandbox.cli.printing import Printer
from sandbox.cli.sessionaccess import heard
from sandbox.errors import Conflict, ProtocolError
from sandbox.kernels.models import Completeness, Completion, ExecutionResult
from sandbox.server.channels.channel import Channel

MAX_OUTPUTS = 100_000


async def run_cell(
    channel: Channel, code: str, printer: Printer | None, timeout_s: float = 0
) -> ExecutionResult:
    """Run a cell, print what comes of it, and return how it ended.

    Args:
        printer: Prints its outputs; None for nobody.

    Raises:
        Conflict: The kernel is dead, or does not take it.
    """
    await channel.send({"execute": code, "timeout_s": float(timeout_s)})
    outputs: list[dict[str, Any]] = []
    while True:
        message = await _told(channel)
        if "output" in message:
            _change(outputs, message)
            if printer is not None:
                printer.show(outputs)
        elif "result" in message:
            del outputs[_count(message.get("outputs"), len(outputs)) :]
            try:
                result = ExecutionResult.model_validate(message["result"])
            except ValidationError as exc:
                raise ProtocolError("The server did not say how the cell ended.") from exc
            return result.model_copy(update={"outputs": outputs})


async def complete(channel: Channel, code: str) -> Completion:
    """What can stand at the end of code."""
    await channel.send({"complete": code})
    message = await _told(channel)
    return Completion.model_validate(message.get("completion") or {})


async def check(channel: Channel, code: str) -> Completeness:
    """Whether code is a whole cell."""
    await channel.send({"check": code})
    message = await _told(channel)
    return Completeness.model_validate(message.get("completeness") or {"status": "unknown"})


async def _told(channel: Channel) -> dict[str, Any]:
    message = await heard(channel, alive={})
    if isinstance(message, bytes):
        raise ProtocolError("Bytes came where the server answers about cells.")
    if "refused" in message:
        raise Conflict(str(message["refused"]), remedy=str(message.get("remedy", "")))
    return message


def _change(outputs: list[dict[str, Any]], message: dict[str, Any]) -> None:
    index, value, more = message["output"], message.get("value"), message.get("more")
    if type(index) is not int or not 0 <= index <= min(len(outputs), MAX_OUTPUTS):
        raise ProtocolError("The server told of an output out of turn.")
    if isinstance(more, str) and index < len(outputs):
        outputs[index] = {**outputs[index], "text": str(outputs[index].get("text", "")) + more}
    elif isinstance(value, dict):
        outputs[index : index + 1] = [cast("dict[str, Any]", value)]
    else:
        raise ProtocolError("The server told of an output that is none.")


def _count(told: object, most: int) -> int:
    return told if type(told) is int and 0 <= told <= most else most
