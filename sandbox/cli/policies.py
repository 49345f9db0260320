"""`sandbox policy`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import anyio
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sandbox.cli import exits
from sandbox.cli.reach import explain_reach
from sandbox.cli.wiring import policy_set
from sandbox.config import Settings
from sandbox.policy import (
    Sentence,
    check_file,
    describe,
    difference,
    explain,
    explain_path,
    json_schema,
)


def list_policies(settings: Settings) -> None:
    """Print each policy in a line."""
    policies = policy_set(settings)
    table = Table("", "policy", "image", "memory", "description", box=None, header_style="bold")
    for name in policies.names():
        policy = policies.get(name)
        words = describe(policy)
        mark = "*" if name == policies.default else ""
        table.add_row(mark, name, policy.image, words["limits"]["memory"], policy.description)
    Console().print(table)


def show_policy(settings: Settings, name: str, as_json: bool) -> None:
    """Print a policy with every key."""
    words = describe(policy_set(settings).get(name))
    if as_json:
        print(json.dumps(words, indent=2))
    else:
        print(yaml.safe_dump(words, sort_keys=False, allow_unicode=True), end="")


def check_policies(files: list[Path]) -> int:
    """Print what is wrong with the files; the exit code says whether anything is."""
    wrong = 0
    for file in files:
        errors = check_file(file)
        wrong += bool(errors)
        for error in errors:
            print(error, file=sys.stderr)
        if not errors:
            print(f"{file}: ok")
    return exits.FAILED if wrong else exits.OK


def explain_policy(settings: Settings, name: str, *, reach: str, path: str, as_json: bool) -> None:
    """Print what a policy allows, or what it says about one destination and one path."""
    policy = policy_set(settings).get(name)
    answers: list[Sentence] = []
    if reach:
        answers.append(anyio.run(explain_reach, settings, policy, reach))
    if path:
        answers.append(explain_path(policy, path))
    _print_sentences(answers or explain(policy), as_json)


def diff_policies(settings: Settings, first: str, second: str, *, as_json: bool) -> int:
    """Print where two policies differ; the exit code says whether they do."""
    policies = policy_set(settings)
    changes = difference(policies.get(first), policies.get(second))
    if as_json:
        print(json.dumps([asdict(change) for change in changes], indent=2))
    elif changes:
        table = Table("key", first, second, "", box=None, header_style="bold")
        for change in changes:
            mark = "" if change.direction == "other" else change.direction
            table.add_row(change.key, change.before, change.after, mark)
        Console().print(table)
    else:
        print(f"{first} and {second} say the same.")
    return exits.FAILED if changes else exits.OK


def print_schema() -> None:
    """Print the JSON Schema of policy files."""
    print(json.dumps(json_schema(), indent=2))


def _print_sentences(sentences: list[Sentence], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(sentence) for sentence in sentences], indent=2))
        return
    table = Table(box=None, show_header=False)
    for sentence in sentences:
        table.add_row(
            f"[bold]{escape(sentence.topic)}[/]",
            escape(sentence.text),
            f"[dim]{escape(sentence.rule)}[/]",
        )
    Console().print(table)
