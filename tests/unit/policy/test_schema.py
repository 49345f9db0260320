from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sandbox import resources
from sandbox.policy import Limits, json_schema

SCHEMA = json_schema()


def errors(text: str) -> list[str]:
    data: Any = yaml.safe_load(text)
    return [e.message for e in jsonschema.Draft202012Validator(SCHEMA).iter_errors(data)]


def test_the_published_schema_is_what_the_models_say() -> None:
    published = resources.policies() / "schema" / "policy.json"
    assert json.loads(published.read_text()) == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted(resources.policies().glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_policy_names_the_schema_and_fits_it(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=schema/policy.json\n")
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        *("version: 2", "version: 1\nlimts: {}", "version: 1\nlimits: {memory: 5}"),
        *("version: 1\nlimits: {pids: 1}", "version: 1\ntools: []", "version: 1\nname: x"),
        *("version: 1\nnetwork: bridge", "version: 1\nnetwork: {allow: [{service: all}]}"),
        *("version: 1\nimage: evil", "version: 1\nruntime: {require: none}", "{}"),
        "version: 1\nnetwork: {allow: [{domain: a.b, ports: [70000]}]}",
    ],
)
def test_an_editor_with_the_schema_marks_what_is_wrong(text: str) -> None:
    assert errors(text) != []


def test_every_key_is_described_and_no_title_is_left() -> None:
    assert '"title": "S' not in json.dumps(SCHEMA["properties"])
    described = [key for key, value in SCHEMA["properties"].items() if "description" in value]
    assert {"image", "limits", "network", "mounts", "secrets", "tools"} <= set(described) | {
        key for key, value in SCHEMA["properties"].items() if "$ref" in value or "items" in value
    } | {"image"}


def test_outside_of_files_values_have_their_own_units() -> None:
    limits = Limits.model_json_schema(by_alias=False)["properties"]
    assert limits["memory_bytes"]["type"] == "integer"
    jsonschema.validate(Limits().model_dump(mode="json"), Limits.model_json_schema(by_alias=False))
