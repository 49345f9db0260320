"""Tools that refuse what they do not know, and errors that say what to do.

The SDK ignores arguments that a tool does not have, and shows a validation error as pydantic words
it. A :class:`StrictTool` refuses unknown arguments before anything runs, but for those that clients
are known to add; takes null for an argument that is left out; names each wrong argument and what it
must be in a line; and turns a ``SandboxError`` into a failed result with its remedy.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import Any, TypeVar, cast, get_type_hints

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ContentBlock, TextContent, ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandbox.bulkheads.bulkhead import Section
from sandbox.errors import FileError, SandboxError
from sandbox.server.desk import Desk, grant_of
from sandbox.server.foreign import foreign_in
from sandbox.server.http.place import Http
from sandbox.server.schemas import published_arguments, published_result
from sandbox.server.wording import printable, problem, unknown

ERROR_META_KEY = "io.sandbox/error"
SESSION = "session_id"
"""The argument that every tool takes, also one for which it means nothing."""
MAX_PROBLEMS = 8
MAX_ITEMS = 256
"""Of an argument that is a list; no tool takes more."""

CallContext = Context[Any, Any]
_Method = TypeVar("_Method", bound=Callable[..., Awaitable[CallToolResult]])


class StrictTool(Tool):
    """A tool whose arguments are exactly those of its signature."""

    arguments: dict[str, Any] = Field(default_factory=dict[str, Any], exclude=True)
    """Their schemas with every bound, of which ``parameters`` publishes what models need."""
    http: Http | str = Field(default="", exclude=True)
    """Where it is over HTTP; else what is there in its place."""
    result: type[BaseModel] | None = Field(default=None, exclude=True)
    """The model of its structured result."""

    async def run(
        self, arguments: dict[str, Any], context: CallContext, convert_result: bool = False
    ) -> CallToolResult:
        """Check the token's scopes and the arguments, call the tool, answer what came of it.

        Raises:
            ToolError: An argument is unknown, missing or wrong; nothing has run.
            UnexpectedToolError: A defect of ours; the details stay in the log.
        """
        ignored: list[str] = []
        try:
            grant_of(context).require(self.name)
            with Section(f"the arguments of {self.name}"):
                foreign = dict.fromkeys(foreign_in(arguments, self.arguments))
                ours = {name: arguments[name] for name in arguments if name not in foreign}
                ignored = [*foreign, *self._needless(ours)]
                validated = self.validated(ours)
            result = await self.fn(**validated, **{self.context_kwarg or "ctx": context})
        except SandboxError as exc:
            result = failure(exc)
        except ToolError as exc:
            note = f"\n[{_ignored(self.name, ignored)}]" if ignored else ""
            raise ToolError(f"{exc}{note}") from exc
        except MCPError:
            raise
        except Exception as exc:  # the outermost edge of a call: the SDK logs the cause
            raise UnexpectedToolError(
                f"{self.name} failed because of a defect of the server, not of your request. "
                "The server's log has the details."
            ) from exc
        if ignored:
            note = _ignored(self.name, ignored)
            result.content.append(_text(f"[{note}]"))
            if result.structured_content is not None and "notes" in self._told:
                result.structured_content.setdefault("notes", []).append(note)
        return result

    @property
    def _told(self) -> dict[str, Any]:
        """What its structured result may hold."""
        return (self.fn_metadata.output_schema or {}).get("properties", {})

    def _needless(self, arguments: dict[str, Any]) -> list[str]:
        """Take out a session that was named for a tool which acts in none; what to say of it."""
        if SESSION in self.arguments or SESSION not in arguments:
            return []
        return [SESSION] if arguments.pop(SESSION) else []

    def validated(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as the tool takes them; what is too much is refused before it is parsed.

        Raises:
            ToolError: An argument is unknown, missing or wrong.
        """
        long = [
            name
            for name, value in arguments.items()
            if isinstance(value, list | dict) and len(cast("list[Any]", value)) > MAX_ITEMS
        ]
        if long:
            raise self._refused([f"{printable(long[0])} has more than {MAX_ITEMS} items"], 0)
        if len(arguments) > len(self.arguments):
            strange = [name for name in arguments if name not in self.arguments]
            lines = [unknown(name, list(self.arguments)) for name in strange[:MAX_PROBLEMS]]
            raise self._refused(lines, len(strange) - len(lines))
        read = self.fn_metadata.pre_parse_json(arguments)
        given = {name: value for name, value in read.items() if value is not None}
        try:
            return self.fn_metadata.arg_model.model_validate(given).model_dump_one_level()
        except ValidationError as exc:
            errors = exc.errors(include_url=False, include_context=False)
            lines = [problem(error, self.arguments) for error in errors[:MAX_PROBLEMS]]
            raise self._refused(lines, len(errors) - len(lines)) from exc

    def _refused(self, lines: list[str], more: int) -> ToolError:
        lines += [f"and {more} more"] if more > 0 else []
        return ToolError(f"{self.name} was not run: " + "; ".join(lines) + ".")


def _ignored(tool: str, names: list[str]) -> str:
    """That arguments were ignored."""
    shown = ", ".join(printable(name, 60) for name in names[:MAX_PROBLEMS])
    more = f" and {len(names) - MAX_PROBLEMS} more" if len(names) > MAX_PROBLEMS else ""
    return f"ignored, for {tool} has no such argument: {shown}{more}"


class ToolGroup:
    """The tools over a desk's sessions that act on one kind of thing: its methods with a title."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._manager = desk.manager

    def tools(self) -> list[Tool]:
        """The tools, in the order of the methods."""
        names = [name for name, value in vars(type(self)).items() if _is_declared(value)]
        return [_tool(getattr(self, name)) for name in names]


def tool(
    title: str,
    *,
    reads: bool = False,
    destroys: bool = False,
    repeatable: bool = False,
    http: Http | str = "",
    **bounds: int,
) -> Callable[[_Method], _Method]:
    """Make a method of a :class:`ToolGroup` an operation: a tool, and a request over HTTP.

    Its docstring tells models and people what it does, its signature which arguments it has.

    The method's result is annotated as ``Annotated[CallToolResult, Model]``.

    Args:
        reads: It changes nothing.
        destroys: It may overwrite or remove something.
        repeatable: Calling it again with the same arguments changes nothing more.
        http: Where it is over HTTP; for one that is not there, which request does the same.
        bounds: The numbers that the docstring names in braces.
    """
    hints = ToolAnnotations(
        read_only_hint=reads or None,
        destructive_hint=None if reads else destroys,
        idempotent_hint=None if reads else repeatable or None,
        open_world_hint=False,
    )

    def declare(method: _Method) -> _Method:
        _declared[method] = title, hints, http, bounds
        return method

    return declare


_declared: dict[object, tuple[str, ToolAnnotations, Http | str, dict[str, int]]] = {}
_made: dict[object, Tool] = {}
"""Tools by function: deriving the schemas takes 10 ms each, and they are the same for everybody."""


def _is_declared(value: object) -> bool:
    return callable(value) and value in _declared


def _tool(method: MethodType) -> Tool:
    function = method.__func__
    if function not in _made:
        _made[function] = _make(method, *_declared[function])
    return _made[function].model_copy(update={"fn": method})


def _make(
    fn: Callable[..., Any],
    title: str,
    hints: ToolAnnotations,
    http: Http | str,
    bounds: dict[str, int],
) -> Tool:
    tool = StrictTool.from_function(
        fn,
        title=title,
        description=" ".join((inspect.getdoc(fn) or "").format(**bounds).split()),
        annotations=hints,
        structured_output=True,
    )
    base = tool.fn_metadata.arg_model
    tool.fn_metadata.arg_model = type(
        base.__name__, (base,), {"model_config": ConfigDict(extra="forbid")}
    )
    tool.fn_metadata.output_schema = published_result(tool.fn_metadata.output_schema or {})
    schema = base.model_json_schema(by_alias=True)
    return tool.model_copy(
        update={
            "arguments": schema.get("properties", {}),
            "parameters": published_arguments(schema),
            "http": http,
            "result": get_type_hints(fn, include_extras=True)["return"].__metadata__[0],
        }
    )


def reply(result: BaseModel, *content: str | ContentBlock, failed: bool = False) -> CallToolResult:
    """A tool's answer: the model as structured content, and what a reader sees.

    Args:
        failed: What was asked for did not succeed; the structured result says how.
    """
    return CallToolResult(
        content=[_text(each) if isinstance(each, str) else each for each in content],
        structured_content=result.model_dump(mode="json", by_alias=True),
        is_error=failed,
    )


def _text(value: str) -> TextContent:
    return TextContent(type="text", text=value)


def failure(error: SandboxError) -> CallToolResult:
    """A failed call: cause and remedy to read, and the error's code for programs."""
    about = {"code": error.code, "message": error.message, "remedy": error.remedy}
    if isinstance(error, FileError):
        about["reason"] = error.reason
    return CallToolResult(content=[_text(str(error))], is_error=True, _meta={ERROR_META_KEY: about})
