"""One table: every tool has a place over HTTP or a reason, and the document says what is served."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from sandbox.audit import AuditLog
from sandbox.server.auth import GUARDED
from sandbox.server.desk import Desk
from sandbox.server.http.documents import Documents
from sandbox.server.http.given import names_in
from sandbox.server.http.idempotency import Replies
from sandbox.server.http.openapi import REFUSALS, openapi_of
from sandbox.server.http.place import Http
from sandbox.server.http.routes import places_of
from sandbox.server.http.table import all_operations
from sandbox.server.scopes import SCOPES
from sandbox.server.tools.catalogue import all_tools

pytestmark = pytest.mark.anyio

METHODS = ("get", "put", "post", "delete")


@pytest.fixture
async def document(desk: Desk) -> dict[str, Any]:
    return openapi_of(all_operations(desk))


async def test_every_tool_has_a_place_over_http_or_a_reason(desk: Desk) -> None:
    operations = all_operations(desk)
    own = {(each.http.method, each.http.template) for each in operations}
    for tool in all_tools(desk):
        place = tool.http
        if isinstance(place, Http):
            assert (place.method, place.template) in own
        else:
            named = re.match(r"(GET|PUT|POST|DELETE) (/[\w/{}]+?)/?(?=$|,| )", place)
            assert named, f"{tool.name} has neither a place nor says what is there instead"
            assert (named[1], named[2]) in own, f"{tool.name}: {place}"


async def test_a_place_is_of_one_operation_only(desk: Desk) -> None:
    operations = all_operations(desk)
    places = places_of(operations, AuditLog.__new__(AuditLog), Replies())
    assert len(places) == len(operations)
    twice = [operations[0], operations[0]]
    with pytest.raises(AssertionError, match="is where"):
        places_of(twice, AuditLog.__new__(AuditLog), Replies())


async def test_a_path_with_slashes_does_not_take_what_is_of_another_operation(desk: Desk) -> None:
    places = places_of(all_operations(desk), AuditLog.__new__(AuditLog), Replies())

    def found(method: str, path: str) -> str:
        scope = {"type": "http", "method": method, "path": f"{GUARDED}{path}", "headers": []}
        return next(each.name for each in places if each.matches(scope)[0].value == 2)

    assert found("GET", "/sessions/s/files") == found("GET", "/sessions/s/files/") == "list_folder"
    assert found("GET", "/sessions/s/files/a/b") == "download_file"
    assert found("HEAD", "/sessions/s/files/a") == "download_file"
    assert found("PUT", "/sessions/s/files/a/") == "upload_file"
    assert not any(
        each.matches(
            {"type": "http", "method": "GET", "path": f"{GUARDED}/sessions\n", "headers": []}
        )[0].value
        for each in places
    )


async def test_the_document_holds_the_table_and_nothing_else(
    desk: Desk, document: dict[str, Any]
) -> None:
    told = {
        (method.upper(), path): each
        for path, item in document["paths"].items()
        for method, each in item.items()
    }
    operations = all_operations(desk)
    assert {(each.http.method, GUARDED + each.http.template) for each in operations} == told.keys()
    for each in operations:
        found = told[each.http.method, GUARDED + each.http.template]
        assert found["operationId"] == each.name
        assert found["security"] == [{"token": [*each.scopes]}]
        assert set(each.scopes) <= set(SCOPES)
        named = {p["name"] for p in found["parameters"] if p["in"] == "path"}
        assert named == set(names_in(each.http.path))
        asked = {p["name"] for p in found["parameters"] if p["in"] == "query"}
        content = found.get("requestBody", {}).get("content", {})
        body = content.get("application/json", {}).get("schema", {})
        assert body.get("additionalProperties", False) is False
        given = named | asked | set(body.get("properties", {}))
        assert given == set(each.arguments) | named
        statuses = {int(status) for status in found["responses"]}
        assert statuses == {each.http.status, *each.statuses, *REFUSALS}


async def test_the_document_is_of_openapi_3_1_and_its_schemas_are_valid(
    document: dict[str, Any],
) -> None:
    assert document["openapi"].startswith("3.1.")
    names = [each["operationId"] for item in document["paths"].values() for each in item.values()]
    assert len(set(names)) == len(names)
    known = document["components"]["schemas"]
    for schema in known.values():
        Draft202012Validator.check_schema(schema)
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        assert reference.removeprefix("#/components/schemas/") in known
    for item in document["paths"].values():
        for each in item.values():
            for parameter in each["parameters"]:
                Draft202012Validator.check_schema(parameter["schema"])


async def test_the_document_and_the_page_are_served_without_a_token_and_are_the_same_for_all(
    http: httpx.AsyncClient, session: str
) -> None:
    with_token = await http.get("/mcp/v1/openapi.json")
    del http.headers["Authorization"]
    without = await http.get("/mcp/v1/openapi.json")
    page = await http.get("/mcp/v1/docs")
    assert without.json() == with_token.json()
    assert session.rpartition("/")[2] not in without.text + page.text
    assert (await http.get("/mcp/v1/policies")).status_code == 401
    assert (await http.get("/mcp/v1/docs", headers={"Host": "evil.example"})).status_code == 421
    assert (await http.post("/mcp/v1/docs")).status_code == 405


async def test_the_page_loads_nothing_and_runs_nothing(http: httpx.AsyncClient) -> None:
    page = await http.get("/mcp/v1/docs")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "<script" not in page.text
    assert not re.findall(r'(?:src|href)="(?!#|openapi\.json")', page.text)
    assert not re.findall(r'https?://|style="|\bon\w+="', page.text)


async def test_the_page_tells_of_every_operation(desk: Desk) -> None:
    operations = all_operations(desk)
    page = Documents(operations)._html.decode()  # pyright: ignore[reportPrivateUsage]
    for each in operations:
        assert f'id="{each.name}"' in page
