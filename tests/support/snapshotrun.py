"""What the tests of snapshots do inside a container; its text is sent to a Python there.

It stands after the texts of ``pictures`` and ``treechanges``, and runs as the session's uid, beside
the supervisor, with the supervisor's own modules.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, "/opt/sandbox")

from sandbox.errors import SandboxError
from sandbox.supervisor import restraint
from sandbox.supervisor.children import Children
from sandbox.supervisor.snapshots import Snapshots
from sandbox.supervisor.tasks import Background

if __name__ != "__main__":  # where it is read by people and linters
    from .pictures import picture
    from .treechanges import KINDS, PATHS, begin, change

WORK = Path("/workspace")
urandom = os.urandom


async def main(task: str, argument: int) -> dict[str, Any]:
    """Do one of the tasks below with the snapshots of the container's own workspace."""
    # A process can only lower its own mark, and a command has one of the supervisor's.
    restraint.os.urandom = bytes
    restraint._MARK_BASE = 1 << 59
    children = Children()
    restraint.os.urandom = urandom
    children.start()
    try:
        async with asyncio.TaskGroup() as group:
            snapshots = Snapshots(str(WORK), children, dict(os.environ), Background(group))
            return await globals()[task](snapshots, children, argument)
    finally:
        children.stop()


def emptied() -> None:
    """Delete all that is in the workspace."""
    for path in WORK.iterdir():
        if not path.is_symlink() and path.is_dir():
            path.chmod(0o700)
            for folder, inner, _ in os.walk(path):
                for name in inner:
                    if not os.path.islink(os.path.join(folder, name)):
                        os.chmod(os.path.join(folder, name), 0o700)
            shutil.rmtree(path)
        else:
            path.unlink()


async def sequences(snapshots: Snapshots, _: Children, count: int) -> dict[str, Any]:
    """Random changes, and whether each restore gives back what was; the seeds where it did not."""
    different: list[int] = []
    for seed in range(count):
        chance = random.Random(seed)  # noqa: S311  # the same each time
        emptied()
        begin(WORK)
        pictures: dict[str, Any] = {}
        for step in range(4):
            for _ in range(8):
                one, other = chance.choice(PATHS), chance.choice(PATHS)
                data = chance.randbytes(chance.randrange(9))
                change(WORK, chance.choice(KINDS), one, other, data, chance.randrange(40))
            pictures[f"{seed}-{step}"] = picture(WORK)
            await snapshots.take(f"{seed}-{step}")
            name = chance.choice(list(pictures))
            await snapshots.restore(name)
            if picture(WORK) != pictures[name]:
                different.append(seed)
        for name in pictures:
            await snapshots.drop(name)
    emptied()
    return {"different": different}


async def figures(snapshots: Snapshots, _: Children, files: int) -> dict[str, Any]:
    """How long it takes with many small files and with a few large ones."""
    found: dict[str, Any] = {}
    emptied()
    for number in range(files):
        folder = WORK / f"{number // 100}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}").write_bytes(os.urandom(1000))
    found["small"] = await timed(snapshots, lambda: (WORK / "0" / "0").write_bytes(b"changed"))
    emptied()
    for number in range(10):
        (WORK / f"large{number}").write_bytes(os.urandom(20 * 1024 * 1024))
    found["large"] = await timed(snapshots, lambda: (WORK / "large0").write_bytes(b"changed"))
    emptied()
    return found


async def timed(snapshots: Snapshots, change_one: Any) -> dict[str, Any]:
    """The seconds of each operation, and what it copied."""
    await asyncio.sleep(0.1)
    found: dict[str, Any] = {}
    operations: list[tuple[str, Any]] = [
        ("first take", lambda: snapshots.take("one")),
        ("take of what is the same", lambda: snapshots.take("two")),
        ("restore of what is the same", lambda: snapshots.restore("one")),
        ("change", change_one),
        ("take of one change", lambda: snapshots.take("three")),
        ("restore of one change", lambda: snapshots.restore("one")),
        ("deletion", emptied),
        ("restore of all", lambda: snapshots.restore("one")),
        ("take after it", lambda: snapshots.take("four")),
    ]
    for name, operation in operations:
        began = time.monotonic()
        done = operation()
        if asyncio.iscoroutine(done):
            info = await done
            copied = getattr(info, "copied_bytes", getattr(info, "written_bytes", 0))
            found[name] = [round(time.monotonic() - began, 3), round(info.took_s, 3), copied]
    for name in snapshots.names():
        await snapshots.drop(name)
    return found


SWAPPER = """
import os, sys
work, outside = "/workspace", "/tmp/outside"
os.chdir(work)
swaps = 0
print("ready", flush=True)
while True:
    for name, target in (("d", outside), ("f", outside + "/secret"), ("d/e", outside)):
        try:
            os.rename(name, "aside")
            os.symlink(target, name)
            os.unlink(name)
            os.rename("aside", name)
        except OSError:
            try:  # a restore was in between: begin anew, with whatever is there
                os.unlink(name)
            except OSError:
                pass
"""


async def race(snapshots: Snapshots, _: Children, rounds: int) -> dict[str, Any]:
    """Take and restore while another process puts links out of the workspace in all places."""
    emptied()
    outside = Path("/tmp/outside")
    outside.mkdir()
    (outside / "secret").write_text("SECRET")
    (outside / "file").write_text("SECRET")
    (outside / "file").chmod(0o644)
    before = picture(outside)
    (WORK / "d" / "e").mkdir(parents=True)
    for name in ("f", "d/file", "d/secret", "d/e/file", "d/e/secret"):
        (WORK / name).write_text("public")
    await snapshots.take("before")
    told: dict[str, int] = {}
    swapper = subprocess.Popen(  # noqa: ASYNC220  # it is waited for by reading
        [sys.executable, "-I", "-c", SWAPPER], stdout=subprocess.PIPE
    )
    assert swapper.stdout is not None
    swapper.stdout.readline()
    try:
        for number in range(rounds):
            for operation in (snapshots.take, snapshots.restore):
                try:
                    await operation("before" if operation == snapshots.restore else str(number))
                    outcome = "done"
                except SandboxError as exc:
                    outcome = type(exc).__name__
                told[outcome] = told.get(outcome, 0) + 1
            for name in snapshots.names()[8:]:
                await snapshots.drop(name)
    finally:
        swapper.kill()
        swapper.wait()
    found = {"told": told, "outside": picture(outside) == before, "secrets": 0, "same": True}
    for name in snapshots.names():
        await snapshots.restore(name)
        seen = [what[3] for what in picture(WORK).values() if what[0] == "file"]
        found["secrets"] += seen.count(b"SECRET")
    await snapshots.restore("before")
    kept = {path for path, what in picture(WORK).items() if what[0] == "file"}
    found["same"] = kept == {"f", "d/file", "d/secret", "d/e/file", "d/e/secret"}
    found["left"] = [name for name in os.listdir(WORK) if name not in ("d", "f")]
    emptied()
    return found


async def reach(snapshots: Snapshots, children: Children, _: int) -> dict[str, Any]:
    """What another process of the same uid can open of the process that keeps snapshots."""
    (WORK / "secret").write_text("kept")
    await snapshots.take("one")
    [keeper] = children
    found: dict[str, Any] = {"open": []}
    names = ["mem", "maps", "environ", "map_files", "pagemap", "smaps", "root", "cwd", "exe"]
    try:
        names += [f"fd/{name}" for name in os.listdir(f"/proc/{keeper.pid}/fd")]
    except OSError:
        names += [f"fd/{number}" for number in range(8)]
    for name in names:
        for flags in (os.O_RDONLY, os.O_RDWR):
            path = f"/proc/{keeper.pid}/{name}"
            try:
                fd = os.open(path, flags | os.O_NONBLOCK)
                size = len(os.read(fd, 10)) if not os.path.isdir(path) else 0
                os.close(fd)
            except OSError:
                continue
            found["open"].append([name, os.readlink(path) if "/" in name else "", size])
    os.kill(keeper.pid, 9)
    await asyncio.shield(keeper.exit)
    try:
        await snapshots.restore("one")
    except Exception as exc:
        found["after"] = [type(exc).__name__, str(exc)]
    (WORK / "secret").unlink()
    return found


if __name__ == "__main__":
    print("\n" + json.dumps(asyncio.run(main(TASK, ARGUMENT))))  # noqa: F821  # put before it
