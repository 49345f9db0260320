"""A session's network: what it is told, and what is taken from it."""

from __future__ import annotations

import pytest

from sandbox.commands.models import CommandResult
from sandbox.egress.models import Tightening
from sandbox.errors import InvalidRequest
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from .controllers import Controllers

ALICE = Caller("alice")

pytestmark = pytest.mark.anyio


async def connect(session: Session, authority: str) -> CommandResult:
    """Have a program inside ask for a tunnel."""
    async with session.use():
        return await session.commands.run(f"connect {authority}")


def rule(result: CommandResult) -> str:
    """The rule of the one denial that a command was told of."""
    (denial,) = result.denials
    return denial.rule


async def test_a_command_is_told_what_was_denied_while_it_ran(controllers: Controllers) -> None:
    async with controllers.running() as manager:
        session = await manager.get(ALICE)
        result = await connect(session, "api.example.com:443")
        assert result.stdout.startswith("HTTP/1.1 403 ")
        assert rule(result) == "network: none"
        async with session.use():
            assert (await session.commands.run("true")).denials == ()
        assert [denial.host for denial in session.info().network.denials] == ["api.example.com"]


async def test_a_name_that_is_taken_away_is_denied_from_then_on(controllers: Controllers) -> None:
    async with controllers.running() as manager:
        session = await manager.open(ALICE, policy="open")
        more = Tightening.of("", ["a.example.com", "198.51.100.7"])
        info = await manager.tighten(ALICE, session.session_id, more)
        assert info.network.is_tightened
        assert info.network.deny == ("domain a.example.com", "cidr 198.51.100.7/32")
        assert rule(await connect(session, "a.example.com:443")) == (
            "tightened[0] domain a.example.com"
        )
        await manager.tighten(ALICE, session.session_id, Tightening.of("none", []))
        assert session.info().network.mode == "none"
        assert rule(await connect(session, "b.example.com:443")) == "tightened: network none"


async def test_what_was_taken_away_stays_away_under_the_next_controller(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.open(ALICE, policy="open", name="one")
        other = await first.open(ALICE, policy="open", name="two")
        for name in ("a.example.com", "b.example.com"):
            await first.tighten(ALICE, session.session_id, Tightening.of("", [name]))
    async with controllers.running(keep=True) as second:
        again = await second.get(ALICE, session.session_id)
        assert again.info().network.deny == ("domain a.example.com", "domain b.example.com")
        untouched = await second.get(ALICE, other.session_id)
        assert not untouched.info().network.is_tightened
        assert untouched.info().network.allow == ("domain *.example.com, port 443",)


@pytest.mark.parametrize(
    ("network", "deny"),
    [
        ("", []),
        ("", ["not a name"]),
        ("", ["*.com"]),
        ("", ["example.com:443"]),
        ("", ["http://example.com"]),
        ("", ["10.0.0.0/33"]),
        ("", ["ok.example.com", ""]),
    ],
)
def test_what_no_rule_can_say_is_refused(network: str, deny: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        Tightening.of(network, deny)
