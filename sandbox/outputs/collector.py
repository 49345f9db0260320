"""What a cell shows, collected as nbformat 4 outputs within a fixed budget.

The messages come from a hostile kernel: everything is checked, made plain or left out, and the
memory is bounded however much comes. The budget is ``limit_bytes`` of text:

* streams may take three quarters of it. Their head and tail are kept in equal parts, and a line in
  between says how many bytes were cut;
* rich outputs may take three quarters, and together they share the whole. Of a text that does not
  fit head and tail are kept, in half of the room there is; what cannot be cut is left out, counted
  under its type, and a note of its type and size stands where nothing else tells of it;
* the cell's error has a quarter of its own, for a traceback must not be lost to a flood;
* images have a budget of their own, ``IMAGE_FACTOR`` times as large.

An output that is shown several times counts several times, and an update changes the last
``MAX_SHOWN`` that have its id. What is kept is text, so that it takes the memory that it counts.

The values of secrets are taken out of everything before it is cut or kept, and once more when it is
shown, for the plain text may hold what escape sequences had broken up.

The format: https://nbformat.readthedocs.io/en/latest/format_description.html#code-cell-outputs
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sandbox.outputs import mime
from sandbox.outputs.bundles import OTHER_TYPES, Bundle, Part, display_id, mapping
from sandbox.outputs.plain import clip, cut, plain
from sandbox.outputs.readable import is_bare
from sandbox.outputs.redaction import Redactor, TextPieces
from sandbox.outputs.streams import StreamName, Streams
from sandbox.outputs.tracebacks import collapsed

OUTPUTS = frozenset(
    ("stream", "display_data", "execute_result", "update_display_data", "clear_output", "error")
)
"""The types of messages that are outputs, or change them."""
IMAGE_FACTOR = 8
ITEM_COST = 256
"""What each rich output costs beside its content, so that their number is bounded too."""
OUTPUT_MEMORY = 1024
"""About what each output takes in memory beside its content."""
MAX_SHOWN = 16
"""The outputs under one id that an update changes."""
MAX_TEXT = 512 * 1024
"""The characters of one stream message that are looked at; the supervisor splits longer ones."""
MAX_NAME = 256
MAX_DROPPED_TYPES = 32
"""The mime types that are named of what was left out; the others count as ``OTHER_TYPES``."""


@dataclass(slots=True, eq=False)
class _Rich:
    """An output that is not a stream."""

    kind: str
    count: int | None = None
    display_id: str = ""
    data: dict[str, str] = field(default_factory=dict[str, str])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    error: dict[str, str] | None = None
    text_size: int = 0
    image_size: int = 0
    dropped: int = 0
    dropped_types: tuple[str, ...] = ()

    def output(self) -> dict[str, Any]:
        """As it is kept: see :func:`_shown`."""
        if self.error is not None:
            return {"output_type": "error", **self.error}
        metadata = dict(self.metadata)
        if self.display_id:  # nbformat has no other place, and who carries on needs to know it
            metadata["display_id"] = self.display_id
        output: dict[str, Any] = {"output_type": self.kind, "data": dict(self.data)}
        output["metadata"] = metadata
        if self.kind == "execute_result":
            output["execution_count"] = self.count
        return output


class OutputCollector:
    """Collects the outputs of one execution within a budget of so many bytes of UTF-8."""

    def __init__(self, limit_bytes: int, redactor: Redactor | None = None) -> None:
        self._redactor = redactor or Redactor()
        self._stream_name: StreamName = "stdout"
        self._limit = limit_bytes
        self._share = limit_bytes * 3 // 4
        self._image_limit = limit_bytes * IMAGE_FACTOR
        self._clear()

    def _clear(self) -> None:
        self._streams: Streams[_Rich] = Streams(self._share)
        self._pieces = TextPieces(self._redactor)
        self._displays: dict[str, deque[_Rich]] = {}
        self._text_size = 0
        self._image_size = 0
        self._dropped = 0
        self._dropped_types: Counter[str] = Counter()
        self._error: dict[str, str] | None = None
        self._clear_is_due = False
        self._outputs: list[dict[str, Any]] | None = None

    # --- what came of it

    def outputs(self) -> list[dict[str, Any]]:
        """The outputs so far, in nbformat 4; neither the list nor what is in it may be changed.

        Whoever keeps them keeps more memory than was counted.
        """
        if self._outputs is None:
            outputs: list[dict[str, Any]] = [
                item.output() if isinstance(item, _Rich) else item
                for item in self._streams.render()
            ]
            self._outputs = self._redactor.data(outputs)
        return list(map(_shown, self._outputs))

    @property
    def error(self) -> Mapping[str, str] | None:
        """The last error: ``ename``, ``evalue`` and the plain text of ``traceback``."""
        return self._redactor.data(self._error)

    @property
    def truncated_bytes(self) -> int:
        """The bytes that came but are not in :meth:`outputs`."""
        return self._dropped + self._streams.cut_bytes

    @property
    def dropped_types(self) -> Mapping[str, int]:
        """How many values of each mime type were left out whole."""
        return self._redactor.data(dict(self._dropped_types))

    @property
    def size_bytes(self) -> int:
        """About what the outputs take in memory."""
        overhead = OUTPUT_MEMORY * self._streams.count
        return self._streams.size + self._text_size + self._image_size + overhead

    @property
    def is_settled(self) -> bool:
        """Whether a collector restored from :meth:`outputs` would go on as this one, but for the
        place of a cursor in the last lines, which may stand in their middle for hours."""
        return not self._clear_is_due and self._pieces.is_settled and self._streams.is_settled

    # --- what comes

    def add(self, msg_type: str, content: Mapping[str, Any]) -> bool:
        """Take the content of an iopub message, unless that is no output; whether the outputs have
        changed."""
        if msg_type not in OUTPUTS:
            return False
        if self._clear_is_due and msg_type not in ("clear_output", "update_display_data"):
            self._clear()
        changed = self._take(msg_type, content)
        if changed:
            self._outputs = None
        return changed

    def _take(self, msg_type: str, content: Mapping[str, Any]) -> bool:
        match msg_type:
            case "stream":
                return self._take_stream(content)
            case "display_data":
                return self._show(_Rich("display_data"), content)
            case "execute_result":
                count = content.get("execution_count")
                is_count = type(count) is int and 0 <= count < 2**31
                return self._show(_Rich("execute_result", count if is_count else None), content)
            case "update_display_data":
                return self.shows(content) and self.update(self.bundle(content))
            case "clear_output" if content.get("wait"):
                self._clear_is_due = True
                return False
            case "clear_output":
                self._clear()
                return True
            case _:
                return self._take_error(content)

    def shows(self, content: Mapping[str, Any]) -> bool:
        """Whether an update with this content changes something."""
        return display_id(content, self._redactor) in self._displays

    def bundle(self, content: Mapping[str, Any]) -> Bundle:
        """What an update shows, for :meth:`update` of this collector and of others."""
        return Bundle(content, self._redactor)

    def update(self, bundle: Bundle) -> bool:
        """Show something else under an id and return whether anything was shown there."""
        shown = self._displays.get(bundle.display_id, ())
        for rich in shown:
            self._fill(rich, bundle)
        if shown:
            self._outputs = None
        return bool(shown)

    def finish(self) -> None:
        """No more text of a stream is about to come: show what was held back."""
        if held := self._pieces.last():
            self._streams.write(self._stream_name, held)
            self._outputs = None

    def lose(self, size_bytes: int) -> None:
        """Count output that was lost on its way here."""
        self._dropped += size_bytes

    def restore(
        self,
        outputs: list[dict[str, Any]],
        truncated_bytes: int,
        dropped_types: Mapping[str, int] | None = None,
    ) -> None:
        """Start from what another collector had."""
        for output in outputs:
            transient = {"display_id": mapping(output.get("metadata")).get("display_id")}
            self.add(str(output.get("output_type")), output | {"transient": transient})
        self.finish()
        self._dropped = max(0, truncated_bytes - self._streams.cut_bytes)
        self._dropped_types = Counter(dropped_types or {})

    # --- one kind each

    def _take_stream(self, content: Mapping[str, Any]) -> bool:
        text = content.get("text")
        if not isinstance(text, str) or not text:
            return False
        if len(text) > MAX_TEXT:  # no honest supervisor sends it; do not spend seconds on it
            self._dropped += len(text) - MAX_TEXT
            text = text[-MAX_TEXT:]
        name: StreamName = "stderr" if content.get("name") == "stderr" else "stdout"
        if name != self._stream_name:
            self.finish()
            self._stream_name = name
        if text := self._pieces.feed(text):
            self._streams.write(name, text)
        return True

    def _take_error(self, content: Mapping[str, Any]) -> bool:
        try:
            content = self._redactor.data(content)
        except (ValueError, RecursionError):
            content = {}
        raw = content.get("traceback")
        lines = cast("list[Any]", raw) if isinstance(raw, list) else []
        text = "\n".join(line for line in lines if isinstance(line, str))
        traceback, missing = cut(text, MAX_TEXT, plain)
        shorter = collapsed(traceback)
        missing += mime.size(traceback) - mime.size(shorter)
        traceback, more = cut(shorter, self._limit // 4)
        value, lost = cut(_text(content.get("evalue")), self._limit // 8, plain)
        missing += more + lost
        name = clip(plain(_text(content.get("ename"))[:MAX_NAME]), MAX_NAME)
        error = {"ename": name, "evalue": value, "traceback": traceback}
        rich = _Rich("error", error=error)
        if self._error is not None:  # a second one, and what else a hostile kernel may send
            rich.text_size = ITEM_COST + mime.size(traceback) + mime.size(value)
            if rich.text_size > self._room():
                self._dropped += mime.size(traceback) + mime.size(value) + missing
                return False
            self._use(rich)
        self._dropped += missing
        self._error = error
        self.finish()
        self._streams.place(rich)
        return True

    # --- rich outputs

    def _room(self) -> int:
        return min(self._share, self._limit - self._streams.size) - self._text_size

    def _drop(self, names: Iterable[str]) -> tuple[str, ...]:
        """Count values that are left out whole, and return under which names."""
        counted: list[str] = []
        for name in names:
            is_named = name in self._dropped_types or len(self._dropped_types) < MAX_DROPPED_TYPES
            counted.append(name if is_named else OTHER_TYPES)
            self._dropped_types[counted[-1]] += 1
        return tuple(counted)

    def _use(self, rich: _Rich) -> None:
        self._text_size += rich.text_size
        self._image_size += rich.image_size
        self._dropped += rich.dropped
        self._streams.limit(min(self._share, self._limit - self._text_size))

    def _show(self, rich: _Rich, content: Mapping[str, Any]) -> bool:
        if self._room() < ITEM_COST:
            self._dropped += mime.size(content.get("data"))
            self._drop(self.bundle(content).names)
            return False
        self.finish()
        bundle = self.bundle(content)
        rich.display_id = bundle.display_id
        self._fill(rich, bundle)
        self._streams.place(rich)
        if rich.display_id:
            self._displays.setdefault(rich.display_id, deque(maxlen=MAX_SHOWN)).append(rich)
        return True

    def _fill(self, rich: _Rich, bundle: Bundle) -> None:
        """Put a mime bundle into an output, as much of it as there is room for."""
        self._text_size -= rich.text_size
        self._image_size -= rich.image_size
        self._dropped -= rich.dropped
        for name in rich.dropped_types:
            self._dropped_types[name] -= 1
        self._dropped_types = +self._dropped_types
        rich.data, rich.metadata = {}, {}
        rich.text_size, rich.image_size, rich.dropped = ITEM_COST, 0, 0
        notes: list[str] = []
        dropped = [name for name, _ in bundle.unknown]
        rich.dropped = sum(size for _, size in bundle.unknown)
        for part in bundle.parts:
            value, missing = self._fitting(rich, part, bundle)
            rich.dropped += missing
            if value is None:
                dropped.append(part.name)
                is_large = part.size > self._room_for(rich, part.is_image)
                notes.append(_left_out(part) if is_large else _unshown(part.name, part.size))
                continue
            rich.data[part.name] = value
            if part.is_image:
                rich.image_size += mime.size(value)
            else:
                rich.text_size += mime.size(value)
            if shape := part.shape:
                rich.metadata[part.name] = shape
        rich.dropped_types = self._drop(dropped)
        notes += (_unshown(name, size) for name, size in bundle.unknown)
        words = rich.data.get("text/plain", "")
        if notes and (not rich.data or (len(rich.data) == 1 and is_bare(words))):
            lines = (words, *(f"[{note}]" for note in notes[:2]))
            rich.data["text/plain"] = "\n".join(filter(None, lines))
        self._use(rich)

    def _fitting(self, rich: _Rich, part: Part, bundle: Bundle) -> tuple[str | None, int]:
        """What of a part there is room for, and how many bytes of it are missing.

        What is cut takes half of the room, so that there is some for what comes after it. Markup
        is cut only where nothing else says what is shown.
        """
        room = self._room_for(rich, part.is_image)
        if part.size <= room:
            value = part.value
            if value is None:
                return None, part.size
            if mime.size(value) <= room:
                return value, 0
        found = None
        if room >= 2 * ITEM_COST and not (part.name == "text/html" and bundle.is_told):
            found = part.cut(room // 2)
        return found or (None, part.size)

    def _room_for(self, rich: _Rich, is_image: bool) -> int:
        if is_image:
            return self._image_limit - self._image_size - rich.image_size
        return self._room() - rich.text_size


def _left_out(part: Part) -> str:
    return f"{part.name}: {part.size:,} bytes left out, more than the limit allows"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _unshown(name: str, size: int) -> str:
    return f"{name}: {size:,} bytes that cannot be shown"


def _shown(output: dict[str, Any]) -> dict[str, Any]:
    """An output in nbformat 4, of one as it is kept: with all its text in one piece."""
    if output["output_type"] == "error":
        traceback: str = output["traceback"]
        return output | {"traceback": traceback.split("\n") if traceback else []}
    if any(map(mime.is_json, output.get("data", ()))):
        data = {name: mime.shown(name, kept) for name, kept in output["data"].items()}
        return output | {"data": data}
    return output
