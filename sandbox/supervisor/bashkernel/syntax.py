"""Whether bash can read a cell to its end, asked of a bash that runs nothing."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

UNFINISHED_DOCUMENT = b"delimited by end-of-file (wanted"
"""What bash says of a here-document without its last line, which it runs all the same."""
_UNFINISHED = (b"unexpected EOF", b"unexpected end of file", UNFINISHED_DOCUMENT)
_TRAILING_BACKSLASH = re.compile(rb"(?<!\\)(?:\\\\)*\\\n*\Z")
_SENTINEL = b"\n(:)\n"
"""A command that can stand on a line of its own, and nowhere in the middle of another."""
MAX_WORDS = 2000


@dataclass(frozen=True, slots=True)
class SyntaxProblem:
    """Why bash cannot run a cell."""

    words: str
    """What bash says, with the line."""
    is_unfinished: bool
    """Whether more lines could make it right."""


def problem_of(
    code: bytes, started: Callable[[subprocess.Popen[bytes] | None], None] = lambda _: None
) -> SyntaxProblem | None:
    """What is wrong with a cell; None when it can be run, or that cannot be found out.

    Args:
        started: Called with the bash that reads it, so that somebody can end that, and None after.
    """
    words = _said(code, (), started)
    # An earlier line, or cell, may allow patterns that are no syntax otherwise.
    if words and _said(code, ("-O", "extglob"), started):
        return SyntaxProblem(
            words.decode("utf-8", "replace")[:MAX_WORDS], any(each in words for each in _UNFINISHED)
        )
    if not words and _TRAILING_BACKSLASH.search(code):
        ended = code.rstrip(b"\n")
        if _said(ended + _SENTINEL, ("-O", "extglob"), started):  # else it ends a comment
            line = ended.count(b"\n") + 1
            said = f"bash: line {line}: a backslash at the end, after which a line is missing"
            return SyntaxProblem(said, True)
    return None


def _said(
    code: bytes,
    options: tuple[str, ...],
    started: Callable[[subprocess.Popen[bytes] | None], None],
) -> bytes:
    """What bash says against a text; empty when it takes it."""
    file = os.memfd_create("cell", os.MFD_CLOEXEC)
    try:
        with open(os.dup(file), "wb") as writer:
            writer.write(code)
        name = f"/dev/fd/{file}"
        try:
            process = subprocess.Popen(
                ["/bin/bash", "--norc", *options, "-n", name],
                env={"LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(file,),
            )
        except OSError:
            return b""  # then the shell says what it cannot read
    finally:
        os.close(file)
    started(process)
    try:
        words = process.communicate()[1].strip()
    finally:
        started(None)
    is_wrong = process.returncode > 0 or UNFINISHED_DOCUMENT in words
    return words.replace(name.encode() + b":", b"bash:") if is_wrong else b""
