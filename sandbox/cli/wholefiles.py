"""Files that commands write: there as a whole, or as they were before."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from sandbox.errors import InvalidRequest


def check_target(path: Path) -> None:
    """Refuse a place where nothing can be written before hours are spent on what goes there.

    Raises:
        InvalidRequest: Nothing can be written there.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise InvalidRequest(f"{path} is no file that can be written.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InvalidRequest(
            f"{target.parent} is no folder that can be written to.",
            remedy="Name another place with -o.",
        )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there as a whole, or as it was.

    Raises:
        InvalidRequest: It cannot be written.
    """
    path = path.resolve()  # a link leads there, and stays
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
        descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(fresh, path)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be written: {exc.strerror}.") from exc


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
