"""Outputs of an execution on a person's terminal: text as it comes, pictures as files."""

from __future__ import annotations

import base64
import binascii
import sys
from pathlib import Path
from typing import Any

from sandbox.errors import InvalidRequest
from sandbox.kernels.models import ExecutionResult

SUFFIXES = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/svg+xml": "svg",
}


class Printer:
    """Prints the outputs of one execution once each; when quiet, it only saves the pictures.

    Their names begin with the stem; a number follows.
    """

    def __init__(self, folder: Path, stem: str, *, quiet: bool = False) -> None:
        self._folder = folder
        self._stem = stem
        self._quiet = quiet
        self._printed: list[str] = []
        """Of each output, what was printed of it."""
        self._saved = 0

    def show(self, result: ExecutionResult) -> None:
        """Print what is new, but for pictures, which may still be replaced."""
        for index, output in enumerate(result.outputs):
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
        self.show(result)
        for output in result.outputs:
            self._save(output.get("data") or {})
        if result.error is not None and not any(_is_error(output) for output in result.outputs):
            self._write(f"{result.error.name}: {result.error.value}\n", is_error=True)
        if result.status != "ok":
            reason = f": {result.reason}" if result.reason else ""
            print(f"[{result.status} after {result.duration_s:.2f} s{reason}]", file=sys.stderr)
        if result.truncated_bytes:
            print(f"[{result.truncated_bytes} bytes of output were left out]", file=sys.stderr)

    def _write(self, text: str, *, is_error: bool) -> None:
        if self._quiet:
            return
        stream = sys.stderr if is_error else sys.stdout
        stream.write(text)
        stream.flush()

    def _save(self, data: dict[str, Any]) -> None:
        for mime, suffix in SUFFIXES.items():
            value = data.get(mime)
            if not isinstance(value, str):
                continue
            try:
                content = (
                    value.encode() if suffix == "svg" else base64.b64decode(value, validate=False)
                )
                self._saved += 1
                path = self._folder / f"{self._stem}-{self._saved}.{suffix}"
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


def _is_error(output: dict[str, Any]) -> bool:
    return output.get("output_type") == "error"


def _text(output: dict[str, Any]) -> str:
    """What an output shows on a terminal; empty for a picture."""
    if output.get("output_type") == "stream":
        return str(output.get("text", ""))
    if _is_error(output):
        lines: list[Any] = output.get("traceback") or []
        return "\n".join(str(line) for line in lines).rstrip("\n") + "\n"
    data: dict[str, Any] = output.get("data") or {}
    if any(mime in data for mime in SUFFIXES):
        return ""
    for mime in ("text/plain", "text/markdown"):
        if mime in data:
            return str(data[mime]).rstrip("\n") + "\n"
    return "".join(f"[{mime}]\n" for mime in data)
