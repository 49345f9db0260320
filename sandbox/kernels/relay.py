"""What a kernel says as one client hears it: all of it, with the headers of its own requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sandbox.kernels.answers import size_of
from sandbox.kernels.events import LoggedMessage
from sandbox.kernels.jupytermessages import JupyterMessage, answer
from sandbox.kernels.kernel import Kernel
from sandbox.kernels.messages import MAX_HEADER, SET_ASIDE, made_header
from sandbox.link import wire

MAX_OWED = 1024
_UNSUPPORTED = frozenset(("kernel subshells",))
"""Features that kernels offer and a conversation does not carry."""


@dataclass(slots=True)
class Owed:
    """What a request of the client's has not been answered with yet."""

    request: JupyterMessage
    is_replied: bool = False
    is_idle: bool = False
    cells_then: int | None = None
    """How many cells the client had sent when it was told the reply."""


class Relay:
    """Translates what one kernel says for one client.

    Args:
        client: Who is given the replies to its own requests, and no others.
        is_cell: Whether an execution of the session has an id.
    """

    def __init__(self, kernel: Kernel, client: str, is_cell: Callable[[str], bool]) -> None:
        self.owed: OrderedDict[str, Owed] = OrderedDict()
        """The client's open requests, by the id that the kernel knows them by."""
        self.asking: tuple[str, str] | None = None
        """The cell that asks the client for input, and the id of its question."""
        self.cells_sent = 0
        """How many cells the client has sent so far."""
        self.cells_at_end: int | None = None
        """How many those were when it was told of the end of the kernel's process."""
        self._kernel = kernel
        self._client = client
        self._is_cell = is_cell
        self._epoch = max(kernel.epoch, 1)

    @property
    def session(self) -> str:
        """Names the kernel's process in the headers of what it says."""
        return self.session_of(self._epoch)

    def session_of(self, epoch: int) -> str:
        """The same of one start of the kernel."""
        return f"{self._kernel.kernel_id}-{epoch}"

    @property
    def open_questions(self) -> int:
        """The requests that the kernel has not come to the end of: some it never answers."""
        return sum(not owed.is_idle for owed in self.owed.values())

    def translated(self, message: LoggedMessage) -> Iterator[JupyterMessage]:
        """What the client is told of a message: most often that message."""
        if message.channel == "event":
            yield from self._event(message)
            return
        if not message.msg_type:
            return
        origin = self._kernel.origins.get(message.parent_id)
        is_own = origin is not None and origin.client == self._client
        if message.channel != "iopub" and not is_own:
            return
        if origin is None and message.msg_type == "status" and not self._is_cell(message.parent_id):
            return  # the answer to a question of ours says nothing to a client
        if is_own:
            self._settle(message)
        content_json = message.content_json
        if is_own and message.msg_type == "kernel_info_reply" and _is_short(message):
            content_json = wire.encode_json(described(message.content))
        yield JupyterMessage(
            message.channel,
            made_header(message.msg_type, self.session_of(message.epoch), message.msg_id),
            origin.header if origin is not None else self._nobodys(message.parent_id),
            content_json,
            message.metadata_json,
            message.buffers,
        )

    def owe(self, msg_id: str, request: JupyterMessage) -> None:
        """Expect answers to a request; of those that never came the oldest is forgotten."""
        self.owed[msg_id] = Owed(request)
        if len(self.owed) > MAX_OWED:
            self.owed.popitem(last=False)

    def forget_questions(self) -> list[Owed]:
        """Wait for no answer any more but to cells, whose end is known in any case."""
        open_ones = [
            msg_id
            for msg_id, owed in self.owed.items()
            if owed.request.msg_type != "execute_request"
        ]
        return [self.owed.pop(msg_id) for msg_id in open_ones]

    def parent_of(self, msg_id: str) -> Mapping[str, Any]:
        """The header of the request that the kernel knows by an id."""
        origin = self._kernel.origins.get(msg_id)
        return origin.header if origin is not None else self._nobodys(msg_id)

    def status(self, state: str, parent: Mapping[str, Any] | None = None) -> JupyterMessage:
        """A message of ours that says how the kernel stands."""
        return answer("iopub", "status", {"execution_state": state}, parent or {}, self.session)

    def note(self, text: str, parent: Mapping[str, Any]) -> JupyterMessage:
        """A message of ours to whoever looks at a cell."""
        told = {"name": "stderr", "text": f"[sandbox] {text}\n"}
        return answer("iopub", "stream", told, parent, self.session)

    def reply(self, request: JupyterMessage, content: Mapping[str, Any]) -> JupyterMessage:
        """A reply of ours."""
        kind = request.msg_type.removesuffix("_request") + "_reply"
        return answer(request.channel, kind, content, request.header, self.session)

    # --- inside

    def _settle(self, message: LoggedMessage) -> None:
        """Note what of an own request is answered with this."""
        owed = self.owed.get(message.parent_id)
        if owed is None:
            return
        if message.channel == "stdin":
            if message.msg_type == "input_request":
                self.asking = message.parent_id, message.msg_id
        elif message.channel != "iopub":
            owed.is_replied, owed.cells_then = True, self.cells_sent
        elif message.msg_type == "status" and _is_short(message):
            owed.is_idle |= message.content.get("execution_state") == "idle"
        if owed.is_replied and owed.is_idle and owed.request.msg_type != "execute_request":
            del self.owed[message.parent_id]
        elif owed.is_idle and not owed.request.msg_type.endswith("_request"):
            del self.owed[message.parent_id]  # to a comm's message there is no reply

    def _event(self, event: LoggedMessage) -> Iterator[JupyterMessage]:
        parent = self.parent_of(event.parent_id)
        match event.msg_type:
            case "exited" if event.epoch == self._epoch:
                yield from self._given_up()
                if event.content.get("killed_by_us") is not True:
                    yield self.status("dead")
            case "started" if event.epoch > self._epoch:
                yield from self._given_up()
                yield self.status("restarting")
                self._epoch = event.epoch
                yield self.status("starting")
            case "dropped":
                yield self.note("Output was lost while nobody could read it.", parent)
            case "oversize":
                size = size_of(event.content)
                yield self.note(f"A message of {size:,} bytes was too large to be sent.", parent)
            case _ if event.msg_type == SET_ASIDE:
                yield self.note("A message took the controller too long to read.", parent)
            case _:
                pass

    def _given_up(self) -> Iterator[JupyterMessage]:
        """What a kernel's process that has ended leaves unanswered."""
        if self.cells_at_end is None:
            self.cells_at_end = self.cells_sent
        for owed in self.forget_questions():
            if not owed.is_replied and owed.request.msg_type.endswith("_request"):
                told = {"status": "error", "ename": "KernelEnded", "traceback": list[str]()}
                yield self.reply(owed.request, {**told, "evalue": "The kernel has ended."})
            yield self.status("idle", owed.request.header)

    def _nobodys(self, msg_id: str) -> Mapping[str, Any]:
        """The header of a request that none of those who converse with the kernel has sent: most
        often a cell of the agent's."""
        if not msg_id:
            return {}
        kind = "execute_request"
        return made_header(kind, f"{self._kernel.kernel_id}-sandbox", msg_id, "sandbox")


def _is_short(message: LoggedMessage) -> bool:
    """Whether it is as long as what kernels say of themselves. Longer ones are passed on only,
    since the conversation of each client would read them anew."""
    return len(message.content_json) <= MAX_HEADER


def described(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a kernel says of itself, without what cannot be used over a conversation."""
    features = content.get("supported_features")
    if not isinstance(features, list):
        return dict(content)
    offered = cast("list[Any]", features)
    kept = [each for each in offered if isinstance(each, str) and each not in _UNSUPPORTED]
    return {**content, "supported_features": kept}
