"""Changes of a tree of files, as programs make them; with the standard library alone."""

from __future__ import annotations

import mmap
import os
import shutil
from pathlib import Path

ODD = os.fsdecode(b"\xff\xfe")
PATHS = ["a", "b", ODD, "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "new", f"new/{ODD} \n"]
KINDS = ["write", "append", "replace", "same size", "hole", "map", "folder", "link", "hard link"]
KINDS += ["hard link", "move", "move", "mode", "time", "delete", "delete"]


def begin(root: Path) -> None:
    """A tree for changes to meet something in."""
    (root / "d" / "e").mkdir(parents=True)
    for number, name in enumerate(["a", "b", "d/a", "d/e/a"]):
        (root / name).write_bytes(b"content" * number)
    os.link(root / "a", root / "d" / "b")
    (root / ODD).symlink_to("a")


def change(root: Path, kind: str, one: str, other: str, data: bytes, number: int) -> None:
    """Do something to a tree; what cannot be done is left."""
    at, to = root / one, root / other
    mode = (0o777, 0o644, 0o600, 0o400, 0o000, 0o1755, 0o555)[number % 7]
    try:
        if kind == "write":
            at.write_bytes(data)
        elif kind == "append":
            with at.open("ab") as file:
                file.write(data)
        elif kind == "replace":
            (root / ".new").write_bytes(data)
            (root / ".new").rename(at)
        elif kind == "same size":
            at.write_bytes(b"!" * at.stat().st_size)
        elif kind == "hole":
            with at.open("wb") as file:
                file.seek(number * 100_000)
                file.write(data)
        elif kind == "map":
            with at.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[0] = number % 256
        elif kind == "folder":
            at.mkdir(parents=True)
        elif kind == "link":
            at.symlink_to(other)
        elif kind == "hard link":
            os.link(at, to, follow_symlinks=False)
        elif kind == "fifo":
            os.mkfifo(at)
        elif kind == "move":
            at.rename(to)
        elif kind == "mode":
            if not at.is_symlink():
                at.chmod(mode)
        elif kind == "time":
            os.utime(at, ns=(number, number * 1_000_000_007), follow_symlinks=False)
        elif kind == "delete":
            shutil.rmtree(at) if at.is_dir() and not at.is_symlink() else at.unlink()
    except (OSError, ValueError):
        pass
