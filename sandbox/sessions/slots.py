"""Where a controller keeps what must survive it: one *slot* of the state directory.

The state directory holds ``controllers/<name>/`` with ``lock`` (held with flock(2) as long as the
controller lives, so a killed one lets go at once), ``owner`` (a random id, made once, which labels
every container the slot's controllers create), ``state.db`` (the journal) and ``audit/`` (the audit
log). Whoever takes a slot takes over its owner id, and with it the containers its predecessor left
behind.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import anyio

from sandbox.errors import ConfigError

SlotKind = Literal["serve", "broker", "stdio", "run", "admin"]

LASTING = ("serve", "broker")
"""Slots whose holder comes back: one of each, and nobody else touches what they own."""

ATTACHED = "attached-"
"""What the names of slots begin with whose holders come back under a name of their own."""
ATTACH_WAIT_S = 10.0
MAX_SLOTS = 256
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_OWNER = re.compile(r"[0-9a-f]{32}\n?")


def prepare_state_directory(path: Path) -> None:
    """Make the state directory, private to its user, when it is not there, and check it.

    Raises:
        ConfigError: It cannot be made, or others may write to it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as exc:
        raise _unusable(path, exc) from exc
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"Others may write to the state directory {path}.",
            remedy="Give it to the controller's user with mode 0700, or set SANDBOX_STATE_DIR to "
            "another directory.",
        )


@dataclass(frozen=True, slots=True)
class Slot:
    """A controller's place in the state directory, held until :meth:`release`.

    Args:
        name: ``serve``, or ``stdio-1`` and the like.
        directory: Its folder, mode 0700.
        owner: The id that labels its containers: 32 hexadecimal digits.
    """

    name: str
    directory: Path
    owner: str
    _lock: IO[str]

    @property
    def root(self) -> Path:
        """The state directory."""
        return self.directory.parent.parent

    @property
    def journal(self) -> Path:
        """The path of the slot's journal."""
        return self.directory / "state.db"

    @property
    def audit(self) -> Path:
        """The folder of the slot's audit log."""
        return audit_folder(self.root, self.name)

    @property
    def usage(self) -> Path:
        """The path of what the slot's principals have used up."""
        return self.directory / "usage.db"

    def release(self) -> None:
        """Let the next controller take the slot; harmless when done already."""
        self._lock.close()  # and with the file its lock

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()


def take_slot(root: Path, kind: SlotKind) -> Slot:
    """Take a slot of the state directory for this process.

    Args:
        kind: ``serve`` and ``broker`` are one slot each, for one process at a time; of the others
            the first free one is taken. ``admin`` is for commands that change something without a
            controller, and put that on record.

    Raises:
        ConfigError: A running process holds the one slot, or the directory is unusable.
    """
    prepare_state_directory(root)
    names = [kind] if kind in LASTING else [f"{kind}-{n}" for n in range(1, MAX_SLOTS + 1)]
    for name in names:
        slot = try_slot(root, name)
        if slot is not None:
            return slot
    if kind in LASTING:
        what = "A controller serves from" if kind == "serve" else "A broker uses"
        raise ConfigError(
            f"{what} this state directory already ({holder(root, kind)}).",
            remedy="Stop it first, or set SANDBOX_STATE_DIR to another directory.",
        )
    raise ConfigError(f"All {MAX_SLOTS} places for {kind} controllers are taken.")


async def attach_slot(root: Path, name: str) -> Slot:
    """Take the slot of that name of one's own, whose sessions wait for whoever takes it next.

    Where the process before is still on its way out, it is waited for.

    Raises:
        ConfigError: It cannot be a name, a running process holds the slot, or it is unusable.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} cannot be a name to attach to.",
            remedy="Choose one of up to 40 lower-case letters, digits and dashes.",
        )
    prepare_state_directory(root)
    with anyio.move_on_after(ATTACH_WAIT_S):
        while (slot := try_slot(root, f"{ATTACHED}{name}")) is None:  # noqa: ASYNC110  # a lock of files
            await anyio.sleep(0.05)
        return slot
    raise ConfigError(
        f"`sandbox mcp --attach {name}` runs already ({holder(root, ATTACHED + name)}).",
        remedy="Stop it first, or attach under another name: sandbox mcp --attach NAME.",
    )


def try_slot(root: Path, name: str) -> Slot | None:
    """Take the slot of that name; None when a running controller holds it.

    Raises:
        ConfigError: Its folder is unusable.
    """
    directory = root / "controllers" / name
    try:
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        with ExitStack() as undo:
            lock = undo.enter_context((directory / "lock").open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            slot = Slot(name, directory, _owner(directory / "owner"), lock)
            undo.pop_all()
            return slot
    except OSError as exc:
        raise _unusable(directory, exc) from exc


def audit_folder(root: Path, name: str) -> Path:
    """The folder of a slot's audit log."""
    return root / "controllers" / name / "audit"


def holder(root: Path, name: str) -> str:
    """Which process holds a slot, in words."""
    try:
        pid = int((root / "controllers" / name / "lock").read_text())
    except (OSError, ValueError):
        return "its process is not known"
    return f"process {pid}"


def slot_names(root: Path) -> list[str]:
    """The slots that were ever made in a state directory, sorted."""
    try:
        return sorted(entry.name for entry in (root / "controllers").iterdir() if entry.is_dir())
    except OSError:
        return []


def _owner(path: Path) -> str:
    try:
        text = path.read_text()
    except FileNotFoundError:
        text = secrets.token_hex(16)
        fresh = path.with_name("owner.new")
        fresh.write_text(text + "\n")
        fresh.replace(path)
    except UnicodeDecodeError:
        text = ""
    if not _OWNER.fullmatch(text):
        raise ConfigError(
            f"{path} does not hold an owner id.",
            remedy="Remove its folder; the containers it owned must then be removed by hand.",
        )
    return text.strip()


def _unusable(directory: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        f"The controller's state directory {directory} cannot be used: {exc.strerror}.",
        remedy="Make it writable, or set SANDBOX_STATE_DIR to another directory.",
    )
