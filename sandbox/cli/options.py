"""Options that several commands share, and the settings they make."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sandbox.config import Loaded

SETTINGS = "Settings"

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration file; else $SANDBOX_CONFIG or ~/.config/sandbox/config.yaml.",
        rich_help_panel=SETTINGS,
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir", metavar="DIR", help="Where state is kept.", rich_help_panel=SETTINGS
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="URL",
        help="The engine: unix://, tcp:// or ssh://; or broker:// and a broker's socket.",
        rich_help_panel=SETTINGS,
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="Force an OCI runtime: runc or runsc.",
        rich_help_panel=SETTINGS,
    ),
]
Policies = Annotated[
    Path | None,
    typer.Option(
        "--policies",
        metavar="DIR",
        help="A folder of policies besides the built-in ones.",
        rich_help_panel=SETTINGS,
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        help="debug, info, warning or error.",
        rich_help_panel=SETTINGS,
    ),
]


def settings(config_file: Path | None, **flags: object) -> Loaded:
    """The settings of the file, the environment and these flags.

    Raises:
        ConfigError: A source is wrong.
    """
    from sandbox.config import load

    texts = {key: str(value) if isinstance(value, Path) else value for key, value in flags.items()}
    return load(config_file, os.environ, texts)
