"""Two kernels asked the same: ours, and an ordinary ipykernel; and what each said, made comparable.

The ordinary one is started by a kernelspec, as any kernel of another language is, so both are asked
through the same supervisor, in the same container.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from sandbox.link import wire
from sandbox.link.link import Link

BARE = "bare"
KERNELSPEC = {
    "argv": ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "ipykernel itself",
    "language": "python",
}
KERNELSPEC_FILE = f".local/share/jupyter/kernels/{BARE}/kernel.json"
ANSWER_S = 90
SETTLE_S = 10
"""For what has to come after the end of a cell."""
_NO_REPLY = {"comm_open", "comm_msg", "comm_close"}

Transcript = dict[str, list[dict[str, Any]]]
"""The messages that answer one request, by channel, in their order."""


@dataclass(frozen=True)
class Case:
    """One request to a kernel, a cell unless it says otherwise."""

    name: str
    code: str = ""
    request: str = "execute_request"
    content: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What its content has besides, or instead."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    buffers: tuple[bytes, ...] = ()
    channel: str = "shell"
    until: str = ""
    """What its streams say in the end, though its reply may come before."""
    interrupt_at: str = ""
    """What its streams say before it is interrupted."""
    answer: str | None = None
    """What is answered when it asks."""
    is_measured: bool = False
    """Whether the numbers in its answer are what is measured."""
    queued: tuple[str, ...] = ()
    """Cells sent in the same moment; each has a transcript of its own: ``name+1``."""

    def full_content(self) -> dict[str, Any]:
        """The content of its message."""
        if self.request != "execute_request":
            return dict(self.content)
        usual = {"silent": False, "store_history": True, "user_expressions": {}}
        usual |= {"allow_stdin": self.answer is not None, "stop_on_error": True}
        return {"code": self.code, **usual, **self.content}


class Asked:
    """One kernel, attached to, and all that it has said."""

    def __init__(self, link: Link, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        self._link = link
        self._stream = link.open("kernel.attach", kernel_id=kernel_id)
        self._heard: dict[str, list[dict[str, Any]]] = {}
        """By the id of what was asked."""
        self._unacknowledged = 0

    async def ask(self, cases: Iterable[Case]) -> dict[str, Transcript]:
        """Ask one after the other; what each was answered in the end, by its name."""
        names: dict[str, str] = {}
        measured: set[str] = set()
        for case in cases:
            measured |= {case.name} if case.is_measured else set()
            with anyio.move_on_after(ANSWER_S) as scope:
                names |= await self._ask(case)
            assert not scope.cancelled_caught, f"{self.kernel_id} does not answer {case.name!r}"
        found = {name: _transcript(self._heard.get(key, [])) for key, name in names.items()}
        return {name: without_numbers(t) if name in measured else t for name, t in found.items()}

    async def _ask(self, case: Case) -> dict[str, str]:
        key = await self._send(case)
        names = {key: case.name}
        for number, code in enumerate(case.queued, 1):
            names[await self._send(Case("", code))] = f"{case.name}+{number}"
        if case.interrupt_at:
            await self._said(key, case.interrupt_at)
            await self._link.call("kernel.interrupt", kernel_id=self.kernel_id)
        if case.answer is not None:
            while not any(each["type"] == "input_request" for each in self._heard.get(key, [])):
                await self._hear()
            await self._send(Case("", request="input_reply", content={"value": case.answer}), key)
        for each in names:
            while not self._is_over(each, has_reply=case.request not in _NO_REPLY):
                await self._hear()
        if case.until:
            with anyio.move_on_after(SETTLE_S):  # what is missing then, the comparison shows
                await self._said(key, case.until)
        return names

    async def _send(self, case: Case, parent: str = "") -> str:
        key = uuid.uuid4().hex
        header = {"msg_id": key, "msg_type": case.request, "session": "reference"}
        header |= {"username": "somebody", "date": "2026-01-01T00:00:00Z", "version": "5.3"}
        above = {"msg_id": parent} if parent else {}
        parts = (header, above, dict(case.metadata), case.full_content())
        channel = "stdin" if case.request == "input_reply" else case.channel
        head = json.dumps({"channel": channel}).encode()
        raw = [b"", *(json.dumps(part).encode() for part in parts), *case.buffers]
        await self._stream.send(wire.pack_parts([head, *raw]), wire.KERNEL)
        return key

    async def _said(self, key: str, text: str) -> None:
        while text not in "".join(
            str(each["content"].get("text") or each["content"].get("data"))
            for each in self._heard.get(key, [])
        ):
            await self._hear()

    def _is_over(self, key: str, *, has_reply: bool) -> bool:
        heard = self._heard.get(key, [])
        idle = any(each["content"].get("execution_state") == "idle" for each in heard)
        replied = any(each["channel"] in ("shell", "control") for each in heard)
        return idle and (replied or not has_reply)

    async def _hear(self) -> None:
        message = await self._stream.receive()
        assert message is not None, "the supervisor ended the stream"
        raw, *parts = wire.unpack_parts(message.data)
        head = json.loads(raw)
        self._unacknowledged += len(message.data)
        if self._unacknowledged > 1024 * 1024:
            self._unacknowledged = 0
            await self._stream.send_json({"ack": head["seq"]})
        if head["channel"] == "event":
            event = json.loads(parts[0])
            assert event["event"] != "exited", event
            return
        _signature, header, parent, metadata, content, *buffers = parts
        header, parent = json.loads(header), json.loads(parent)
        self._heard.setdefault(str(parent.get("msg_id")), []).append(
            {
                "channel": head["channel"],
                "type": header["msg_type"],
                "version": header["version"],
                "parent": {key: parent.get(key) for key in ("msg_type", "session", "username")},
                "metadata": json.loads(metadata),
                "content": json.loads(content),
                "buffers": [buffer.hex() for buffer in buffers],
            }
        )


def _transcript(heard: list[dict[str, Any]]) -> Transcript:
    """What was heard, by channel: in one message what came in pieces, and without accidents."""
    found: Transcript = {}
    for each in heard:
        channel = found.setdefault(str(each["channel"]), [])
        before = channel[-1] if channel else None
        if before is not None and _go_together(before, each):
            text = before["content"]["text"] + each["content"]["text"]
            channel[-1] = {**before, "content": {**each["content"], "text": text}}
        else:
            channel.append({key: value for key, value in each.items() if key != "channel"})
    return {channel: [plain(each) for each in messages] for channel, messages in found.items()}


def _go_together(one: dict[str, Any], other: dict[str, Any]) -> bool:
    names = [each["content"].get("name") for each in (one, other)]
    return one["type"] == other["type"] == "stream" and names[0] == names[1]


_ACCIDENTS = (
    (re.compile(r"0x[0-9a-f]{6,16}"), "0xADDRESS"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{24,32}_\d+_\d+\b"), "MESSAGE"),
    (re.compile(r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "ID"),
    (re.compile(r"/tmp/ipykernel_\d+/\d+\.py"), "/tmp/ipykernel_PID/CELL.py"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?"), "DATE"),
    (re.compile(r"\b\d+(\.\d+)?(e[+-]?\d+)? ?(ns|[µμ]s|us|ms|s)\b( per loop)?"), "TIME"),
    (re.compile(r"\d+\.\d+ seconds"), "TIME"),
    (re.compile(r"datetime\.datetime\([^()]*\)"), "DATE"),
    (re.compile(r"Thread-\d+"), "Thread-N"),
    (re.compile(r"\nTip: .*"), "\nTip: TIP"),
    (re.compile(r"(?<=[/\b])(ours|bare)\b"), "FOLDER"),
)
"""What differs between two runs of one and the same kernel."""


def plain(value: Any) -> Any:
    """A value without what differs between two runs: addresses, ids, dates, times, folders."""
    if isinstance(value, str):
        for pattern, word in _ACCIDENTS:
            value = pattern.sub(word, value)
        return value
    if isinstance(value, list):
        return [plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {plain(key): plain(each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value


def without_numbers(value: Any) -> Any:
    """A value in which a number only says that it is one."""
    if isinstance(value, list):
        return [without_numbers(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        # Which is left out while there is nothing to compare a first reading with.
        kept = {key: each for key, each in value.items() if key != "host_cpu_percent"}  # pyright: ignore[reportUnknownVariableType]
        return {key: without_numbers(each) for key, each in kept.items()}  # pyright: ignore[reportUnknownVariableType]
    return "NUMBER" if isinstance(value, int | float) else value


def brief(transcript: Transcript) -> tuple[str, ...]:
    """What a person sees of an answer, a line for each message."""
    lines: list[str] = []
    for message in (*transcript.get("iopub", ()), *transcript.get("control", ())):
        kind, content = message["type"], message["content"]
        if kind in ("status", "execute_input"):
            continue
        if kind == "stream":
            lines.append(f"{content['name']}: {content['text']}")
        elif kind == "error":
            lines.append(f"{content['ename']}: {content['evalue']}")
        elif "data" in content and "text/plain" in content["data"]:
            lines.append(f"{kind}: {content['data']['text/plain']}")
        else:
            lines.append(f"{kind}: {json.dumps(content, sort_keys=True)}")
    for message in transcript.get("shell", ()):
        code = message["metadata"].get("sandbox", {}).get("exit_code")
        status = message["content"].get("status")
        lines.append(f"reply {status}" + ("" if code is None else f", exit code {code}"))
    return tuple(lines)


async def ask_both(
    link: Link, cases: Iterable[Case]
) -> tuple[dict[str, Transcript], dict[str, Transcript]]:
    """Ask a new kernel of each kind: what ours said, and what the other."""
    wanted = tuple(cases)
    said: list[dict[str, Transcript]] = []
    await _write(link, KERNELSPEC_FILE, json.dumps(KERNELSPEC).encode())
    for folder, name in (("ours", "python3"), ("bare", BARE)):
        await _write(link, f"{folder}/.here", b"")
        kernel_id = f"{folder}-{uuid.uuid4().hex}"
        await link.call("kernel.start", kernel_id=kernel_id, name=name, cwd=folder)
        said.append(await Asked(link, kernel_id).ask(wanted))
        await link.call("kernel.stop", kernel_id=kernel_id)
    return said[0], said[1]


async def _write(link: Link, path: str, data: bytes) -> None:
    stream = link.open("file.write", path=path, create_parents=True)
    await stream.send(data)
    stream.end()
    await stream.receive_json()
