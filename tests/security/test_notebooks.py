"""Attacks by notebook files, which anybody may have made, inside a sandbox or elsewhere."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import resources
from sandbox.cli import exits
from sandbox.errors import InvalidRequest
from sandbox.notebooks.ipynb import MAX_BYTES, read_ipynb, write_ipynb
from sandbox.notebooks.models import Cell, Notebook
from sandbox.notebooks.parameters import inject, parse_parameter
from sandbox.notebooks.script import to_script

from ..support import commandline

MEMORY_BYTES = 2 * 1024 * 1024 * 1024
"""Of the address space of a process that has read one notebook, with all that it imports."""
TIME_S = 60.0
HEAD, END = b'{"nbformat":4,"nbformat_minor":5,"metadata":{},"cells":[', b"]}"
CELL = b'{"cell_type":"code","source":"","metadata":{},"outputs":[]}'


def filled(unit: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """A notebook as large as may be of so many units."""
    room = MAX_BYTES - len(HEAD) - len(END) - len(before) - len(after) - len(unit)
    return HEAD + before + unit * (room // len(unit)) + unit.rstrip(b",") + after + END


BOMBS = {
    "lists": filled(b"[],"),
    "objects": filled(b"{},"),
    "keys": filled(b'"a":0,', b"{", b"}"),
    "texts": filled(b'"",'),
    "numbers": filled(b"1e9,"),
    "integers": filled(b"1,"),
    "digits": filled(b"1"),
    "opened lists": filled(b"["),
    "opened objects": filled(b'{"a":'),
    "cells": filled(CELL + b","),
    "surrogates": filled(rb"\ud800", b'"', b'"'),
    "escapes": filled(rb"\u0041", b'"', b'"'),
    "one text": filled(b"x", b'{"cell_type":"code","source":"', b'"}'),
    "too large": filled(b" ") + b" " * 1000,
    "outputs": filled(b"{},", CELL[:-2], b"]}"),
    "nothing": b"",
    "no text": b"\xff" * 1000,
    "nbformat 3": b'{"nbformat":3,"metadata":{},"worksheets":[{"cells":['
    + b'{"cell_type":"code"},' * 300_000
    + b"1]}]}",
}
READ = """
import sys
from sandbox.errors import InvalidRequest
from sandbox.notebooks.ipynb import read_ipynb, write_ipynb
try:
    write_ipynb(read_ipynb(sys.stdin.buffer.read()).notebook)
except InvalidRequest:
    pass
"""


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_no_notebook_takes_much_of_the_controller(data: bytes) -> None:
    """Invariant 3: what is parsed is bounded."""
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=data,
        cwd=resources.package().parent,
        capture_output=True,
        timeout=TIME_S,
        preexec_fn=bounded,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert b"Traceback" not in done.stderr


def test_no_text_of_a_notebook_gets_out_of_its_place(tmp_path: Path) -> None:
    """Invariant 3: no text of it is run, and none is written to a terminal as it is."""
    hostile = "x'\"\n\u2028\x0c\r__import__('os').system('touch /tmp/forged')\x1b]0;title\x07"
    cells = (
        Cell("a", "markdown", hostile),
        Cell("b", "code", hostile, {"tags": ["skip-execution"]}),
        Cell("c", "code", f"%%bash {hostile}"),
    )
    calls = [
        each
        for each in ast.walk(ast.parse(to_script(Notebook(cells))))
        if isinstance(each, ast.Call)
    ]
    assert [ast.unparse(call.func) for call in calls] == [
        "get_ipython().run_cell_magic",
        "get_ipython",
    ]
    for name in (hostile, "x;y", "x\n", "x = 1 #"):
        with pytest.raises(InvalidRequest):
            parse_parameter(f"{name}=1")
    source = inject(Notebook(), {"x": hostile}, "python").cells[0].source
    assert [type(each) for each in ast.parse(source).body] == [ast.Assign]
    path = tmp_path / "n.ipynb"
    metadata = {"kernelspec": {"name": hostile, "language": hostile}}
    path.write_bytes(
        write_ipynb(Notebook(cells, metadata)).replace(b'"nbformat": 4', b'"nbformat": 9')
    )
    done = commandline.run("notebook", "run", str(path), env={"HOME": str(tmp_path)})
    assert done.returncode == exits.USAGE
    assert "\x1b" not in done.stderr
    forged = HEAD + b'{"cell_type":"code","\\u001b]0;x":1,"id":"\\u001b","outputs":[{}]}' + END
    with pytest.raises(InvalidRequest) as caught:
        read_ipynb(forged)
    assert caught.value.message.isprintable()
    notes = read_ipynb(forged.replace(b',"outputs":[{}]', b"")).notes
    assert all(note.isprintable() for note in notes)
