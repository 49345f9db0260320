"""Long lists in pages: what is asked for, and where the next one is (RFC 8288)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request

from sandbox.errors import InvalidRequest
from sandbox.server.wording import problem
from sandbox.values import Frozen

MAX_LIMIT = 1000


class Page(Frozen):
    """Which part of a list is wanted."""

    start_index: int = Field(
        0, ge=0, le=10_000_000, description="How many to leave out at the beginning."
    )
    limit: int = Field(MAX_LIMIT, ge=1, le=MAX_LIMIT, description="How many at most.")


PAGING: Mapping[str, Mapping[str, Any]] = Page.model_json_schema()["properties"]


def page_of(given: Mapping[str, Any]) -> Page:
    """The page that a query asks for.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        return Page.model_validate(dict(given))
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_context=False)[0]
        raise InvalidRequest(f"{problem(error, PAGING)}.") from exc


def next_page(request: Request, start_index: int) -> dict[str, str]:
    """The header that leads to the page which begins there."""
    asked = [each for each in request.query_params.multi_items() if each[0] != "start_index"]
    query = QueryParams([*asked, ("start_index", str(start_index))])
    return {"Link": f'<{request.scope["raw_path"].decode("latin-1")}?{query}>; rel="next"'}
