"""`sandbox secret`: which values the controller holds, and giving it one. It shows none."""

from __future__ import annotations

import getpass
import json
import sys
from typing import Annotated

import typer

from sandbox.cli import options

secret_app = typer.Typer(
    help="The secrets that policies may use: names and sizes, never values.", no_args_is_help=True
)


@secret_app.command("list")
def secret_list(
    as_json: options.Json = False,
    config: options.ConfigFile = None,
    policies: options.Policies = None,
) -> None:
    """List the secrets in secrets_dir, with the policies that use them, and those that lack."""
    from rich.console import Console
    from rich.table import Table

    from sandbox.cli.wiring import policy_set
    from sandbox.errors import ConfigError
    from sandbox.secretstore import SecretStore

    settings = options.settings(config, policies=policies).settings
    store, known = SecretStore(settings.secrets_dir), policy_set(settings)
    users: dict[str, list[str]] = {name: [] for name in store.names()}
    for policy in map(known.get, known.names()):
        for rule in policy.secrets:
            users.setdefault(rule.name, []).append(policy.name)
    listed: list[dict[str, object]] = []
    table = Table("secret", "bytes", "policies", "problem", box=None, header_style="bold")
    for name, used_by in sorted(users.items()):
        size, problem = None, ""
        try:
            size = store.read(name).size_bytes
        except ConfigError as exc:
            problem = exc.message
        listed.append({"name": name, "bytes": size, "policies": used_by, "problem": problem})
        table.add_row(name, str(size or ""), ", ".join(used_by), problem)
    if as_json:
        print(json.dumps(listed, indent=2))
    else:
        Console().print(table)


@secret_app.command("set")
def secret_set(
    name: Annotated[str, typer.Argument(help="As policies name it.")],
    config: options.ConfigFile = None,
) -> None:
    """Put a secret into secrets_dir, for its owner to read only. The value comes from standard
    input, or is asked for without being shown; never from the command line, which others see.

    Sessions that are open keep the value that they were opened with.

    [bold]sandbox secret set vendor-key < key.txt[/bold]
    """
    from sandbox.secretstore import MAX_VALUE_BYTES, SecretStore

    settings = options.settings(config).settings
    if sys.stdin.isatty():
        value = getpass.getpass(f"Value of {name}: ")
    else:
        value = sys.stdin.read(MAX_VALUE_BYTES + 3)
    path = SecretStore(settings.secrets_dir).write(name, value)
    print(f"{name} is in {path}.", file=sys.stderr)
