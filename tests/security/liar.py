"""A program that takes the place of its container's supervisor, and lies about a file's size.

It runs inside: with the uid of the session it stops the supervisor, opens the two ends of the link
and speaks it (``docs/link.md``). Whatever file is asked for has one byte, it says, and then sends
bytes as fast as they are taken.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import time

OPEN, DATA, CREDIT, RESET, PING, PONG = 1, 2, 3, 5, 6, 7
JSON, BYTES = 0, 1
PIECE = b"x" * 65_000
COST = len(PIECE) + 64
STAT = {
    **{"path": "/workspace/a", "name": "a", "type": "file", "size": 1, "mode": 420},
    **{"mtime": 1.0, "etag": "e"},
}


def supervisor() -> int:
    """The number of the process that the container began with."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline") as words, open(f"/proc/{name}/stat") as stat:
                is_it = words.read().split("\0")[:3] == ["/usr/bin/python3", "-I", "/opt/sandbox"]
                if is_it and stat.read().rpartition(")")[2].split()[1] == "1":
                    return int(name)
        except OSError:
            continue
    raise LookupError


def link_of(pid: int) -> tuple[int, int]:
    """The descriptors of its link: a pipe that it reads, and the next one, which it writes."""
    modes: dict[int, int] = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{name}").startswith("pipe:"):
            with open(f"/proc/{pid}/fdinfo/{name}") as lines:
                flags = lines.read().split("flags:")[1].split()[0]
            modes[int(name)] = int(flags, 8) & os.O_ACCMODE
    for number in sorted(modes):
        if modes[number] == os.O_RDONLY and modes.get(number + 1) == os.O_WRONLY:
            return number, number + 1
    raise LookupError


def main() -> None:
    """Take the link over, and answer on it."""
    pid = supervisor()
    reads, writes = link_of(pid)
    source = os.open(f"/proc/{pid}/fd/{reads}", os.O_RDONLY)
    sink = os.open(f"/proc/{pid}/fd/{writes}", os.O_WRONLY)
    os.kill(pid, signal.SIGSTOP)

    def say(kind: int, tag: int, stream: int, data: bytes) -> None:
        frame = struct.pack("!BBIH", kind, tag, stream, len(data)) + data
        while frame:
            frame = frame[os.write(sink, frame) :]

    credit: dict[int, int] = {}
    buffered = b""
    while True:
        can_send = any(left > COST for left in credit.values())
        if select.select([source], [], [], 0 if can_send else 1)[0]:
            buffered += os.read(source, 65_536)
        while len(buffered) >= 8:
            kind, _, stream, length = struct.unpack("!BBIH", buffered[:8])
            if len(buffered) < 8 + length:
                break
            data, buffered = buffered[8 : 8 + length], buffered[8 + length :]
            if kind == PING:
                say(PONG, 0, stream, data)
            elif kind == OPEN and json.loads(data)["op"] == "file.read":
                head = json.dumps(STAT).encode()
                say(DATA, JSON, stream, head)
                credit[stream] = 256 * 1024 - len(head) - 64
            elif kind == CREDIT and stream in credit:
                credit[stream] += int.from_bytes(data, "big")
            elif kind == RESET:
                credit.pop(stream, None)
        for stream in credit:
            if credit[stream] > COST:
                say(DATA, BYTES, stream, PIECE)
                credit[stream] -= COST


if os.fork() == 0:
    os.setsid()
    time.sleep(1)  # until the cell that planted this has been answered
    main()
