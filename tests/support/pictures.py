"""What a tree of files is, looked at without any of our code: two alike trees have one picture."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any


def picture(root: str | os.PathLike[str]) -> dict[str, Any]:
    """Of each path below a folder, and itself: kind, mode, time, bytes or target, other names."""
    found: dict[str, Any] = {}
    names: dict[int, list[str]] = defaultdict(list)
    _look(os.fspath(root), "", found, names)
    same = {path: sorted(paths) for paths in names.values() for path in paths if len(paths) > 1}
    return {path: (*what, same.get(path, [])) for path, what in found.items()}


def _look(place: str, path: str, found: dict[str, Any], names: dict[int, list[str]]) -> None:
    info = os.lstat(place)
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISDIR(info.st_mode):
        found[path or "."] = ("folder", mode, info.st_mtime_ns)
        with _opened(place, mode, 0o700):
            for name in os.listdir(place):
                _look(f"{place}/{name}", f"{path}/{name}" if path else name, found, names)
    elif stat.S_ISLNK(info.st_mode):
        found[path] = ("link", info.st_mtime_ns, os.readlink(place))
    elif stat.S_ISREG(info.st_mode):
        names[info.st_ino].append(path)
        with _opened(place, mode, 0o400), open(place, "rb") as file:
            data = file.read()
            content = data if len(data) < 1000 else sha256(data).hexdigest()
            found[path] = ("file", mode, info.st_mtime_ns, content)
    else:
        found[path] = (stat.S_IFMT(info.st_mode),)


@contextmanager
def _opened(place: str, mode: int, needed: int) -> Iterator[None]:
    """Let its owner, if it is not root, look into it meanwhile."""
    if mode & needed == needed:
        yield
    else:
        os.chmod(place, mode | needed)
        yield
        os.chmod(place, mode)
