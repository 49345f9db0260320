"""Hand this process's stdin and stdout to the supervisor, then only wait until it lets go.

The controller execs this file once per link (``docs/link.md``). It writes nothing itself: the bytes
of the link go between the engine and the supervisor without another copy. It stands alone, so that
it starts in milliseconds: no import beyond the standard library's smallest. To wait, it becomes a
program that takes a twentieth of an interpreter's memory.
"""

import os
import socket
import sys
import time

ADDRESS = os.environ.get("SANDBOX_SUPERVISOR", "@sandbox-supervisor").replace("@", "\0", 1)
PATIENCE_S = 10.0
WAITING = "/bin/cat"
"""Reads its input to the end."""


def main() -> int:
    """Connect, pass the descriptors on, wait for the end; the exit status says how far it came."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            supervisor.connect(ADDRESS)
            break
        except OSError as exc:
            supervisor.close()
            if time.monotonic() > deadline:
                print(f"no supervisor: {exc}", file=sys.stderr)
                return 1
            time.sleep(0.005)
    try:
        socket.send_fds(supervisor, [b"link"], [0, 1])
        # The supervisor has them now: letting go here is what lets an end of stream through.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 0)
        os.close(null)
        _become_waiting(supervisor)
        while supervisor.recv(64):
            pass
    except OSError as exc:
        print(f"the supervisor went away: {exc}", file=sys.stderr)
        return 1
    return 0


def _become_waiting(supervisor: socket.socket) -> None:
    """Wait as another program; returns where there is none."""
    # One program of many in one file would go by the name that it is given.
    if os.path.basename(os.path.realpath(WAITING)) == "cat" and os.access(WAITING, os.X_OK):
        os.dup2(supervisor.fileno(), 0)
        os.execv(WAITING, sys.argv[:1])  # noqa: S606  # no shell, and no argument of anybody's


if __name__ == "__main__":
    sys.exit(main())
