"""`sandbox policy`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from sandbox.cli import exits
from sandbox.cli.wiring import policy_set
from sandbox.config import Settings
from sandbox.policy import check_file, describe


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
