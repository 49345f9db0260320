"""A session's network: what it is told, and what is taken from it."""

from __future__ import annotations

import pytest

from sandbox.egress import Tightening
from sandbox.errors import InvalidRequest
from sandbox.processes import CommandResult
from sandbox.sessions import Caller, Session
from sandbox.sessions.journal import Journal
from sandbox.sessions.state import take_slot

from .controllers import Controllers

ALICE = Caller("alice")

pytestmark = pytest.mark.anyio


async def connect(session: Session, authority: str) -> CommandResult:
    """Have a program inside ask for a tunnel."""
    async with session.use():
        return await session.processes.run(f"connect {authority}")


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
            assert (await session.processes.run("true")).denials == ()
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


async def test_a_session_that_the_journal_does_not_know_has_no_network(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.open(ALICE, policy="open")
    with take_slot(controllers.state, "serve") as slot:
        for path in slot.journal.parent.glob(f"{slot.journal.name}*"):
            path.unlink()
    for _ in range(2):  # nor does it come back when the journal has heard of it
        async with controllers.running(keep=True) as later:
            again = await later.get(ALICE, session.session_id)
            assert again.info().network.mode == "none"


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


def test_a_journal_of_the_first_version_gets_a_place_for_what_is_taken_away(
    controllers: Controllers,
) -> None:
    with take_slot(controllers.state, "serve") as slot:
        journal = Journal(slot.journal)
        journal._db.executescript("DROP TABLE tightenings; PRAGMA user_version = 1;")
        journal.opening("s-1", "alice", "", "", 0)
        journal.close()
        journal = Journal(slot.journal)
        journal.tightened("s-1", Tightening(is_off=True))
        assert journal.tightening("s-1") == Tightening(is_off=True)
        journal.close()
