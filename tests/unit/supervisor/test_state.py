"""Variables that travel from one Python process to another, as from kernel to kernel."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ...support.environments import ROOT, python_with

WRITE = """
import os, sys, time
from sandbox.supervisor.pykernel.statewriter import Bounds, write_state
import types
class Main(types.ModuleType): pass  # as IPython's
sys.modules["__main__"].__class__ = Main
hidden = set(globals()) | {"hidden"}
exec(compile(sys.argv[1], "<cell>", "exec"), globals())
names = [name for name in globals() if name not in hidden]
bounds = Bounds(int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
write_state(globals(), names, int(sys.argv[5]), bounds, time.monotonic)
os._exit(0)
"""
READ = """
import json, os, sys
from sandbox.supervisor.pykernel.statereader import read_state
report = read_state(globals(), int(sys.argv[2]), 5.0)
said = []
exec(compile(sys.argv[1], "<cell>", "exec"), globals())
print(json.dumps({**report.told(), "said": said}))
"""


@dataclass
class Outcome:
    carried: list[str]
    left: dict[str, str]
    size_bytes: int
    cut: bool
    said: list[Any]


@dataclass(frozen=True)
class Carrier:
    """Runs code in one process, carries its names to another, and runs code there.

    Args:
        folder: Where both run.
    """

    folder: Path

    def __call__(
        self,
        code: str,
        then: str = "",
        *,
        total_bytes: int = 10**8,
        name_s: float = 5.0,
        total_s: float = 30.0,
        cut_at: int | None = None,
        path: str = "",
        other_path: str = "",
    ) -> Outcome:
        file = self.folder / "state"
        with file.open("wb") as out:
            wanted = (total_bytes, name_s, total_s, out.fileno())
            self._run(WRITE, code, *wanted, fd=out.fileno(), path=path)
        if cut_at is not None:
            os.truncate(file, file.stat().st_size + cut_at if cut_at < 0 else cut_at)
        with file.open("rb") as state:
            said = self._run(READ, then, state.fileno(), fd=state.fileno(), path=other_path)
        told = json.loads(said.splitlines()[-1])
        left = {each["name"]: each["reason"] for each in told["left"]}
        return Outcome(told["carried"], left, told["size_bytes"], told["cut"], told["said"])

    def _run(self, script: str, code: str, *words: object, fd: int, path: str) -> str:
        done = subprocess.run(
            [python_with("cloudpickle"), "-c", script, textwrap.dedent(code), *map(str, words)],
            env={"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), path]))},
            cwd=self.folder,
            pass_fds=[fd],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def carry(tmp_path: Path) -> Carrier:
    return Carrier(tmp_path)


def test_values_modules_functions_and_classes_are_carried(carry: Carrier) -> None:
    code = """
        import json as j, collections.abc
        from math import sqrt
        number, text, data = 3, "\\ud800é", {"a": [1, {2}], "b": (None, b"x")}
        rate = 2
        def scaled(value, by=10, *, extra=0): "Scales."; return value * by * rate + extra
        class Base: kind = "base"
        class Point(Base):
            def __init__(self, x): self.x = x
            def far(self): return scaled(self.x) + len(super().kind)
            @property
            def root(self): return sqrt(self.x)
        point = Point(4)
        adders = [lambda v, n=n: v + n for n in range(3)]
        def counter():
            count = 0
            def up():
                nonlocal count
                count += 1
                return count
            return up
        up = counter(); up()
    """
    then = """
        said += [number, data["a"][1] == {2}, j.dumps(1), point.far(), point.root, adders[2](1)]
        said += [type(point) is Point, up(), up(), scaled.__doc__, scaled(1, extra=1), ascii(text)]
    """
    found = carry(code, then)
    assert found.left == {}
    assert found.said == [3, True, "1", 84, 2.0, 3, True, 2, 3, "Scales.", 21, "'\\ud800\\xe9'"]


def test_functions_look_names_up_where_later_cells_bind_them(carry: Carrier) -> None:
    code = """
        rate = 2
        def scaled(value): return value * rate
        class Scale:
            def of(self, value): return scaled(value)
        scale = Scale()
        def recursive(n): return n and n + recursive(n - 1)
        def bind(): global bound; bound = 5
    """
    then = """
        rate = 100
        said += [scaled(1), scale.of(2), recursive(4)]
        bind()
        said += [bound, scaled.__globals__ is globals(), type(__builtins__).__name__]
    """
    found = carry(code, then)
    assert found.said == [100, 200, 10, 5, True, "module"]


def test_what_two_names_share_stays_shared(carry: Carrier) -> None:
    code = """
        rows = [1]; table = {"rows": rows}
        def rows_of(): return rows
        class Node: pass
        first, second = Node(), Node(); first.next, second.next = second, first
        loop = []; loop.append(loop)
    """
    then = """
        rows.append(2)
        said += [table["rows"], rows_of(), first.next is second, second.next is first]
        said += [type(first) is Node, loop[0] is loop]
    """
    assert carry(code, then).said == [[1, 2], [1, 2], True, True, True, True]


def test_what_cannot_be_written_is_named_with_the_reason_and_costs_no_other_name(
    carry: Carrier,
) -> None:
    code = """
        import sqlite3, threading, socket
        shared = ["shared"]
        conn = sqlite3.connect(":memory:")
        holder = {"kept": shared, "fresh": (fresh := ["fresh"]), "conn": conn}
        handle = open(__import__("os").devnull)
        generator = (n for n in range(3))
        class Refuses:
            def __reduce__(self): raise SystemExit("no")
        refuses = Refuses()
        after = [shared, fresh]
    """
    found = carry(code, "said += [after[0] is shared, after[1] is fresh, fresh]")
    assert found.said == [True, True, ["fresh"]]
    assert found.left == {
        "conn": "a sqlite3.Connection cannot be pickled",
        "holder": "a dict cannot be pickled: TypeError: cannot pickle 'sqlite3.Connection' object",
        "handle": "a _io.TextIOWrapper cannot be pickled: PicklingError: an open file cannot be "
        "carried",
        "generator": "a generator cannot be pickled",
        "refuses": "a Refuses cannot be pickled: SystemExit: no",
    }


def test_what_cannot_be_loaded_is_named_and_so_is_what_needs_it(
    carry: Carrier, tmp_path: Path
) -> None:
    (tmp_path / "only").mkdir()
    (tmp_path / "only/here.py").write_text("class Thing: pass\n")
    code = f"""
        import sys as _sys
        _sys.path.append({str(tmp_path / "only")!r})
        before = ["before"]
        import here as module
        _sys.path.pop()
        class Explodes:
            def __reduce__(self): return explode, (["inside"],)
        def explode(inside): raise ZeroDivisionError("there")
        bomb = Explodes()
        thing = [["part"], module.Thing(), before]
        uses = [thing[0]]
        rows = list(range(1000))
        last = {{"before": before, "rows": rows, "explode": explode}}
    """
    then = """
        said += [last['before'] is before, last['rows'] is rows, len(rows)]
        said += [last['explode'] is explode]
    """
    found = carry(code, then)
    assert found.said == [True, True, 1000, True]
    assert "shares something" in found.left.pop("uses")
    absent = "it cannot be loaded: ModuleNotFoundError: No module named 'here'"
    assert found.left == {
        "module": absent,
        "thing": absent,
        "bomb": "it cannot be loaded: ZeroDivisionError: there",
    }
    assert not found.cut


def test_a_name_may_take_no_more_than_is_left_of_the_bound(carry: Carrier) -> None:
    code = "small = b's' * 1000; large = bytearray(3_000_000); many = list(range(10**6)); end = [1]"
    found = carry(code, total_bytes=1_000_000)
    assert found.carried == ["small", "end"]
    bound = "and the bound for all names together is 1 MB"
    assert found.left["large"] == f"3 MB or more of it, {bound}"
    assert found.left["many"].endswith(bound)


def test_a_name_may_take_no_longer_than_its_time_whatever_it_catches(carry: Carrier) -> None:
    code = """
        class Slow:
            def __reduce__(self):
                while True:
                    try:
                        __import__("time").sleep(60)
                    except Exception:
                        pass
        before, slow, after = [1], Slow(), [2]
    """
    found = carry(code, "said += [before, after]", name_s=0.2)
    assert found.left == {"slow": "it took longer than 0.2 s"}
    assert found.said == [[1], [2]]


def test_all_names_together_have_a_time_of_their_own(carry: Carrier) -> None:
    code = """
        class Slow:
            def __reduce__(self): __import__("time").sleep(60)
        slow, after = Slow(), [2]
    """
    found = carry(code, name_s=5.0, total_s=0.2)
    assert found.carried == ["Slow"]
    assert found.left["after"] == "all names together took 0.2 s"


@pytest.mark.parametrize("cut_at", [-1, -8, -30, 3, 0])
def test_a_stream_that_is_cut_has_lost_no_more_than_what_was_not_whole(
    carry: Carrier, cut_at: int
) -> None:
    found = carry("first = ['x' * 100]; second = ['y' * 100]", cut_at=cut_at)
    assert found.cut
    assert "second" not in found.carried or cut_at > -10
    assert ("first" in found.carried) == (cut_at < 0)


def test_modules_are_found_where_they_were_found_before(carry: Carrier, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/mine.py").write_text("def double(x): return 2 * x\n")
    (tmp_path / "deep").mkdir()
    code = """
        sys.path.insert(0, os.path.abspath("lib"))
        import mine
        double = mine.double
        os.chdir("deep")
    """
    then = "said += [double(2), mine.double(3), os.path.basename(os.getcwd())]"
    assert carry(code, then).said == [4, 6, "deep"]
    gone = carry("os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); kept = 1")
    assert gone.carried == ["kept"]


def test_many_objects_are_carried_in_a_moment(carry: Carrier) -> None:
    code = "rows = [{'id': n, 'name': str(n)} for n in range(200_000)]; " + "; ".join(
        f"v{n} = [rows[{n}]]" for n in range(50)
    )
    found = carry(code, "said += [v49[0] is rows[49], len(rows)]")
    assert (found.said, found.left) == ([True, 200_000], {})
