from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULE = "sandbox.supervisor.pairframes"


def python(program: str, file: Path, told: str = "") -> str:
    """What a Python of its own prints that reads what it is told; its bundle is in a file."""
    begin = (
        f"import json, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"from sandbox.supervisor import bundle\nbundle.FILE = {str(file)!r}\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", begin + program],
        input=told,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def write(file: Path, told: str = "") -> None:
    """Write a bundle of what an import of ``MODULE`` imports, or of what is told."""
    python("bundle.write()", file, told or python(f"import {MODULE}\nbundle.tell()", file))


TELL = f"""
import importlib, inspect
module = importlib.import_module({MODULE!r})
spec = module.__spec__
print(json.dumps([
    module.__file__, module.__cached__, module.__package__, type(module.__loader__).__name__,
    spec.origin, spec.has_location, inspect.getsource(module), list(map(str, sys.modules[
        module.__package__].__path__)),
]))
"""


def test_a_module_of_the_bundle_is_as_any_other(tmp_path: Path) -> None:
    file = tmp_path / "bundle"
    write(file)
    plain = json.loads(python(TELL, file))
    assert json.loads(python("bundle.use()" + TELL, file)) == plain


def test_its_code_comes_from_the_bundle_and_no_more_once_that_is_let_go(tmp_path: Path) -> None:
    file = tmp_path / "bundle"
    write(file)
    count = "print(len(sys.meta_path[0]._entries), type(sys.meta_path[0]).__name__)\n"
    said = python(
        f"bundle.use()\n{count}import {MODULE}\n{count}bundle.let_go()\n"
        "print(any(type(each).__name__ == 'Bundle' for each in sys.meta_path))",
        file,
    )
    before, after, is_there = said.splitlines()
    assert int(before.split()[0]) > int(after.split()[0])
    assert is_there == "False"


@pytest.mark.parametrize("content", [b"", b"x" * 4, b"3.10 of another time".ljust(136) + b"{}"])
def test_what_is_no_bundle_of_this_python_is_left_alone(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bundle"
    file.write_bytes(content)
    assert python(f"bundle.use()\nimport {MODULE}\nprint('imported')", file) == "imported\n"


def test_without_a_bundle_all_is_imported_as_usual(tmp_path: Path) -> None:
    said = python(f"bundle.use()\nimport {MODULE}\nprint('imported')", tmp_path / "none")
    assert said == "imported\n"


def test_what_is_put_into_it_does_not_run(tmp_path: Path) -> None:
    """Invariant of a build: what a policy has added runs in sessions alone."""
    ran = tmp_path / "ran"
    package = tmp_path / "added"
    package.mkdir()
    for name in ("__init__", "part"):
        (package / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\nHERE = {name!r}\n")
    told = {"path": [str(tmp_path)], "modules": ["added", "added.part", "added.none", "no.such"]}
    file = tmp_path / "bundle"
    write(file, json.dumps(told))
    assert not ran.exists()
    said = python("bundle.use()\nimport added.part\nprint(added.part.HERE)", file)
    assert (said, ran.exists()) == ("part\n", True)
