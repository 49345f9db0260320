"""Each difference between our kernel and ipykernel, and why: the table of docs/kernels.md."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .reference import Transcript, brief

Forget = Callable[[Transcript], None]


@dataclass(frozen=True)
class Difference:
    """One difference."""

    what: str
    why: str
    cases: tuple[str, ...] = ()
    """Where there is one, and nothing else once it is forgotten on both sides."""
    forget: Forget | None = None
    ours: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Where all is another answer: what ours says."""
    sometimes: tuple[str, ...] = ()
    """Where it depends on the moment whether there is one."""

    def explains(self, case: str, ours: Transcript, bare: Transcript) -> bool:
        """Whether that is all that differs in a case of this difference."""
        if case in self.ours:
            return brief(ours) == self.ours[case]
        if self.forget is None:
            return False
        sides = copy.deepcopy(ours), copy.deepcopy(bare)
        for side in sides:
            self.forget(side)
        return sides[0] == sides[1]


def _messages(transcript: Transcript) -> list[dict[str, Any]]:
    return [message for messages in transcript.values() for message in messages]


def _order(transcript: Transcript) -> None:
    """Forget when each stream was written to beside all else; not what, and in which order."""
    messages = transcript.get("iopub", [])
    for name in ("stdout", "stderr"):
        written = [each["content"] for each in messages if each["content"].get("name") == name]
        text = "".join(each["text"] for each in written)
        transcript[name] = [{"text": text}] if text else []
    transcript["iopub"] = [each for each in messages if each["type"] != "stream"]


def _lines(transcript: Transcript) -> None:
    """Forget in which order lines were written, too: by two who do not know each other."""
    _order(transcript)
    for name in ("stdout", "stderr"):
        for message in transcript[name]:
            message["text"] = sorted(message["text"].splitlines())


def _terminal(transcript: Transcript) -> None:
    for message in _messages(transcript):
        if message["type"] == "stream":
            message["content"]["text"] = message["content"]["text"].replace("\r\n", "\n")


def _key(*names: str) -> Forget:
    def forget(transcript: Transcript) -> None:
        for message in _messages(transcript):
            for name in names:
                message["content"].pop(name, None)

    return forget


def _abouts(transcript: Transcript) -> None:
    _key("supported_features")(transcript)
    for message in _messages(transcript):
        banner = message["content"].get("banner")
        if banner is not None:
            message["content"]["banner"] = banner.partition("\nTip:")[0].rstrip()


def _returned(transcript: Transcript) -> None:
    transcript["iopub"] = [
        message for message in transcript["iopub"] if message["type"] != "execute_result"
    ]


DIFFERENCES = (
    Difference(
        "All that a cell shows is in the order in which it was written",
        "ipykernel sends what is in its two streams when they are flushed, stdout first, and after "
        "messages that were sent meanwhile",
        forget=_order,
        ours={
            "order": ("stdout: 1\n", "stderr: 2\n", "stdout: 3\n", "stderr: 4\n", "reply ok"),
        },
        sometimes=(
            *("comm message from the front", "comm handler that raises", "comm of ipykernel"),
            *("comm opened by the front",),
            *("error between prints", "order with flush", "%%capture", "comm closed by the front"),
            *("widget moved by the front", "task between cells", "call_soon", "io_loop"),
        ),
    ),
    Difference(
        "So is what child processes and C code write, and it comes before the cell ends",
        "ipykernel reads the descriptors by a thread of its own: that text comes at any moment, "
        "also after the end",
        forget=_lines,
        sometimes=(
            *("os.write", "os.write to stderr", "printf", "subprocess", "os.system", "fork"),
            *("order with a child", "pool", "sys.__stdout__", "thread that raises"),
        ),
    ),
    Difference(
        "What a thread prints after its cell belongs to that cell",
        "ipykernel gives it to the cell that runs then, whose output it is not",
        ours={
            "thread after its cell": ("stdout: late\n", "reply ok"),
            "while a thread speaks": ("stdout: own\nown again\n", "reply ok"),
        },
    ),
    Difference(
        "`sys.stdout` and `sys.stderr` are text streams of a real process, with `buffer`, "
        "`reconfigure` and `fileno`",
        "programs use them; ipykernel's object has none of these. A character that UTF-8 cannot "
        "hold is escaped, where ipykernel loses the whole message",
        ours={
            "encoding and line_buffering": (
                *("stdout: w", "execute_result: ('utf-8', False, 1)", "reply ok"),
            ),
            "buffer": ("stdout: bytes\n", "reply ok"),
            "reconfigure": ("reply ok",),
            "fileno": ("stdout: by number\n", "reply ok"),
            "not text": ("TypeError: write() argument must be str, not bytes", "reply error"),
            "surrogate": ("stdout: a\\ud800b\n", "reply ok"),
        },
    ),
    Difference(
        "`!cmd` is run without a terminal: lines end in `\\n`, and stderr is told apart",
        "a terminal would be a keyboard that nobody types on, and end with the cell what it has "
        "started in the background",
        cases=("%alias", "!command with a name", "program by its name", "system"),
        forget=_terminal,
        ours={"!command": ("stdout: shell\n", "stderr: error\n", "reply ok")},
    ),
    Difference(
        "A `%%bash` that fails has a traceback of one line",
        "the lines that ipykernel shows are of the magic, not of the user's",
        cases=("%%bash that fails",),
        forget=_key("traceback"),
    ),
    Difference(
        "`sys.exit` ends the cell with its code in the reply's metadata; 0 is success",
        "it is what a program means by it; ipykernel shows every exit as an error, and advice on "
        "how to exit",
        ours={
            "sys.exit": ("SystemExit: 3", "reply error, exit code 3"),
            "sys.exit of nothing": ("reply ok, exit code 0",),
            "sys.exit of words": ("SystemExit: the words", "reply error, exit code 1"),
        },
    ),
    Difference(
        "`asyncio.run` and `run_until_complete` work in a cell without top-level `await`",
        "no loop runs while such a cell does; in ipykernel the kernel's own does",
        ours={
            "asyncio.run": ("execute_result: 1", "reply ok"),
            "run_until_complete": ("execute_result: 2", "reply ok"),
        },
    ),
    Difference(
        "A recursion without end has a traceback of a few lines",
        "ipykernel's repeats the line two thousand times, and takes seconds",
        cases=("recursion",),
        forget=_key("traceback"),
    ),
    Difference(
        "A group of exceptions is an error of the cell, with its whole tree",
        "ipykernel writes it to stderr and sends no error",
        ours={"group": ("ExceptionGroup: two (2 sub-exceptions)", "reply error")},
    ),
    Difference(
        "An error whose own `__str__` fails is told as itself",
        "ipykernel tells the second error, and not the first",
        ours={
            "str that raises": (*("E: <exception str() failed>", "OSError: inner", "reply error"),)
        },
    ),
    Difference(
        "There is no history of earlier sessions, and `history_request` finds by range only",
        "it would be a database in the session, written by a process that may be forked",
        cases=("history of the last", "history by a pattern"),
        forget=_key("history"),
    ),
    Difference(
        "No debugger and no subshells are offered",
        "both need threads, and the first 0.1 s and 10 MB of each kernel; `breakpoint()` asks on "
        "the front's keyboard, and is refused where there is none",
        cases=("kernel info", "kernel info on control"),
        forget=_abouts,
        ours={"debugger": ("debug_reply: {}",)},
        sometimes=("breakpoint",),
    ),
    Difference(
        "There is no connection file, and no ports",
        "the kernel has one pair of sockets to the supervisor and nothing to connect to",
        cases=("connect",),
        forget=_key("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port"),
        sometimes=("%connect_info", "connection file"),
    ),
    Difference(
        "Some objects of the kernel are of classes derived from ipykernel's",
        "they speak over the pair; `isinstance` holds, and the shell has its class's own name, by "
        "which programs know a notebook",
        cases=("send_response",),
        forget=_returned,
        ours={
            "session": ("execute_result: ('PairSession', True)", "reply ok"),
            "display publisher": (
                "execute_result: ('PairDisplayPublisher', 'PairDisplayHook', True)",
                "reply ok",
            ),
            "exit is": (
                "execute_result: ('Exit', <sandbox.supervisor.pykernel.shell.Exit at 0xADDRESS>)",
                "reply ok",
            ),
            "user_ns": ("execute_result: (True, False, '__main__')", "reply ok"),
        },
    ),
    Difference(
        "The present folder is first on `sys.path`, as in any `python3`",
        "ipykernel puts it before the packages only, so that a file of the user's does not hide a "
        "module of Python's; the kernel also runs with `-I`",
        ours={"argv": ("execute_result: (True, 1, '')", "reply ok")},
    ),
    Difference(
        "The kernel's own log lines are not shown",
        "they are about the kernel, in the output of whatever cell was last",
        ours={"comm of no target": ('comm_close: {"comm_id": "f-2", "data": {}}',)},
    ),
)
UNLIKE = {
    "breakpoint": (
        "StdinNotImplementedError: raw_input was called, but this frontend does not support input "
        "requests.",
        "reply error",
    ),
    "%connect_info": ("reply ok",),
    "connection file": ("reply error",),
}
"""How ours ends in the cases of the table of which nothing else is alike."""
