"""The arguments of the tools: their bounds, and what each means to whoever calls.

A tool's signature is made of these types, so one argument means the same everywhere and is refused
in the same words. Numbers are bounded and finite, texts bounded.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from sandbox.policy.units import MIB

MAX_CODE = MIB
MAX_CONTENT = 3 * MIB
MAX_SECONDS = 7 * 24 * 3600.0
MAX_WAIT_S = 3600.0
DEFAULT_WAIT_S = 50.0
"""Below the minute after which many clients give a call up."""


def _sendable(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains a NUL character, which no name, path or text may hold")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("contains a lone surrogate, which is not valid Unicode") from None
    return text


def at_home(path: str) -> str:
    """A path that begins with ``~``, the home folder, which is the workspace in the images."""
    if path == "~" or path.startswith("~/"):
        return path[1:].lstrip("/") or "."
    return path


def _whole(value: object) -> object:
    return int(value) if isinstance(value, str) and value.strip() in ("0", "1") else value


def _short_enough(text: str) -> str:
    if len(text) > MAX_CODE:
        raise ValueError(
            f"is {len(text)} characters long and may be {MAX_CODE}; write it to a file with "
            "write_file or by REST, then import or run that file"
        )
    return text


Text = Annotated[str, AfterValidator(_sendable)]
"""Text without NUL that can be encoded."""
_Id = Annotated[Text, Field(min_length=1, max_length=128)]
_Name = Annotated[Text, Field(min_length=1, max_length=64)]
_Seconds = Annotated[float, Field(allow_inf_nan=False)]

SessionId = Annotated[
    Text,
    Field(
        max_length=128,
        description="The session, as open_session answered it. Empty: your default session, which "
        "is opened when you have none.",
    ),
]
ItsSessionId = Annotated[
    Text, Field(max_length=128, description="The session it ran in; may be left out.")
]
AnySessionId = Annotated[
    Text, Field(max_length=128, description="One of your sessions; empty: all of them.")
]
KernelId = Annotated[
    Text,
    Field(
        max_length=128,
        description="The kernel, as list_kernels or start_kernel answered it. Empty: the session's "
        "default Python kernel.",
    ),
]
ExecutionId = Annotated[_Id, Field(description="The execution, as execute_code answered it.")]
CommandId = Annotated[_Id, Field(description="The command, as run_command answered it.")]
TerminalId = Annotated[_Id, Field(description="The terminal, as open_terminal answered it.")]
PolicyName = Annotated[
    Text,
    Field(
        max_length=256,
        description="The name of the policy that decides image, limits and isolation. Empty: the "
        "default policy.",
    ),
]
SessionName = Annotated[
    Text, Field(max_length=64, description="A name of your own for the session, to tell it apart.")
]
Workspace = Annotated[
    Text,
    Field(
        max_length=64,
        description="A named workspace: its files are there again, and are kept for the next "
        "session that names it. Empty: files end with the session.",
    ),
]
WorkspaceName = Annotated[_Name, Field(description="The workspace, as list_workspaces names it.")]
Reuse = Annotated[
    bool,
    Field(
        description="True: answer your open session of that policy if there is one. False: always "
        "open another."
    ),
]
NetworkTaken = Annotated[
    Literal["", "none"],
    Field(description='"none" takes the whole network away. Empty: only what `deny` names.'),
]
Denied = Annotated[
    tuple[Annotated[Text, Field(min_length=1, max_length=255)], ...],
    Field(
        max_length=64,
        description="What may no longer be reached: names (`example.com`), all names below one "
        "(`*.example.com`), addresses or networks (`198.51.100.0/24`).",
    ),
]
KernelName = Annotated[_Name, Field(description="The kernel's language: a kernelspec's name.")]
Code = Annotated[
    Text,
    AfterValidator(_short_enough),
    Field(description=f"The code of one cell, as in a notebook; at most {MAX_CODE // MIB} MiB."),
]
CursorPosition = Annotated[
    int,
    Field(
        ge=-1,
        le=MAX_CODE,
        description="The cursor's position in the code, counted in characters; -1: its end.",
    ),
]
DetailLevel = Annotated[
    Literal[0, 1],
    BeforeValidator(_whole),
    Field(description="0: what it is. 1: its source code too, where there is any."),
]
Timeout = Annotated[
    _Seconds,
    Field(
        ge=0,
        le=MAX_SECONDS,
        description="Seconds it may run before it is stopped. 0: as long as the policy allows, "
        "which is also the most.",
    ),
]
Wait = Annotated[
    _Seconds,
    Field(
        ge=0,
        le=MAX_WAIT_S,
        description="Seconds to wait for the end before answering with what there is so far.",
    ),
]
ShortWait = Annotated[
    _Seconds,
    Field(ge=0, le=60, description="The most seconds to wait for something new to appear."),
]
ProgressInterval = Annotated[
    _Seconds,
    Field(
        ge=0.1,
        le=MAX_WAIT_S,
        description="Seconds between progress notifications, which carry new output.",
    ),
]
Command = Annotated[
    Text,
    Field(min_length=1, max_length=32 * 1024, description="The command line, run by `bash -c`."),
]
Folder = Annotated[
    Text,
    AfterValidator(at_home),
    Field(max_length=4096, description="The folder to run in. Empty: the workspace."),
]
Stdin = Annotated[
    Text, Field(max_length=MAX_CODE, description="Text for the command's standard input.")
]
Rows = Annotated[int, Field(ge=1, le=500, description="Height of the terminal in lines.")]
Columns = Annotated[int, Field(ge=1, le=1000, description="Width of the terminal in characters.")]
Typed = Annotated[Text, Field(max_length=32 * 1024, description="Text to type, as it is.")]
Keys = Annotated[
    tuple[Annotated[Text, Field(max_length=32)], ...],
    Field(
        max_length=256,
        description="Named keys to press after the text, in order: enter, tab, escape, backspace, "
        "delete, up, down, left, right, home, end, pageup, pagedown, f1 to f12, ctrl-a to ctrl-z.",
    ),
]
Position = Annotated[
    Annotated[int, Field(ge=0, le=2**53)] | None,
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 2**53}),  # some clients want a type
    Field(
        description="The `position` that an earlier read answered: what came after it is new. "
        "Left out: after your last read.",
    ),
]
Path = Annotated[
    Text,
    AfterValidator(at_home),
    Field(
        min_length=1,
        max_length=4096,
        description="A path inside the container: relative to the workspace, which is also "
        "`~`, or absolute.",
    ),
]
OptionalPath = Annotated[
    Text,
    AfterValidator(at_home),
    Field(max_length=4096, description="A folder inside the container. Empty: the workspace."),
]
Depth = Annotated[int, Field(ge=1, le=16, description="How many levels of folders to go down.")]
StartIndex = Annotated[int, Field(ge=0, le=10_000_000, description="The first entry to answer.")]
Limit = Annotated[int, Field(ge=1, le=1000, description="The most entries to answer.")]
Pattern = Annotated[
    Text, Field(max_length=256, description="Only names that match, with * and ? as in a shell.")
]
Content = Annotated[Text, Field(max_length=MAX_CONTENT, description="The whole new content.")]
Encoding = Annotated[
    Literal["utf-8", "base64"],
    Field(description="How the content is given: as text, or any bytes as base64."),
]
Mode = Annotated[
    Text,
    Field(
        pattern=r"^$|^[0-7]{3,4}$",
        description="Permissions in octal, such as 644 or 755. Empty: as before, or 644.",
    ),
]
Replaced = Annotated[
    Text, Field(min_length=1, max_length=MAX_CODE, description="The exact text to replace.")
]
Replacement = Annotated[Text, Field(max_length=MAX_CODE, description="The text to put there.")]
ReplaceAll = Annotated[bool, Field(description="Replace every occurrence, not exactly one.")]
Recursive = Annotated[bool, Field(description="Delete a folder with all that is in it.")]
Overwrite = Annotated[bool, Field(description="Replace what is at the target already.")]
Line = Annotated[int, Field(ge=1, le=100_000_000, description="The first line to read, from 1.")]
LineCount = Annotated[int, Field(ge=1, le=100_000, description="The most lines to read.")]
