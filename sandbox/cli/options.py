"""The options that many commands share: those that say where the settings are, or stand for one."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from sandbox.toolsets import ALL, TOOLSETS

_Command = TypeVar("_Command", bound=Callable[..., None])

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

CONTROLLER = ("state_dir", "engine", "runtime", "policies")
"""The settings that decide which controller a command starts."""

_CONFIG_HELP = "The configuration file; else $SANDBOX_CONFIG or ~/.config/sandbox/config.yaml."
_ENGINE_HELP = "The engine: unix://, tcp:// or ssh://; or broker:// and a broker's socket."
_TOOLS_HELP = f"What is offered over MCP, by comma: {ALL}, {', '.join(TOOLSETS)}, or single tools."
_OPTIONS: dict[str, tuple[type, str | None, str]] = {
    "host": (str, None, "The address to bind."),
    "port": (int, None, "The port to bind; 0: any free one."),
    "allowed_hosts": (str, "NAMES", "Host headers to serve, by comma."),
    "config": (Path, "FILE", _CONFIG_HELP),
    "state_dir": (Path, "DIR", "Where state is kept."),
    "engine": (str, "URL", _ENGINE_HELP),
    "runtime": (str, "NAME", "Force an OCI runtime: runc or runsc."),
    "policies": (Path, "DIR", "A folder of policies besides the built-in ones."),
    "tools": (str, "SETS", _TOOLS_HELP),
    "log_level": (str, "LEVEL", "debug, info, warning or error."),
}
"""Of each setting that has a flag: its type, what stands for its value in help, and its meaning."""
_OF_SERVE = ("host", "port", "allowed_hosts", "tools")


def group(help_text: str) -> typer.Typer:
    """A group of commands, which explains itself when none of them is named."""
    return typer.Typer(help=help_text, no_args_is_help=True)


def command(
    app: typer.Typer,
    *flags: str,
    name: str | None = None,
    is_greedy: bool = False,
    **defaults: str,
) -> Callable[[_Command], _Command]:
    """Make a function a command that reads the settings.

    Its first parameter gets them: as :class:`~sandbox.config.Loaded` when it is called ``loaded``.
    The others are the command's own options, and those of the settings come after them.

    Args:
        flags: The settings that the command line may give, besides ``--config``.
        name: The command's name; the function's when None.
        is_greedy: Whether all that follows its first argument is arguments, options too.
        defaults: What a flag says that is not given.
    """

    def register(function: _Command) -> _Command:
        first, *own = inspect.signature(function).parameters.values()

        def run(**values: Any) -> None:
            from sandbox.config import load

            file = values.pop("config")
            given = {flag: values.pop(flag) for flag in flags}
            loaded = load(file, os.environ, given)
            function(loaded if first.name == "loaded" else loaded.settings, **values)

        run.__wrapped__ = function  # pyright: ignore[reportFunctionMemberAccess]  # knows the types
        run.__annotations__ = {each.name: each.annotation for each in own}
        types = get_type_hints(run, include_extras=True)
        parameters = [each.replace(annotation=types[each.name]) for each in own]
        parameters += [_parameter(flag, defaults.get(flag)) for flag in ("config", *flags)]
        run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        run.__doc__ = function.__doc__
        context = {"allow_interspersed_args": False} if is_greedy else None
        app.command(name or function.__name__, context_settings=context)(run)
        return function

    return register


def _parameter(flag: str, default: str | None) -> inspect.Parameter:
    kind, metavar, meaning = _OPTIONS[flag]
    option: Any = typer.Option(
        default,
        f"--{flag.replace('_', '-')}",
        metavar=metavar,
        help=meaning,
        rich_help_panel=None if flag in _OF_SERVE else "Settings",
    )
    return inspect.Parameter(
        flag, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None
    )
