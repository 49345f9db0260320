"""What cells show after their end is theirs, and a later result of the kernel tells of it."""

from __future__ import annotations

import pytest

from sandbox.kernels import hearing
from sandbox.kernels.execution import Execution
from sandbox.kernels.kernels import Kernels
from sandbox.kernels.lateoutputs import LATE_BYTES, MAX_LATE, LateOutputs
from sandbox.kernels.messages import CellOptions
from sandbox.kernels.models import ExecutionResult, LateOutput
from sandbox.outputs.redaction import Redactor

from ...support.waiting import until
from .conftest import Bench
from .liars import Content, Liar, lied_to

pytestmark = pytest.mark.anyio


async def ran(kernels: Kernels, code: str, options: CellOptions | None = None) -> Execution:
    execution = await kernels.execute(code, options=options)
    await execution.wait(10)
    return execution


def texts(result: ExecutionResult) -> list[str]:
    return [output["text"] for output in result.outputs]


async def wrote(execution: Execution, text: str) -> None:
    """Wait until its outputs end with a text."""
    await until(lambda: "".join(texts(execution.snapshot())).endswith(text))


async def test_the_next_result_tells_of_it_once_with_whose_it_is(bench: Bench) -> None:
    async with bench.controller() as kernels:
        first = await ran(kernels, "print('in time')\nlater('LATE', 0)")
        await wrote(first, "LATE")
        second, third = await ran(kernels, "print('own')"), await ran(kernels, "print('own')")

        told = LateOutput(execution_id=first.execution_id, execution_count=1, text="LATE")
        assert second.snapshot().late == (told,)
        assert texts(second.snapshot()) == ["own\n"]
        assert third.snapshot().late == ()
        assert texts(first.snapshot()) == ["in time\nLATE"]
        assert first.snapshot().late == ()


async def test_the_running_cell_tells_of_what_comes_meanwhile(bench: Bench) -> None:
    async with bench.controller() as kernels:
        first = await ran(kernels, "later('one ', 0)\nlater('two', 0.1)")
        await wrote(first, "one ")
        second = await kernels.execute("sleep(30)")
        await wrote(first, "two")
        running = second.snapshot()
        await second.cancel()
        ended = await second.wait(10)

    assert running.status == "running"
    assert [each.text for each in running.late] == ["one two"]
    assert ended.late == running.late


async def test_what_is_told_stays_in_the_journal(bench: Bench) -> None:
    async with bench.controller() as kernels:
        first = await ran(kernels, "later('LATE', 0)")
        await wrote(first, "LATE")
        second = await ran(kernels, "1")
        kept = bench.journal.result("s-test", second.execution_id)

    assert kept is not None
    assert [each.text for each in kept.late] == ["LATE"]


async def test_the_next_controller_goes_on_telling_with_the_cell_that_runs(bench: Bench) -> None:
    async with bench.controller() as kernels:
        first = await ran(kernels, "later('one ', 0)")
        await wrote(first, "one ")
        second = await kernels.execute("sleep(30)")
        second_id = second.execution_id
        noted = bench.journal.progressed
        await until(lambda: any(key == second_id and kept.late for key, kept, _ in noted))
    async with bench.controller() as kernels:
        adopted = kernels.execution(second_id)
        await adopted.cancel()
        result = await adopted.wait(10)

    assert result.status == "interrupted"
    assert [(each.execution_id, each.text) for each in result.late] == [
        (first.execution_id, "one ")
    ]


async def test_what_comes_after_a_controllers_end_is_its_cells_too(bench: Bench) -> None:
    async with bench.controller() as kernels:
        first = await ran(kernels, "print('in time')\nlater('LATE', 0.3)")
    async with bench.controller() as kernels:
        await until(lambda: "LATE" in str(bench.journal.result("s-test", first.execution_id)))
        found = kernels.execution(first.execution_id).snapshot()
        second = await ran(kernels, "1")

    assert (found.status, texts(found)) == ("ok", ["in time\nLATE"])
    assert [(each.execution_id, each.text) for each in second.snapshot().late] == [
        (first.execution_id, "LATE")
    ]


async def test_a_cell_that_only_the_journal_has_still_gets_its_output(bench: Bench) -> None:
    async with bench.controller() as kernels:
        first = await ran(kernels, "print('in time')\nlater('LATE', 0.5)")
        first_id = first.execution_id
        del first
        for _ in range(70):
            await ran(kernels, "1")
        await until(lambda: "LATE" in str(bench.journal.result("s-test", first_id)))
        assert texts(kernels.execution(first_id).snapshot()) == ["in time\nLATE"]


async def test_whoever_hears_all_that_the_kernel_says_is_not_told_again(bench: Bench) -> None:
    async with bench.controller() as kernels:
        first = await ran(kernels, "later('LATE', 0)")
        await wrote(first, "LATE")
        clients = await ran(kernels, "1", CellOptions(hears_late=False))
        agents = await ran(kernels, "1")

        assert clients.snapshot().late == ()
        assert [each.text for each in agents.snapshot().late] == ["LATE"]


async def test_a_listener_hears_which_execution_showed_something(bench: Bench) -> None:
    heard: list[Execution] = []
    async with bench.controller() as kernels:
        kernels.late_listeners.append(heard.append)
        first = await ran(kernels, "later('LATE', 0)")
        await until(lambda: bool(heard))
        assert heard == [first]


async def test_nobodys_output_is_not_told_and_not_looked_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hearing, "MAX_RECALLS", 3)

    def forges(liar: Liar, _kind: str, msg_id: str, _content: Content) -> None:
        for forged in range(9):
            for _ in range(2):
                liar.say("iopub", "stream", {"name": "stdout", "text": "x"}, f"forged-{forged}")
        liar.end(msg_id)

    async with lied_to(forges) as (kernels, _):
        journal = kernels._around.journal  # pyright: ignore[reportPrivateUsage]
        asked: list[str] = []
        real = journal.ended
        monkeypatch.setattr(journal, "ended", lambda *key: (asked.append(key[1]), real(*key))[1])
        result = await (await kernels.execute("1")).wait(5)

    assert result.late == ()
    assert asked == ["forged-0", "forged-1", "forged-2"]


def test_what_is_told_is_bounded_and_says_how_much_is_missing() -> None:
    late = LateOutputs()
    for number in range(2 * MAX_LATE):
        for _ in range(100):
            content = {"name": "stdout", "text": f"{number}: {'x' * 1000}\n"}
            late.add(f"e{number}", number, "stream", content)
    late.finish()
    told = late.told()

    assert [each.execution_id for each in told] == [f"e{number}" for number in range(MAX_LATE)]
    assert sum(len(each.text) for each in told) < LATE_BYTES + MAX_LATE * 100
    assert all(each.truncated_bytes > 90_000 for each in told)


def test_what_is_shown_late_is_told_in_words() -> None:
    late = LateOutputs()
    shown = {"text/plain": "<Figure size 640x480>", "image/png": "iVBORw0KGgo="}
    late.add("e", 1, "display_data", {"data": shown})
    late.add("e", 1, "display_data", {"data": {"text/plain": "a value"}})
    late.add("e", 1, "error", {"ename": "ValueError", "evalue": "no", "traceback": ["T"]})
    late.add("e", 1, "comm_msg", {"data": {}})
    late.add("f", None, "clear_output", {})

    assert [each.text for each in late.told()] == ["[image/png]\na value\nValueError: no"]


def test_a_secret_is_not_told_however_it_comes() -> None:
    late = LateOutputs(Redactor({"KEY": "hunter22secret"}))
    for piece in ("key: hunter", "22sec", "ret."):
        late.add("e", 1, "stream", {"name": "stdout", "text": piece})
    assert not late.is_settled or "hunter" not in str(late.told())
    late.finish()
    assert "hunter" not in str(late.told())
    assert late.told()[0].text.endswith(".")


def test_what_was_told_before_is_gone_on_with() -> None:
    before = LateOutput(execution_id="e", execution_count=3, text="one\n", truncated_bytes=5)
    late = LateOutputs(None, (before,))
    late.add("e", 3, "stream", {"name": "stdout", "text": "two"})
    (told,) = late.told()
    assert (told.execution_count, told.text, told.truncated_bytes) == (3, "one\ntwo", 5)


@pytest.mark.parametrize(
    ("late", "place", "words"),
    [
        (
            LateOutput(execution_id="e", execution_count=3, text="hi"),
            "",
            "[output that came after its cell had ended: In [3], execution e]\nhi",
        ),
        (
            LateOutput(execution_id="e", text="hi", truncated_bytes=2000),
            "execution://e",
            "[output that came after its cell had ended: execution e]\nhi\n"
            "[2,000 bytes more of it are in execution://e]",
        ),
    ],
)
def test_a_reader_is_told_whose_it_is_and_where_the_rest_is(
    late: LateOutput, place: str, words: str
) -> None:
    assert late.words(place) == words
