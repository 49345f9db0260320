"""`sandbox policy`: the commands and what their help teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli import options

policy_app = typer.Typer(
    help="Look at policies, compare them, and check policy files.", no_args_is_help=True
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@policy_app.command("list")
def policy_list(config: options.ConfigFile = None, policies: options.Policies = None) -> None:
    """List the policies, with what they are for; `*` marks the default."""
    from sandbox.cli import policies as commands

    commands.list_policies(options.settings(config, policies=policies).settings)


@policy_app.command("show")
def policy_show(
    name: str,
    as_json: Json = False,
    config: options.ConfigFile = None,
    policies: options.Policies = None,
) -> None:
    """Show a policy with every key, as it stands after `extends`."""
    from sandbox.cli import policies as commands

    commands.show_policy(options.settings(config, policies=policies).settings, name, as_json)


@policy_app.command("check")
def policy_check(files: Annotated[list[Path], typer.Argument(metavar="FILE...")]) -> None:
    """Check policy files and say what is wrong, with file, line, key, reason and remedy.

    The exit code is 0 when all are right, 1 otherwise.

    [bold]sandbox policy check my-policies/*.yaml[/bold]
    """
    from sandbox.cli import policies as commands

    raise typer.Exit(commands.check_policies(files))


@policy_app.command("explain")
def policy_explain(
    name: str,
    reach: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Is this reachable? Or http://HOST/PATH, for plain HTTP."
        ),
    ] = "",
    path: Annotated[
        str, typer.Option(metavar="PATH", help="What may be done with this path inside?")
    ] = "",
    as_json: Json = False,
    config: options.ConfigFile = None,
    policies: options.Policies = None,
) -> None:
    """Say in sentences what a policy allows, and which key says so.

    With a question it answers that alone, with the rule that decides. Names are resolved, nothing
    is connected to.

    [bold]sandbox policy explain offline[/bold]

    [bold]sandbox policy explain allowlist --reach api.example.com:443[/bold]

    [bold]sandbox policy explain readonly-data --path /data/datasets/iris.csv[/bold]
    """
    from sandbox.cli import policies as commands

    settings = options.settings(config, policies=policies).settings
    commands.explain_policy(settings, name, reach=reach, path=path, as_json=as_json)


@policy_app.command("diff")
def policy_diff(
    first: str,
    second: str,
    as_json: Json = False,
    config: options.ConfigFile = None,
    policies: options.Policies = None,
) -> None:
    """Show where the second policy differs from the first, and whether it is tighter there.

    The exit code is 0 when they say the same, 1 when they differ.

    [bold]sandbox policy diff offline ci-eval[/bold]
    """
    from sandbox.cli import policies as commands

    settings = options.settings(config, policies=policies).settings
    raise typer.Exit(commands.diff_policies(settings, first, second, as_json=as_json))


@policy_app.command("schema")
def policy_schema() -> None:
    """Print the JSON Schema of policy files, for editors that complete and check.

    It is also in policies/schema/policy.json; the first line of the shipped policies shows how a
    file names it.
    """
    from sandbox.cli import policies as commands

    commands.print_schema()
