"""Outputs of an execution on a person's terminal: text as it comes, pictures as files."""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.cli.escapes import TerminalFilter
from sandbox.errors import InvalidRequest
from sandbox.kernels.models import ExecutionResult
from sandbox.outputs.readable import readable

SUFFIXES = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/svg+xml": "svg",
}

_EXIT_HINT = re.compile(
    r"^\S*/interactiveshell\.py:\d+: UserWarning: To exit: use 'exit', 'quit', or Ctrl-D\.\n"
    r"  warn\(\"To exit: .*\n",
    re.MULTILINE,
)
"""What IPython says when a program exits by itself, as it may."""


class Printer:
    """Prints the outputs of one execution once each; when quiet, it only saves the pictures.

    Their names begin with the stem; a number follows. What exits by itself shows no error.

    Args:
        keeps: Whether a number that a file has already is passed over.
    """

    def __init__(
        self, folder: Path, stem: str, *, quiet: bool = False, keeps: bool = False
    ) -> None:
        self._folder = folder
        self._stem = stem
        self._quiet = quiet
        self._keeps = keeps
        self._printed: list[str] = []
        """Of each output, what was printed of it."""
        self._saved = 0
        self._filters: dict[bool, TerminalFilter] = {}

    def show(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Print what is new, but for pictures, which may still be replaced."""
        for index, output in enumerate(outputs):
            if index == len(self._printed):
                self._printed.append("")
            text = _text(output)
            before = self._printed[index]
            if text == before:
                continue
            news = text[len(before) :] if text.startswith(before) else f"\n{text}"
            self._write(news, is_error=output.get("name") == "stderr" or _is_error(output))
            self._printed[index] = text

    def close(self, result: ExecutionResult) -> None:
        """Print what is left, save the pictures, and say how it ended unless it ended well."""
        self.show(result.outputs)
        self.restore()
        for output in result.outputs:
            self._save(output.get("data") or {})
        for late in result.late:
            self._write(f"{late.words()}\n", is_error=True)
        if any(_is_exit(output) for output in result.outputs):
            return
        if result.error is not None and not any(_is_error(output) for output in result.outputs):
            self._write(f"{result.error.name}: {result.error.value}\n", is_error=True)
        if result.status != "ok":
            reason = f": {result.reason}" if result.reason else ""
            print(f"[{result.status} after {result.duration_s:.2f} s{reason}]", file=sys.stderr)
        if result.truncated_bytes:
            print(f"[{result.truncated_bytes} bytes of output were left out]", file=sys.stderr)

    def restore(self) -> None:
        """Put the terminal back, if an output has changed it."""
        for is_error, known in self._filters.items():
            if known.is_changed:
                stream = sys.stderr if is_error else sys.stdout
                stream.write(known.restored())
                stream.flush()

    def _write(self, text: str, *, is_error: bool) -> None:
        if self._quiet:
            return
        stream = sys.stderr if is_error else sys.stdout
        if stream.isatty():  # it obeys, so it gets only what draws
            known = self._filters.setdefault(is_error, TerminalFilter())
            text = known.feed(text.encode("utf-8", "replace"))
        stream.write(text)
        stream.flush()

    def _next(self, suffix: str) -> Path:
        while True:
            self._saved += 1
            path = self._folder / f"{self._stem}-{self._saved}.{suffix}"
            if not (self._keeps and path.exists()):
                return path

    def _save(self, data: dict[str, Any]) -> None:
        for mime, suffix in SUFFIXES.items():
            value = data.get(mime)
            if not isinstance(value, str):
                continue
            try:
                content = (
                    value.encode() if suffix == "svg" else base64.b64decode(value, validate=False)
                )
                path = self._next(suffix)
                path.write_bytes(content)
            except (binascii.Error, ValueError):
                print(f"[a picture of type {mime} is damaged]", file=sys.stderr)
                return
            except OSError as exc:
                raise InvalidRequest(
                    f"A picture cannot be saved in {self._folder}: {exc.strerror}.",
                    remedy="Name another folder with --images.",
                ) from exc
            print(f"[saved {path}]", file=sys.stderr)
            return


def _is_exit(output: Mapping[str, Any]) -> bool:
    return _is_error(output) and output.get("ename") == "SystemExit"


def _is_error(output: Mapping[str, Any]) -> bool:
    return output.get("output_type") == "error"


def _text(output: Mapping[str, Any]) -> str:
    """What an output shows on a terminal; empty for a picture."""
    if output.get("output_type") == "stream":
        return _EXIT_HINT.sub("", str(output.get("text", "")))
    if _is_exit(output):
        said = str(output.get("evalue") or "")
        is_number = said.lstrip("-").isdecimal() or said in ("None", "True", "False", "")
        return "" if is_number else f"{said}\n"
    if _is_error(output):
        lines: list[Any] = output.get("traceback") or []
        return "\n".join(str(line) for line in lines).rstrip("\n") + "\n"
    data: dict[str, Any] = output.get("data") or {}
    if any(mime in data for mime in SUFFIXES):
        return ""
    if text := readable(data):
        return text.rstrip("\n") + "\n"
    return "".join(f"[{mime}]\n" for mime in data)
