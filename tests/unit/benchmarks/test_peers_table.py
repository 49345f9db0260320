"""What a run beside the peers comes to: statistics, tables, and where others do better."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pages, report
from benchmarks.peers import page, table
from benchmarks.peers.contenders import CONTENDERS, MEASURES, SESSION_MEASURES
from benchmarks.peers.protocol import ROOT
from benchmarks.peers.samples import Run, Spread, digits, spread
from benchmarks.peers.wins import REASONS, wins


def a_run() -> Run:
    run = Run({"code": "1"})
    run.add("ours", "open", 5.0, 6.0, 7.0, 8.0)
    run.add("ours", "next", 2.0)
    run.add("ours", "official", 4.5)
    run.add("ours", "programs", 3.0)
    run.add("docker", "open", 300.0)
    run.add("docker", "programs", 6.0)
    run.add("ours-cold", "open", 1.0)
    run.add("jupyter", "next", 1.95)
    run.note("docker", "restart", "no restart")
    run.facts["docker"] = {
        "uid": 1000,
        "capabilities": 0,
        "no new privileges": False,
        "system calls filtered": True,
        "network": ["lo"],
        "root can be written": False,
    }
    run.machine = {"machine": "2 processors"}
    return run


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], Spread(3, 3, 3, 1)),
        ([4.0, 1.0], Spread(2.5, 1, 4, 2)),
        ([1.0, 2.0, 3.0, 4.0, 5.0], Spread(3, 2, 4, 5)),
    ],
)
def test_a_spread_is_the_median_and_what_is_around_it(
    values: list[float], expected: Spread
) -> None:
    assert spread(values) == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.01234, "0.012"), (1.25, "1.2"), (12.34, "12"), (1234.5, "1,234")],
)
def test_numbers_have_as_many_digits_as_say_something(value: float, shown: str) -> None:
    assert digits(value) == shown


def test_a_run_goes_on_only_where_it_measures_the_same(tmp_path: Path) -> None:
    path = tmp_path / "folder/run.json"
    run = a_run()
    run.done.append("round 0 ours")
    run.save(path)
    assert Run.begun(path, {"code": "1"}) == run
    assert Run.begun(path, {"code": "2"}) == Run({"code": "2"})
    path.write_text("{")
    assert Run.begun(path, {"code": "1"}) == Run({"code": "1"})


def test_a_table_has_a_row_for_each_that_was_measured_and_a_dash_for_what_was_not() -> None:
    heading, *rows = table.rows(a_run(), SESSION_MEASURES)
    assert heading[1] == "open, ms"
    by_name = {row[0]: row for row in rows}
    assert set(by_name) == {
        *("this project, pool", "this project, no pool", "docker run", "jupyter_client")
    }
    assert by_name["this project, pool"][1] == "6.5 (5.8–7.2)"
    assert by_name["docker run"][1:4] == ["300", "–", "–"]
    assert pages.markdown([["", "a"], ["b", "1"]]) == "|  | a |\n|---|---:|\n| b | 1 |"


def test_notes_and_facts_are_told() -> None:
    run = a_run()
    assert table.notes(run) == ["docker run, restart → result: no restart"]
    assert ["docker run", "files", "1000", "0", "no", "yes", "lo", "no"] in table.fact_rows(run)
    assert "2.5 ms more than with the lean client" in table.official(run)


def test_others_do_better_where_it_is_more_than_chance_and_more_may_be_better() -> None:
    found = [(win.contender.name, win.measure.name) for win in wins(a_run())]
    assert found == [("docker", "programs")]  # 1.95 against 2 is no difference
    assert "engine alone" in wins(a_run())[0].reason


def test_a_win_that_nobody_has_explained_says_so() -> None:
    run = a_run()
    run.add("smolagents", "open", 1.0)
    (win, _) = wins(run)
    assert win.reason == "nobody has looked yet why."


def test_reasons_are_of_contenders_and_measures_that_there_are() -> None:
    names = {each.name for each in CONTENDERS}
    measures = {each.name for each in MEASURES}
    assert set(REASONS) <= names
    assert all(set(reasons) <= measures for reasons in REASONS.values())


def test_figures_go_between_the_marks_of_the_page(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    begin, end = (f"<!-- {page.WHAT}: {mark} -->" for mark in ("begin", "end"))
    file.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    page.write(a_run(), file)
    text = file.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| docker run | 300 |" in text
    page.write(a_run(), file)
    assert file.read_text() == text
    file.write_text("no marks")
    with pytest.raises(ValueError, match="has no"):
        page.write(a_run(), file)


def test_the_page_has_its_marks_and_says_how_each_contender_is_used() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text()
    for what in (page.WHAT, report.WHAT):
        assert text.count(f"<!-- {what}: begin -->") == text.count(f"<!-- {what}: end -->") == 1
    for contender in CONTENDERS:
        assert " ".join(contender.about.split()) in " ".join(text.split()), contender.name
