"""The arguments of the tools: their bounds, and what each means to whoever calls.

A tool's signature is made of these types, so one argument means the same everywhere and is refused
in the same words. Numbers are bounded and finite, texts bounded.

Every character that is published is read by every model of every caller: an argument has a
description, of a sentence, where its name and its tool do not say it all. The description of one
that may be left out says which value stands for that, since some clients have a model give all.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from sandbox.outputs.plain import encodable
from sandbox.policy.units import MIB
from sandbox.server.schemas import EXPLAINED, UNLISTED

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


def _encodable(value: object) -> object:
    return encodable(value) if isinstance(value, str) else value


def at_home(path: str) -> str:
    """A path that begins with ``~``, the home folder, which is the workspace in the images."""
    if path == "~" or path.startswith("~/"):
        return path[1:].lstrip("/") or "."
    return path


def _whole(value: object) -> object:
    return int(value) if isinstance(value, str) and value.strip() in ("0", "1") else value


def _after_last_read(value: object) -> object:
    """None for -1, which clients send that must send every argument."""
    return None if value in (-1, "-1") else value


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

SessionId = Annotated[Text, Field(max_length=128, json_schema_extra={EXPLAINED: True})]
"""Explained once, in the server's instructions, for nearly every tool takes it."""
ItsSessionId = Annotated[Text, Field(max_length=128, json_schema_extra={UNLISTED: True})]
"""Of what has an id of its own, by which it is found: only compared."""
AnySessionId = Annotated[Text, Field(max_length=128, description="Empty: all of yours.")]
KernelId = Annotated[Text, Field(max_length=128, json_schema_extra={EXPLAINED: True})]
"""Explained there, too."""
ExecutionId = CommandId = TerminalId = _Id
PolicyName = Annotated[
    Text, Field(max_length=256, description="As list_policies names it; empty: the default one.")
]
SessionName = Annotated[Text, Field(max_length=64, description="A label of your own.")]
Workspace = Annotated[
    Text,
    Field(
        max_length=64,
        description="Keeps its files under this name; empty: they end with the session.",
    ),
]
WorkspaceName = Annotated[_Name, Field(description="As list_workspaces names it.")]
Reuse = Annotated[bool, Field(description="False: always open another.")]
Forks = Annotated[int, Field(ge=1, le=8, description="How many.")]
NetworkTaken = Annotated[
    Literal["", "none"], Field(description='"none": all of it; empty: only what `deny` names.')
]
Denied = Annotated[
    tuple[Annotated[Text, Field(min_length=1, max_length=255)], ...],
    Field(
        max_length=64,
        description="Names, `*.example.com`, addresses or networks.",
    ),
]
CheckpointName = _Name
Reseed = Annotated[bool, Field(description="False: the same random numbers.")]
WithFiles = Annotated[bool, Field(description="The workspace's files, too.")]
Checkpointing = Annotated[Literal["", "auto"], Field(description='"auto": one before each cell.')]
KernelName = Annotated[_Name, Field(description="See list_kernels.")]
Code = Annotated[Text, BeforeValidator(_encodable), AfterValidator(_short_enough)]
"""A character of it that UTF-8 cannot hold is lost, as it would be in a file."""
CursorPosition = Annotated[
    int, Field(ge=-1, le=MAX_CODE, description="In characters; -1: the end.")
]
DetailLevel = Annotated[
    Literal[0, 1], BeforeValidator(_whole), Field(description="1: the source code too.")
]
Timeout = Annotated[
    _Seconds,
    Field(ge=0, le=MAX_SECONDS, description="Seconds until it is stopped; 0: the policy's limit."),
]
Wait = Annotated[_Seconds, Field(ge=0, le=MAX_WAIT_S, json_schema_extra={EXPLAINED: True})]
"""For its end; explained there, too."""
Detail = Annotated[
    Literal["brief", "full"], Field(description="full: its outputs in nbformat too.")
]
CommandDetail = Annotated[
    Literal["brief", "full"], Field(description="full: up to 96 KiB of output.")
]
ShortWait = Annotated[
    _Seconds, Field(ge=0, le=60, description="Seconds to wait for something new.")
]
ProgressInterval = Annotated[
    _Seconds, Field(ge=0.1, le=MAX_WAIT_S, json_schema_extra={UNLISTED: True})
]
"""Seconds between progress notifications, which a program may choose and a model never sees."""
Command = Annotated[Text, Field(min_length=1, max_length=32 * 1024)]
Folder = Annotated[
    Text,
    AfterValidator(at_home),
    Field(max_length=4096, json_schema_extra={EXPLAINED: True}),
]
"""Explained there, too: empty stands for the workspace."""
Stdin = Annotated[Text, Field(max_length=MAX_CODE)]
Rows = Annotated[int, Field(ge=1, le=500)]
Columns = Annotated[int, Field(ge=1, le=1000)]
Typed = Annotated[Text, Field(max_length=32 * 1024)]
Keys = Annotated[
    tuple[Annotated[Text, Field(max_length=32)], ...],
    Field(
        max_length=256,
        description="To press after the text: enter, tab, escape, backspace, delete, up, down, "
        "left, right, home, end, pageup, pagedown, f1 to f12, ctrl-a to ctrl-z.",
    ),
]
Position = Annotated[
    Annotated[int, Field(ge=0, le=2**53)] | None,
    BeforeValidator(_after_last_read),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 2**53}),  # some clients want a type
    Field(description="A `position` from before; -1: where you last read."),
]
Path = Annotated[Text, AfterValidator(at_home), Field(min_length=1, max_length=4096)]
OptionalPath = Annotated[
    Text, AfterValidator(at_home), Field(max_length=4096, json_schema_extra={EXPLAINED: True})
]
ExportPath = Annotated[
    Text, AfterValidator(at_home), Field(max_length=4096, description="Empty: session.ipynb.")
]
ExportFormat = Annotated[Literal["ipynb", "py"], Field(description="py: a script for IPython.")]
NotebookName = Annotated[Text, Field(max_length=64, json_schema_extra={EXPLAINED: True})]
"""Explained once, in the server's instructions: empty stands for the current one."""
NotebookLabel = Annotated[_Name, Field(description="A name of your own for it.")]
UsedNotebookName = Annotated[Text, Field(min_length=1, max_length=64)]
NotebookPath = Annotated[
    Text, AfterValidator(at_home), Field(max_length=4096, description="Empty: as before.")
]
CellTimeout = Annotated[_Seconds, Field(ge=0, le=MAX_SECONDS)]
CellWait = Annotated[_Seconds, Field(ge=0, le=MAX_WAIT_S)]
"""As for execute_code, which explains them."""
NotebookMode = Literal["connect", "create"]
NotebookKernel = Annotated[
    Text, Field(max_length=128, description="NEW: a kernel of its own; empty: as before.")
]
ResponseFormat = Annotated[
    Literal["brief", "detailed"], Field(description="brief: first lines alone.")
]
CellLimit = Annotated[int, Field(ge=0, le=10_000)]
"""0 stands for as many as fit."""
CellIndex = Annotated[int, Field(ge=-1, le=1_000_000)]
"""As all indices of cells from 0; -1 stands for none, and the cell is named by its id."""
CellPlace = Annotated[int, Field(ge=-1, le=1_000_000, description="From 0; -1: at the end.")]
CellId = Annotated[Text, Field(max_length=64, json_schema_extra={EXPLAINED: True})]
CellIndices = Annotated[
    tuple[Annotated[int, Field(ge=0, le=1_000_000)], ...], Field(max_length=256)
]
CellIds = Annotated[
    tuple[Annotated[Text, Field(min_length=1, max_length=64)], ...], Field(max_length=256)
]
CellType = Literal["code", "markdown", "raw"]
CellSource = Annotated[Text, Field(max_length=MAX_CODE)]
IncludeSource = IncludeOutputs = bool
Streams = Annotated[bool, Field(json_schema_extra={UNLISTED: True})]
"""Whether progress notifications say what a cell writes."""
AllowErrors = Annotated[bool, Field(description="Go on after errors.")]
Depth = Annotated[int, Field(ge=1, le=16)]
StartIndex = Annotated[int, Field(ge=0, le=10_000_000)]
Limit = Annotated[int, Field(ge=1, le=1000)]
Pattern = Annotated[
    Text, Field(max_length=256, description="Only names that match, with * and ? as in a shell.")
]
Content = Annotated[Text, Field(max_length=MAX_CONTENT)]
Encoding = Annotated[
    Literal["utf-8", "base64"], Field(description="base64: `content` is any bytes, encoded.")
]
Mode = Annotated[
    Text,
    Field(
        pattern=r"^$|^[0-7]{3,4}$",
        description="Permissions in octal, such as 755; empty: as before, or 644.",
    ),
]
Replaced = Annotated[Text, Field(min_length=1, max_length=MAX_CODE)]
Replacement = Annotated[Text, Field(max_length=MAX_CODE)]
Line = Annotated[int, Field(ge=1, le=100_000_000)]
LineCount = Annotated[int, Field(ge=1, le=100_000)]
