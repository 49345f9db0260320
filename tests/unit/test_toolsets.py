"""Toolsets: words for tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import config
from sandbox.errors import ConfigError
from sandbox.toolsets import ALL, TOOLS, TOOLSETS, check_toolsets, tools_of


def test_a_word_is_a_toolset_a_tool_or_all_of_them() -> None:
    assert tools_of(["commands", "read_file"]) == {*TOOLSETS["commands"], "read_file"}
    assert tools_of([ALL]) == tools_of(None) == TOOLS
    assert tools_of([]) == frozenset()


def test_a_word_that_is_neither_stands_for_nothing() -> None:
    """A set that a later version no longer has offers nothing, rather than everything."""
    assert tools_of(["notebook"]) == frozenset()
    assert tools_of(["notebook", "read_file"]) == {"read_file"}


def test_no_toolset_has_the_name_of_a_tool() -> None:
    assert not TOOLS & {ALL, *TOOLSETS}


def test_words_are_checked_and_kept_once() -> None:
    assert check_toolsets(["code", "files", "code"]) == ("code", "files")
    for words, reason in (
        (["termnals"], "did you mean terminals"),
        (["read_fil"], "did you mean read_file"),
        ([], "at least one"),
    ):
        with pytest.raises(ValueError, match=reason):
            check_toolsets(words)


def test_the_setting_comes_from_a_flag_a_variable_or_the_file(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    assert config.load(env=env).settings.tools == (ALL,)
    from_env = config.load(env={**env, "SANDBOX_TOOLS": "code, files"})
    from_flag = config.load(env={**env, "SANDBOX_TOOLS": "code"}, flags={"tools": "run_command"})
    file = tmp_path / "config.yaml"
    file.write_text("tools: [code, terminals]")
    assert from_env.settings.tools == ("code", "files")
    assert from_flag.settings.tools == ("run_command",)
    assert config.load(file, env).settings.tools == ("code", "terminals")


def test_a_toolset_that_there_is_not_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean files"):
        config.load(env={"HOME": str(tmp_path)}, flags={"tools": "file"})
    with pytest.raises(ConfigError, match="at least one"):
        config.load(env={"HOME": str(tmp_path)}, flags={"tools": ","})
