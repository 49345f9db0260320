"""What the gateway adds to a connection, and what it carries."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mcp import Client

from benchmarks.measures import MEGABYTE, call, check
from benchmarks.report import Figure, spread

ADDRESSES = "bench=127.0.0.1"
"""The setting of the benchmark's controller that opens this machine's loopback to one rule."""
PORT = 39128
RUNS = 200
STREAM_BYTES = 512 * 1024 * 1024
BLOCK = bytes(1024 * 1024)

# Runs inside: seconds of each connection until it stands, and of one long answer.
INSIDE = f"""
import json, socket, time

def connect():
    way = socket.create_connection(("127.0.0.1", 3128))
    way.sendall(b"CONNECT bench:{PORT} HTTP/1.1\\r\\nHost: bench:{PORT}\\r\\n\\r\\n")
    assert b" 200 " in way.recv(4096)
    return way

took = []
for _ in range({RUNS}):
    start = time.perf_counter()
    way = connect()
    took.append(time.perf_counter() - start)
    way.shutdown(socket.SHUT_WR)
    assert way.recv(1) == b""  # so that one is over before the next begins
    way.close()
way, buffer, size, start = connect(), bytearray(1 << 20), 0, time.perf_counter()
way.sendall(b"{STREAM_BYTES}\\n")
while got := way.recv_into(buffer):
    size += got
print(json.dumps({{"connect": took, "seconds": time.perf_counter() - start, "size": size}}))
"""


async def gateway(client: Client) -> list[Figure]:
    """Connections and one long answer through the gateway, against connections without it."""
    session = (await call(client, "open_session", policy="bench-egress"))["session_id"]
    with _server():
        direct = [_direct() for _ in range(RUNS)]
        result = await call(
            client, "run_command", command="python3 -", stdin=INSIDE, session_id=session
        )
    check(result["exit_code"] == 0, result)
    found = json.loads(result["stdout"])
    check(found["size"] == STREAM_BYTES, found["size"])
    await call(client, "close_session", session_id=session)
    added = 1000 * (statistics.median(found["connect"]) - statistics.median(direct))
    rate = STREAM_BYTES / MEGABYTE / found["seconds"]
    return [
        Figure(
            "gateway, added to a connection",
            added,
            "ms",
            2,
            True,
            f"through it {spread(found['connect'])}; direct {spread(direct)}",
        ),
        Figure(
            "gateway, carried",
            rate,
            "MB/s",
            100,
            False,
            f"{STREAM_BYTES // MEGABYTE} MB in {found['seconds']:.2f} s",
        ),
    ]


def _direct() -> float:
    start = time.perf_counter()
    socket.create_connection(("127.0.0.1", PORT)).close()
    return time.perf_counter() - start


@contextmanager
def _server() -> Iterator[None]:
    """A server that sends as many bytes as it is asked for."""
    listener = socket.create_server(("127.0.0.1", PORT), backlog=128)

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError, ValueError):
            left = int(client.makefile("rb").readline())
            while left > 0:
                left -= client.send(BLOCK[:left])

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
