"""Runs a file in a kernel as ``python FILE`` runs it; its source is sent there, and runs alone.

What the file shows is told as a cell's output is; for the rest it is a program of its own: it is
``__main__``, with its path, its arguments, its folder to import from and its standard input.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any


def run_file(path: str, argv: list[str], stdin: str) -> None:
    """Run a file to its end: also its threads, and what it has registered for its exit.

    Args:
        argv: What it finds in ``sys.argv``.
        stdin: A file that is its standard input, and is removed; empty for none.
    """
    exits: list[Callable[[], Any]] = []

    def register(function: Any, *args: Any, **options: Any) -> Any:
        exits.append(lambda: function(*args, **options))
        return function

    def ask(prompt: object = "", /) -> str:
        print(prompt, end="", flush=True)
        if not (line := sys.stdin.readline()):
            raise EOFError("EOF when reading a line")
        return line.removesuffix("\n")

    if stdin:
        given = os.open(stdin, os.O_RDONLY)
        os.unlink(stdin)
        os.dup2(given, 0)
        os.close(given)
    sys.stdin = builtins.open(  # noqa: SIM115  # by its whole name: a cell's own refuses this
        0, encoding="utf-8", errors="surrogateescape", closefd=False
    )
    builtins.input = ask
    builtins.__dict__.update(exit=sys.exit, quit=sys.exit)
    atexit.register = register
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=builtins)
    sys.modules["__main__"] = main
    sys.argv[:] = argv
    sys.path[:] = [os.path.dirname(path), *(each for each in sys.path if each)]
    try:
        try:
            with open(path, "rb") as file:
                code = compile(file.read(), path, "exec", dont_inherit=True)
            exec(code, main.__dict__)  # noqa: S102  # that is what it is for
        finally:
            for thread in threading.enumerate():
                if not thread.daemon and thread is not threading.current_thread():
                    thread.join()
            while exits:
                exits.pop()()
    except Exception as exc:
        tb = exc.__traceback__.tb_next if exc.__traceback__ else None
        lines = traceback.format_exception(type(exc), exc, tb)
        with contextlib.suppress(TypeError):  # as Python prints it, without how the file was run
            vars(exc)["_render_traceback_"] = lambda: "".join(lines).splitlines()
        raise
