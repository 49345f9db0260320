"""Run in an environment of its own: uses kernels as a client of Jupyter does.

``python kernelclient.py WORK [KERNELSPEC …]`` prints what the function WORK returns, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any

from jupyter_client.manager import KernelManager

READY_S = 120
REPLY_S = 60


@contextmanager
def kernel(name: str, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A kernel's manager and a client of it."""
    manager: Any = KernelManager(kernel_name=name, **options)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=READY_S)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def run(client: Any, code: str, **options: Any) -> dict[str, Any]:
    """Run a cell to its end: its reply and the messages that came of it."""
    heard: list[dict[str, Any]] = []
    options.setdefault("allow_stdin", False)
    reply = client.execute_interactive(code, output_hook=heard.append, timeout=REPLY_S, **options)
    return {"status": reply["content"]["status"], "reply": reply["content"], "heard": shown(heard)}


def shown(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "type": each["msg_type"],
            "content": each["content"],
            "buffers": [bytes(buffer).hex() for buffer in each["buffers"]],
        }
        for each in messages
    ]


def text(done: dict[str, Any]) -> str:
    return "".join(each["content"].get("text", "") for each in done["heard"])


def wait_begun(client: Any, msg_id: str) -> None:
    """Wait until a cell has said something."""
    deadline = time.monotonic() + REPLY_S
    while time.monotonic() < deadline:
        message = client.get_iopub_msg(timeout=REPLY_S)
        if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == "stream":
            return
    raise TimeoutError(msg_id)


def wait_idle(client: Any, msg_id: str) -> None:
    """Wait until all that comes of a cell has come."""
    while True:
        message = client.get_iopub_msg(timeout=REPLY_S)
        is_its = message["parent_header"].get("msg_id") == msg_id
        if is_its and message["content"].get("execution_state") == "idle":
            return


def reply_to(client: Any, msg_id: str) -> dict[str, Any]:
    while True:
        reply = client.get_shell_msg(timeout=REPLY_S)
        if reply["parent_header"].get("msg_id") == msg_id:
            return reply["content"]


# --- works


def basics(name: str) -> Any:
    """All kinds of messages of one kernel, and a look at its heartbeat."""
    with kernel(name) as (manager, client):
        cell = "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7"
        told = {"cell": run(client, cell), "error": run(client, "1 / 0")}
        for ask in ("complete", "inspect"):
            told[ask] = reply_to(client, getattr(client, ask)("prin"))
        told["is_complete"] = reply_to(client, client.is_complete("for x in y:"))
        told["info"] = reply_to(client, client.kernel_info())
        told["beats"] = client.hb_channel.is_beating()
        told["alive"] = manager.is_alive()
        return told


def first_outputs(name: str) -> Any:
    """What the very first cell says, sent before anybody was heard to subscribe."""
    manager: Any = KernelManager(kernel_name=name)
    manager.start_kernel()
    client = manager.client()
    try:
        client.start_channels()
        msg_id = client.execute("print('first')", allow_stdin=False)
        heard = ""
        while True:
            message = client.get_iopub_msg(timeout=REPLY_S)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            heard += message["content"].get("text", "")
            if message["content"].get("execution_state") == "idle":
                return heard
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def interrupt(name: str) -> Any:
    with kernel(name) as (manager, client):
        run(client, "x = 1")
        msg_id = client.execute("import time\nprint('begun')\ntime.sleep(100)")
        wait_begun(client, msg_id)
        manager.interrupt_kernel()
        ended = reply_to(client, msg_id)["ename"]
        wait_idle(client, msg_id)
        return {"interrupted": ended, "kept": text(run(client, "print(x)"))}


def restart(name: str, now: str) -> Any:
    """A restart: what stays, and what does not."""
    with kernel(name) as (manager, client):
        run(client, "x = 1\nopen('kept', 'w').write('file')")
        before = manager.provisioner.session_id
        manager.restart_kernel(now=now == "now")
        client.wait_for_ready(timeout=READY_S)
        told = run(client, "print(open('kept').read(), 'x' in dir())")
        is_same = before == manager.provisioner.session_id
        return {"text": text(told), "count": told["reply"]["execution_count"], "session": is_same}


def asks(name: str) -> Any:
    with kernel(name) as (_manager, client):
        answer = lambda message: client.input(message["content"]["prompt"] + "42")  # noqa: E731
        done = run(client, "print(input('n = '))", allow_stdin=True, stdin_hook=answer)
        refused = run(client, "input('n = ')")
        return {"text": text(done), "refused": refused["reply"]["ename"]}


ECHO = """
from ipykernel.comm import Comm
def opened(comm, message):
    @comm.on_msg
    def echo(message):
        comm.send(message['content']['data'], buffers=[bytes(b)[::-1] for b in message['buffers']])
get_ipython().kernel.comm_manager.register_target('echo', opened)
"""


def comm(name: str) -> Any:
    with kernel(name) as (_manager, client):
        run(client, ECHO)
        content: dict[str, Any] = {"comm_id": "c1", "target_name": "echo", "data": {}}
        client.shell_channel.send(client.session.msg("comm_open", content))
        message = client.session.msg("comm_msg", {"comm_id": "c1", "data": {"n": 1}})
        client.session.send(client.shell_channel.socket, message, buffers=[b"\x00\x01\xff", b""])
        while True:
            heard = client.get_iopub_msg(timeout=REPLY_S)
            if heard["msg_type"] == "comm_msg":
                return shown([heard])[0]


def dies(name: str, code: str) -> Any:
    """A kernel that is killed inside: what its manager sees, and what a restart makes of it."""
    with kernel(name) as (manager, client):
        run(client, "open('kept', 'w').write('file')")
        client.execute(code)
        deadline = time.monotonic() + REPLY_S
        while manager.is_alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        is_alive = manager.is_alive()
        try:
            while True:
                client.get_iopub_msg(timeout=0.2)
        except Empty:
            pass
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=READY_S)
        return {"alive": is_alive, "text": text(run(client, "print(open('kept').read())"))}


def starts(name: str) -> Any:
    """What starting a kernel raises; whatever it leaves is left."""
    manager: Any = KernelManager(kernel_name=name)
    try:
        manager.start_kernel()
    except Exception as exc:
        return {"type": type(exc).__name__, "text": str(exc), "has_kernel": manager.has_kernel}
    manager.shutdown_kernel(now=True)
    return None


def lasts(name: str) -> Any:
    """A kernel in use, until this process is ended; says the process of its bridge."""
    with kernel(name) as (manager, client):
        run(client, "1")
        print(json.dumps({"pid": manager.provisioner.pid}), flush=True)
        if os.environ.get("FORKS") and os.fork() == 0:
            time.sleep(600)
        client.execute("import time\ntime.sleep(600)")
        time.sleep(600)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
