"""What is wrong with an argument, as it is told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from sandbox.server import arguments as arg
from sandbox.server.wording import problem


class Given(TypedDict, total=False):
    """Arguments of every kind."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore[reportGeneralTypeIssues]

    timeout: arg.Timeout
    rows: arg.Rows
    reuse: arg.Reuse
    encoding: arg.Encoding
    detail_level: arg.DetailLevel
    keys: arg.Keys
    path: arg.Path
    cwd: arg.Folder
    mode: arg.Mode
    after: arg.Position


ADAPTER: TypeAdapter[Any] = TypeAdapter(Given)
PROPERTIES = ADAPTER.json_schema()["properties"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"timeout": "soon"}, "timeout must be a number from 0 to 604800, not text"),
        ({"timeout": "1e9"}, "timeout must be a number from 0 to 604800"),
        ({"timeout": -1}, "timeout must be a number from 0 to 604800, not -1"),
        ({"timeout": [1]}, "timeout must be a number from 0 to 604800, not a list"),
        ({"timeout": {}}, "timeout must be a number from 0 to 604800, not an object"),
        ({"rows": 2.5}, "rows must be a whole number from 1 to 500, not 2.5"),
        ({"rows": 10**5000}, "rows must be a whole number from 1 to 500, not one so large"),
        ({"after": -2}, "after must be a whole number from 0 to 9007199254740992, not -2"),
        ({"reuse": "perhaps"}, "reuse must be true or false, not text"),
        ({"encoding": "rot13"}, 'encoding must be "utf-8" or "base64"'),
        ({"detail_level": 7}, "detail_level must be 0 or 1, not 7"),
        ({"keys": "enter"}, "keys must be a list of texts, 256 at most, not text"),
        ({"keys": [True]}, "keys[0] must be text of at most 32 characters, not true"),
        ({"path": 7}, "path must be text of 1 to 4,096 characters, not a number"),
        ({"path": ""}, "path must be text of 1 to 4,096 characters, not of 0"),
        ({"cwd": "x" * 5000}, "cwd must be text of at most 4,096 characters, not of 5,000"),
        ({"path": "a\0"}, "path contains a NUL character, which no name, path or text may hold"),
        (
            {"mode": "rw"},
            "mode must be as described: Permissions in octal, such as 755; empty: as before, or "
            "644",
        ),
        ({"pth": "a"}, "pth: there is no such argument; did you mean path?"),
    ],
)
def test_a_wrong_argument_is_told_in_the_tools_words(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python(given)
    assert problem(caught.value.errors()[0], PROPERTIES) == told
