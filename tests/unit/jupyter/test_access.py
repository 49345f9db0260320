"""Each tool on a Jupyter Server is asked of its authorizer; one not thought of is not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from jupyter_server.auth.authorizer import AllowAllAuthorizer, Authorizer
from jupyter_server.auth.identity import IdentityProvider, PasswordIdentityProvider, User

from sandbox.errors import NotPermitted
from sandbox.jupyter.access import NEEDS, SHARED, TERMINALS, grant_for, principal_of
from sandbox.jupyter.launching import TOOL
from sandbox.toolsets import TOOLS

pytestmark = pytest.mark.anyio

ADA = User(username="ada")
NEVER_THERE = frozenset(
    {
        *("open_session", "list_sessions", "get_session", "tighten_session", "close_session"),
        *("list_policies", "list_workspaces", "delete_workspace", "fork_session"),
        *("run_command", "get_command", "stop_command", "export_session"),
        *("branch_kernel", "checkpoint_kernel", "rollback_kernel"),
        *("list_checkpoints", "drop_checkpoint"),
    }
)
"""The tools that mean nothing where there is one session, and no sandbox."""


class Asked(Authorizer):
    """Denies one action on one resource, and notes what it was asked."""

    denied = ("", "")

    def is_authorized(self, handler: Any, user: User, action: str, resource: str) -> bool:
        assert user is ADA
        return (action, resource) != self.denied


def handler(authorizer: Authorizer, provider: Any = None, *, token: bool = True) -> Any:
    return cast(
        Any,
        SimpleNamespace(
            authorizer=authorizer,
            identity_provider=provider or PasswordIdentityProvider(),
            token_authenticated=token,
        ),
    )


def test_each_tool_is_there_with_what_it_needs_or_known_to_mean_nothing_here() -> None:
    assert NEEDS.keys() | NEVER_THERE == TOOLS | {TOOL}
    assert NEEDS.keys() & NEVER_THERE == set()
    assert all(NEEDS.values())


async def test_whoever_may_do_everything_may_use_every_tool() -> None:
    grant = await grant_for(handler(AllowAllAuthorizer()), ADA)
    assert grant.permitted == NEEDS.keys()
    assert not grant.may_call("open_session")


@pytest.mark.parametrize(
    ("denied", "lost", "kept"),
    [
        (("execute", "kernels"), "execute_code", "read_file"),
        (("write", "kernels"), "restart_kernel", "get_execution"),
        (("write", "kernels"), "execute_code", "list_kernels"),
        (("write", "kernels"), "run_notebook", "read_notebook"),
        (("read", "contents"), "write_file", "execute_code"),
        (("write", "contents"), "delete_file", "read_file"),
        (("execute", "terminals"), "write_terminal", "execute_code"),
    ],
)
async def test_what_the_authorizer_denies_no_tool_does(
    denied: tuple[str, str], lost: str, kept: str
) -> None:
    authorizer = Asked()
    authorizer.denied = denied
    grant = await grant_for(handler(authorizer), ADA)
    assert {tool for tool, needed in NEEDS.items() if denied in needed} == (
        NEEDS.keys() - grant.permitted
    )
    assert grant.may_call(kept)
    assert not grant.may_call(lost)
    with pytest.raises(NotPermitted):
        grant.require(lost)


async def test_an_answer_that_is_no_plain_yes_is_a_no() -> None:
    class Unsure(Authorizer):
        def is_authorized(self, handler: Any, user: User, action: str, resource: str) -> Any:
            return "perhaps"

    assert (await grant_for(handler(Unsure()), ADA)).permitted == frozenset()


def test_whoever_has_the_one_token_is_one_principal_and_everybody_else_has_a_name() -> None:
    class Hub(IdentityProvider):
        pass

    assert principal_of(handler(AllowAllAuthorizer()), ADA) == SHARED
    assert principal_of(handler(AllowAllAuthorizer(), token=False), ADA) == "ada"
    assert principal_of(handler(AllowAllAuthorizer(), Hub()), ADA) == "ada"


def test_terminals_are_what_is_left_out_where_there_are_none() -> None:
    assert {
        *("open_terminal", "write_terminal", "read_terminal"),
        *("resize_terminal", "close_terminal", "list_terminals"),
    } == TERMINALS
