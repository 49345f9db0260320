"""What is defined in a cell, and processes that are no copies of the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

CELLS = """
import sys, types
sys.modules["__main__"] = types.ModuleType("__main__")
from sandbox.supervisor.pykernel import spawning
spawning.install(None)
def run(code):
    try:
        exec(code, sys.modules["__main__"].__dict__)
    except Exception as exc:
        print(type(exc).__name__, exc)
run('''
import math, multiprocessing, concurrent.futures
def own(x): return x * x
class Own: pass
class OwnError(Exception): pass
''')
"""
REFUSED = "PicklingError '{}' is defined in a cell"


def run(code: str) -> list[str]:
    """The lines that code writes, which runs as cells do: in a `__main__` without a file."""
    done = subprocess.run(
        [sys.executable, "-c", f"{CELLS}run({code!r})"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("with context.Pool(1) as pool: pool.map(own, [1])", "own"),
        ("with context.Pool(1) as pool: pool.apply_async(len, ([Own()],)).get(30)", "Own"),
        ("with context.Pool(1) as pool: list(pool.imap_unordered(own, [1]))", "own"),
        ("with context.Pool(1, initializer=own) as pool: pool.map(math.sqrt, [1])", "own"),
        ("context.Process(target=own).start()", "own"),
    ],
)
def test_it_is_refused_where_it_is_given_with_what_to_do(method: str, code: str, name: str) -> None:
    (told,) = run(f"context = multiprocessing.get_context({method!r})\n{code}")
    assert told.startswith(REFUSED.format(name))
    assert "%%writefile" in told
    assert "get_context('fork')" in told


def test_what_is_defined_in_files_works_there() -> None:
    code = "with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(abs, [-1]))"
    assert run(code) == ["[1]"]


def test_copies_of_the_kernel_find_all_of_it() -> None:
    code = (
        "with multiprocessing.get_context('fork').Pool(1) as pool: print(pool.map(own, [3]))\n"
        "with concurrent.futures.ProcessPoolExecutor(1) as pool: print(list(pool.map(own, [4])))"
    )
    assert run(code) == ["[9]", "[16]"]


def test_nothing_is_imported_for_it() -> None:
    code = f"{CELLS.partition('def run')[0]}print('multiprocessing.pool' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
