"""`sandbox secret`: which values the controller holds, and giving it one. It shows none."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import Json, command, group
from sandbox.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from sandbox.config import Settings

app = group("The secrets that policies may use: names and sizes, never values.")


@command(app, "policies", name="list")
def list_secrets(settings: Settings, as_json: Json = False) -> None:
    """List the secrets in secrets_dir, with the policies that use them, and those that lack."""
    from sandbox.cli.folders import policy_set
    from sandbox.errors import ConfigError
    from sandbox.secrets import SecretStore

    store, known = SecretStore(settings.secrets_dir), policy_set(settings)
    users: dict[str, list[str]] = {name: [] for name in store.names()}
    for policy in map(known.get, known.names()):
        for rule in policy.secrets:
            users.setdefault(rule.name, []).append(policy.name)
    listed: list[dict[str, object]] = []
    rows: list[tuple[str, ...]] = []
    for name, used_by in sorted(users.items()):
        size, problem = None, ""
        try:
            size = store.read(name).size_bytes
        except ConfigError as exc:
            problem = exc.message
        listed.append({"name": name, "bytes": size, "policies": used_by, "problem": problem})
        rows.append((name, str(size or ""), ", ".join(used_by), problem))
    if as_json:
        print_json(listed)
    else:
        print_table(("secret", "bytes", "policies", "problem"), rows, wraps=True)


@command(app, name="set")
def set_secret(
    settings: Settings, name: Annotated[str, typer.Argument(help="As policies name it.")]
) -> None:
    """Put a secret into secrets_dir, for its owner to read only. The value comes from standard
    input, or is asked for without being shown; never from the command line, which others see.

    Sessions that are open keep the value that they were opened with.

    [bold]sandbox secret set vendor-key < key.txt[/bold]
    """
    from sandbox.secrets import MAX_VALUE_BYTES, SecretStore

    if sys.stdin.isatty():
        value = getpass.getpass(f"Value of {name}: ")
    else:
        value = sys.stdin.read(MAX_VALUE_BYTES + 3)
    path = SecretStore(settings.secrets_dir).write(name, value)
    print(f"{name} is in {path}.", file=sys.stderr)
