"""The process itself: takes requests from its socket, one at a time, and answers each.

It hides from all others: no process, of whatever uid, may look at its memory or descriptors. It
ends with the socket.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import sys
from typing import Any

from sandbox.errors import FileError, InfrastructureError, SandboxError
from sandbox.supervisor.paths import printable
from sandbox.supervisor.snapshotkeeper.bounds import RESERVE_BYTES, Memory
from sandbox.supervisor.snapshotkeeper.store import Store, opened

_PR_SET_DUMPABLE = 4


def main() -> None:
    """Serve until the other end of the socket, which is stdin, is closed."""
    hide()
    workspace, reserve_bytes = sys.argv[1], int(sys.argv[2])
    with socket.socket(fileno=0) as requests:
        root = opened(workspace)
        room = os.fstatvfs(root)
        memory = Memory(room.f_blocks * room.f_frsize, RESERVE_BYTES + reserve_bytes)
        store = Store(root, memory)
        gc.freeze()
        gc.set_threshold(100_000)  # there are many values here, and no circles of them
        with requests.makefile("rb") as lines:
            for line in lines:
                said = answer(store, json.loads(line))
                if "error" in said:
                    memory.give_back()  # what was copied in vain
                requests.sendall(json.dumps(said).encode() + b"\n")


def hide() -> None:
    """Let nobody look into this process.

    Raises:
        InfrastructureError: The system does not do that.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise InfrastructureError("The process that keeps snapshots cannot be hidden.")


def answer(store: Store, request: dict[str, Any]) -> dict[str, Any]:
    """What becomes of a request; an error is an answer too."""
    operations = {"take": store.take, "restore": store.restore, "drop": store.drop}
    try:
        return operations[request["op"]](request["name"])
    except SandboxError as exc:
        reason = exc.reason if isinstance(exc, FileError) else ""
        error = {"code": exc.code, "reason": reason, "message": exc.message, "remedy": exc.remedy}
        return {"error": error}
    except MemoryError:
        message = "The snapshot does not fit into the session's memory."
        return {"error": {"code": "quota_exceeded", "message": message}}
    except OSError as exc:
        where = f"{printable(str(exc.filename))}: " if exc.filename else ""
        message = f"{where}{exc.strerror or exc}. Nothing was changed."
        return {"error": {"code": "file_error", "reason": "io_error", "message": message}}
