"""The document of OpenAPI as a page to read: of its own origin, without scripts."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

Schema = dict[str, Any]

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid; text-transform: capitalize; }
details { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: 6px;
  margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; }
summary code { font-weight: 600; overflow-wrap: anywhere; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
.method { display: inline-block; min-width: 4.5em; }
nav a { margin-right: 1em; }
"""


def page_of(document: Schema) -> str:
    """The page."""
    info, by_tag = document["info"], _by_tag(document)
    title = f"{info['title']}: the HTTP API"
    links = "".join(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag in by_tag)
    sections = "".join(
        f'<section id="{escape(tag)}"><h2>{escape(tag)}</h2>{"".join(operations)}</section>'
        for tag, operations in by_tag.items()
    )
    schemas = "".join(_schema(n, each) for n, each in document["components"]["schemas"].items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>"
        f"<p>{escape(info['description'])}</p><p>The same for programs: "
        f'<a href="openapi.json">openapi.json</a></p><nav>{links}</nav>{sections}'
        f'<section id="schemas"><h2>Results</h2>{schemas}</section></html>\n'
    )


def _by_tag(document: Schema) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            found.setdefault(operation["tags"][0], []).append(_operation(path, method, operation))
    return dict(sorted(found.items()))


def _operation(path: str, method: str, operation: Schema) -> str:
    said = "".join(f"<p>{escape(each)}</p>" for each in operation["description"].split("\n\n"))
    rows = [
        (each["name"], each["in"], each["schema"], each.get("description", ""), needed)
        for each in operation.get("parameters", ())
        for needed in [each.get("required", False)]
    ]
    content: Schema = operation.get("requestBody", {}).get("content", {})
    for media, each in content.items():
        body: Schema = each.get("schema", {})
        must = body.get("required", ())
        fields = body.get("properties", {}).items()
        rows += [(n, "body", s, s.get("description", ""), n in must) for n, s in fields]
        if not fields:
            rows.append(("", "body", {"type": media}, "The bytes as they are.", True))
    answers = "".join(
        f"<tr><td><code>{status}</code><td>{_kinds(answer)}<td>{escape(answer['description'])}"
        for status, answer in operation["responses"].items()
    )
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><code>'
        f'<span class="method">{method.upper()}</span> {escape(path)}</code> '
        f"{escape(operation['summary'])}</summary>{said}"
        f"<table><tr><th>Takes<th>In<th>Type<th>Meaning{_rows(rows)}</table>"
        f"<table><tr><th>Answers<th>Type<th>Meaning{answers}</table></details>"
    )


def _rows(rows: Iterable[tuple[str, str, Schema, str, bool]]) -> str:
    return "".join(
        f"<tr><td><code>{escape(name)}</code>{' (needed)' * needed}<td>{place}"
        f"<td>{_type(schema)}<td>{escape(said)}"
        for name, place, schema, said, needed in rows
    )


def _kinds(answer: Schema) -> str:
    content: Schema = answer.get("content", {})
    return ", ".join(
        f"{_type(each.get('schema', {}))} <code>{escape(media)}</code>"
        for media, each in content.items()
    )


def _schema(name: str, schema: Schema) -> str:
    must = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{' (always)' * (field in must)}<td>{_type(each)}"
        f"<td>{escape(each.get('description', ''))}"
        for field, each in schema.get("properties", {}).items()
    )
    said = escape(schema.get("description", ""))
    return (
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code> {said}'
        f"</summary><table><tr><th>Field<th>Type<th>Meaning{rows}</table></details>"
    )


def _type(schema: Schema) -> str:
    """A type in few words, with a link where it has fields."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(each) for each in choices)
    if "enum" in schema or "const" in schema:
        values: list[Any] = schema.get("enum") or [schema["const"]]
        return " or ".join(f"<code>{escape(str(value)) or 'empty'}</code>" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    bounds = " to ".join(f"{schema[key]:,}" for key in ("minimum", "maximum") if key in schema)
    default = schema.get("default")
    shown = f", {escape(repr(default))} if left out" if default not in (None, "", []) else ""
    return f"{escape(str(schema.get('type', '')))} {bounds}{shown}".strip()
