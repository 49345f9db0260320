"""The text of a program that does a task of ``snapshotrun`` in a container."""

from __future__ import annotations

from pathlib import Path

_FUTURE = "from __future__ import annotations\n"
_FOLDER = Path(__file__).parent


def program(task: str, argument: int = 0) -> str:
    """The program; what it finds is the last line that it prints, as JSON."""
    texts = [(_FOLDER / name).read_text() for name in ("pictures.py", "treechanges.py")]
    texts.append(f"TASK, ARGUMENT = {task!r}, {argument}\n")
    texts.append((_FOLDER / "snapshotrun.py").read_text())
    return _FUTURE + "\n".join(texts).replace(_FUTURE, "")
