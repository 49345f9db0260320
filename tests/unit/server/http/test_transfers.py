"""Files over HTTP: conditions on what is there."""

from __future__ import annotations

import httpx
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def file(http: httpx.AsyncClient, session: str) -> str:
    """The path of a file of ten bytes."""
    where = f"{session}/files/f"
    assert (await http.put(where, content=b"0123456789")).status_code == 201
    return where


async def etag_of(http: httpx.AsyncClient, file: str) -> str:
    return (await http.head(file)).headers["etag"]


async def test_a_file_that_has_not_changed_is_not_sent_again(
    http: httpx.AsyncClient, file: str
) -> None:
    etag = await etag_of(http, file)
    for known in (etag, f'"other", W/{etag}', "*"):
        answer = await http.get(file, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    await http.put(file, content=b"new")
    answer = await http.get(file, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content) == (200, b"new")


async def test_a_part_of_a_file_that_has_changed_is_answered_with_the_whole(
    http: httpx.AsyncClient, file: str
) -> None:
    wanted = {"Range": "bytes=0-3", "If-Range": await etag_of(http, file)}
    part = await http.get(file, headers=wanted)
    assert (part.status_code, part.content) == (206, b"0123")
    await http.put(file, content=b"something else")
    whole = await http.get(file, headers=wanted)
    assert (whole.status_code, whole.content) == (200, b"something else")


async def test_what_has_another_etag_is_neither_read_nor_written_nor_deleted(
    http: httpx.AsyncClient, file: str
) -> None:
    old = {"If-Match": await etag_of(http, file)}
    await http.put(file, content=b"new")
    for answer in (
        await http.get(file, headers=old),
        await http.put(file, content=b"x", headers=old),
        await http.delete(file, headers=old),
    ):
        assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
    assert (await http.get(file)).content == b"new"
    now = {"If-Match": await etag_of(http, file)}
    assert (await http.delete(file, headers=now)).status_code == 200


async def test_a_file_is_written_only_where_nothing_is_or_only_where_something_is(
    http: httpx.AsyncClient, session: str, file: str
) -> None:
    new, there = {"If-None-Match": "*"}, {"If-Match": "*"}
    assert (await http.put(file, content=b"x", headers=new)).status_code == 412
    assert (await http.put(f"{session}/files/g", content=b"x", headers=there)).status_code == 412
    assert (await http.put(f"{session}/files/g", content=b"x", headers=new)).status_code == 201
    assert (await http.put(file, content=b"x", headers=there)).status_code == 200
    listed = (await http.get(f"{session}/files", params={"limit": 1})).links["next"]["url"]
    assert [each["name"] for each in (await http.get(listed)).json()["entries"]] == ["g"]
