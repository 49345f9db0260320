"""What cells show after their end, as threads, tasks and processes that they started do.

It belongs to the execution that started them. But whoever runs the next cell may never look at that
one again, so the result of a later cell tells of it, too, within few bytes and with whose it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sandbox.kernels.models import LateOutput
from sandbox.outputs.collector import OutputCollector
from sandbox.outputs.plain import cut
from sandbox.outputs.readable import readable
from sandbox.outputs.redaction import Redactor

LATE_BYTES = 4 * 1024
"""Of the texts of one result together."""
MAX_LATE = 16
"""The executions that one result tells of; what more of them show is theirs alone."""


@dataclass(slots=True)
class _Late:
    count: int | None
    collector: OutputCollector


class LateOutputs:
    """What one result tells of executions that had ended before.

    Args:
        told: What an earlier snapshot of that result told of.
    """

    def __init__(self, redactor: Redactor | None = None, told: Iterable[LateOutput] = ()) -> None:
        self._redactor = redactor
        self._late: dict[str, _Late] = {}
        for each in told:
            collector = self._of(each.execution_id, each.execution_count)
            if collector is not None:
                collector.add("stream", {"name": "stdout", "text": each.text})
                collector.lose(each.truncated_bytes)

    def __bool__(self) -> bool:
        return bool(self._late)

    def add(
        self, execution_id: str, count: int | None, msg_type: str, content: Mapping[str, Any]
    ) -> None:
        """Take a message of an execution that has ended."""
        if (collector := self._of(execution_id, count)) is not None:
            collector.add(msg_type, content)

    def forget(self, execution_id: str) -> None:
        """Leave out what an execution has shown, as far as that is not told yet."""
        self._late.pop(execution_id, None)

    def finish(self) -> None:
        """Nothing more is about to be told of."""
        for late in self._late.values():
            late.collector.finish()

    @property
    def is_settled(self) -> bool:
        """Whether :meth:`told` has all that came."""
        return all(late.collector.is_settled for late in self._late.values())

    def told(self) -> tuple[LateOutput, ...]:
        """What is told, in the order in which the executions began to show something."""
        found = [
            LateOutput.model_construct(
                execution_id=execution_id,
                execution_count=late.count,
                text=text,
                truncated_bytes=late.collector.truncated_bytes + missing,
            )
            for execution_id, late in self._late.items()
            for text, missing in [cut(_text(late.collector), LATE_BYTES // len(self._late))]
        ]
        return tuple(each for each in found if each.text or each.truncated_bytes)

    def _of(self, execution_id: str, count: int | None) -> OutputCollector | None:
        late = self._late.get(execution_id)
        if late is None and len(self._late) < MAX_LATE:
            late = _Late(count, OutputCollector(LATE_BYTES, self._redactor))
            self._late[execution_id] = late
        return late.collector if late is not None else None


def _text(collector: OutputCollector) -> str:
    return "".join(map(_words, collector.outputs())).strip("\n")


def _words(output: Mapping[str, Any]) -> str:
    kind = output["output_type"]
    if kind == "stream":
        return str(output["text"])
    if kind == "error":
        return f"{output['ename']}: {output['evalue']}\n"
    data = cast("dict[str, Any]", output["data"])
    pictures = "".join(f"[{name}]" for name in data if name.startswith("image/"))
    return f"{pictures or readable(data)}\n"
