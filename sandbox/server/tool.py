"""Tools that refuse what they do not know, and errors that say what to do.

The SDK ignores arguments that a tool does not have, and shows a validation error as pydantic words
it. A :class:`StrictTool` refuses unknown arguments before anything runs, names each wrong argument
and its reason in a line, and turns a ``SandboxError`` into a failed result with its remedy.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import Any, TypeVar, cast

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ContentBlock, TextContent, ToolAnnotations
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from sandbox.bulkheads.bulkhead import Section
from sandbox.errors import FileError, SandboxError
from sandbox.outputs.plain import escaped
from sandbox.server.desk import Desk, grant_of

ERROR_META_KEY = "io.sandbox/error"
MAX_PROBLEMS = 8
MAX_ITEMS = 256
"""Of an argument that is a list; no tool takes more."""

CallContext = Context[Any, Any]
_Method = TypeVar("_Method", bound=Callable[..., Awaitable[CallToolResult]])


class StrictTool(Tool):
    """A tool whose arguments are exactly those of its signature."""

    async def run(
        self, arguments: dict[str, Any], context: CallContext, convert_result: bool = False
    ) -> CallToolResult:
        """Check the token's scopes and the arguments, call the tool, answer what came of it.

        Raises:
            ToolError: An argument is unknown, missing or wrong; nothing has run.
            UnexpectedToolError: A defect of ours; the details stay in the log.
        """
        try:
            grant_of(context).require(self.name)
            with Section(f"the arguments of {self.name}"):
                validated = self._validated(arguments)
        except SandboxError as exc:
            return failure(exc)
        try:
            return await self.fn(**validated, **{self.context_kwarg or "ctx": context})
        except SandboxError as exc:
            return failure(exc)
        except MCPError:
            raise
        except Exception as exc:  # the outermost edge of a call: the SDK logs the cause
            raise UnexpectedToolError(
                f"{self.name} failed because of a defect of the server, not of your request. "
                "The server's log has the details."
            ) from exc

    def _validated(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as the tool takes them; what is too much is refused before it is parsed."""
        known = list(self.fn_metadata.arg_model.model_fields)
        long = [
            name
            for name, value in arguments.items()
            if isinstance(value, list | dict) and len(cast("list[Any]", value)) > MAX_ITEMS
        ]
        if long:
            raise self._refused([f"{printable(long[0])}: has more than {MAX_ITEMS} items"], 0)
        if len(arguments) > len(known):
            unknown = [name for name in arguments if name not in known]
            lines = [_unknown(name, known) for name in unknown[:MAX_PROBLEMS]]
            raise self._refused(lines, len(unknown) - len(lines))
        try:
            return self.fn_metadata.validate_arguments(arguments)
        except ValidationError as exc:
            errors = exc.errors(include_url=False, include_input=False, include_context=False)
            lines = [_problem(error, known) for error in errors[:MAX_PROBLEMS]]
            raise self._refused(lines, len(errors) - len(lines)) from exc

    def _refused(self, lines: list[str], more: int) -> ToolError:
        lines += [f"and {more} more"] if more > 0 else []
        return ToolError(f"{self.name} was not run: " + "; ".join(lines) + ".")


def _problem(error: ErrorDetails, known: list[str]) -> str:
    """What is wrong with one argument, in a line."""
    where = printable(".".join(str(part) for part in error["loc"]))
    if error["type"] == "extra_forbidden":
        return _unknown(where, known)
    if error["type"] == "missing":
        return f"{where}: is required"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _unknown(name: str, known: list[str]) -> str:
    shown = printable(name)
    close = difflib.get_close_matches(shown, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    return f"{shown}: there is no such argument; {hint}"


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
    **bounds: int,
) -> Callable[[_Method], _Method]:
    """Make a method of a :class:`ToolGroup` a tool; its docstring tells the model what it does.

    The method's result is annotated as ``Annotated[CallToolResult, Model]``.

    Args:
        reads: It changes nothing.
        destroys: It may overwrite or remove something.
        repeatable: Calling it again with the same arguments changes nothing more.
        bounds: The numbers that the docstring names in braces.
    """
    hints = ToolAnnotations(
        title=title,
        read_only_hint=reads,
        destructive_hint=destroys,
        idempotent_hint=reads or repeatable,
        open_world_hint=False,
    )

    def declare(method: _Method) -> _Method:
        _declared[method] = hints, bounds
        return method

    return declare


_declared: dict[object, tuple[ToolAnnotations, dict[str, int]]] = {}
_made: dict[object, Tool] = {}
"""Tools by function: deriving the schemas takes 10 ms each, and they are the same for everybody."""


def _is_declared(value: object) -> bool:
    return callable(value) and value in _declared


def _tool(method: MethodType) -> Tool:
    function = method.__func__
    if function not in _made:
        _made[function] = _make(method, *_declared[function])
    return _made[function].model_copy(update={"fn": method})


def _make(fn: Callable[..., Any], hints: ToolAnnotations, bounds: dict[str, int]) -> Tool:
    tool = StrictTool.from_function(
        fn,
        title=hints.title,
        description=" ".join((inspect.getdoc(fn) or "").format(**bounds).split()),
        annotations=hints,
        structured_output=True,
    )
    base = tool.fn_metadata.arg_model
    forbidding = type(base.__name__, (base,), {"model_config": ConfigDict(extra="forbid")})
    tool.fn_metadata.arg_model = forbidding
    tool.parameters = _published(forbidding.model_json_schema(by_alias=True))
    tool.fn_metadata.output_schema = _published(tool.fn_metadata.output_schema)
    return tool


def _published(schema: Any) -> Any:
    """A schema in the words that clients of models understand: no less is refused than before.

    Some take no boolean for ``additionalProperties`` and no enumeration of numbers. Titles that
    pydantic derives from names only cost tokens.
    """
    if isinstance(schema, list):
        return [_published(item) for item in cast(list[Any], schema)]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: _published(value)
        for key, value in cast(dict[str, Any], schema).items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "additionalProperties" and isinstance(value, bool))
    }
    numbers = found.get("enum")
    if found.get("type") == "integer" and isinstance(numbers, list):
        least, most = min(found.pop("enum")), max(cast(list[int], numbers))
        if sorted(cast(list[int], numbers)) != list(range(least, most + 1)):
            raise AssertionError(f"an enumeration of numbers with gaps: {numbers}")
        found |= {"minimum": least, "maximum": most}
    return found


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


def printable(value: str, limit: int = 200) -> str:
    """Text of a caller made safe to repeat: one line, bounded, no control characters."""
    return escaped(value[:limit]) + ("…" if len(value) > limit else "")
