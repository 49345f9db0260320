"""`sandbox policy`: looking at policies, comparing them, and checking policy files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli import exits
from sandbox.cli.options import Json, command, group
from sandbox.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from sandbox.config import Settings
    from sandbox.policy import Sentence

app = group("Look at policies, compare them, and check policy files.")


@command(app, "policies", name="list")
def list_policies(settings: Settings) -> None:
    """List the policies, with what they are for; `*` marks the default."""
    from sandbox.cli.folders import policy_set
    from sandbox.policy.units import format_size

    policies = policy_set(settings)
    rows = [
        (
            "*" if policy.name == policies.default else "",
            policy.name,
            str(policy.image),
            format_size(policy.limits.memory_bytes),
            policy.description,
        )
        for policy in map(policies.get, policies.names())
    ]
    print_table(("", "policy", "image", "memory", "description"), rows, wraps=True)


@command(app, "policies", name="show")
def show_policy(settings: Settings, name: str, as_json: Json = False) -> None:
    """Show a policy with every key, as it stands after `extends`."""
    import yaml

    from sandbox.cli.folders import policy_set
    from sandbox.policy import describe

    words = describe(policy_set(settings).get(name))
    if as_json:
        print_json(words)
    else:
        print(yaml.safe_dump(words, sort_keys=False, allow_unicode=True), end="")


@app.command("check")
def check_policies(files: Annotated[list[Path], typer.Argument(metavar="FILE...")]) -> None:
    """Check policy files and say what is wrong, with file, line, key, reason and remedy.

    The exit code is 0 when all are right, 1 otherwise.

    [bold]sandbox policy check my-policies/*.yaml[/bold]
    """
    from sandbox.policy import cautions_of, check_file

    wrong = 0
    for file in files:
        errors = check_file(file)
        wrong += bool(errors)
        for error in errors:
            print(error, file=sys.stderr)
        if not errors:
            print(f"{file}: ok")
        for caution in cautions_of(file):
            print(f"{file}: caution: {caution}", file=sys.stderr)
    raise typer.Exit(exits.FAILED if wrong else exits.OK)


@command(app, "policies", name="explain")
def explain_policy(
    settings: Settings,
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
) -> None:
    """Say in sentences what a policy allows, and which key says so.

    With a question it answers that alone, with the rule that decides. Names are resolved, nothing
    is connected to.

    [bold]sandbox policy explain offline[/bold]

    [bold]sandbox policy explain allowlist --reach api.example.com:443[/bold]

    [bold]sandbox policy explain readonly-data --path /data/datasets/iris.csv[/bold]
    """
    import anyio

    from sandbox.cli.folders import policy_set
    from sandbox.cli.reach import explain_reach
    from sandbox.policy import explain, explain_path

    policy = policy_set(settings).get(name)
    answers = [anyio.run(explain_reach, settings, policy, reach)] if reach else []
    if path:
        answers.append(explain_path(policy, path))
    _print_sentences(answers or explain(policy), as_json)


@command(app, "policies", name="diff")
def diff_policies(settings: Settings, first: str, second: str, as_json: Json = False) -> None:
    """Show where the second policy differs from the first, and whether it is tighter there.

    The exit code is 0 when they say the same, 1 when they differ.

    [bold]sandbox policy diff offline ci-eval[/bold]
    """
    from sandbox.cli.folders import policy_set
    from sandbox.policy import difference

    policies = policy_set(settings)
    changes = difference(policies.get(first), policies.get(second))
    if as_json:
        print_json([asdict(change) for change in changes])
    elif changes:
        rows = [
            (each.key, each.before, each.after, each.direction.replace("other", ""))
            for each in changes
        ]
        print_table(("key", first, second, ""), rows, wraps=True)
    else:
        print(f"{first} and {second} say the same.")
    raise typer.Exit(exits.FAILED if changes else exits.OK)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of policy files, for editors that complete and check.

    It is also in policies/schema/policy.json; the first line of the shipped policies shows how a
    file names it.
    """
    from sandbox.policy import json_schema

    print_json(json_schema())


def _print_sentences(sentences: Sequence[Sentence], as_json: bool) -> None:
    from rich.text import Text

    if as_json:
        print_json([asdict(sentence) for sentence in sentences])
        return
    rows = [(Text(each.topic, "bold"), each.text, Text(each.rule, "dim")) for each in sentences]
    print_table((), rows, wraps=True)
