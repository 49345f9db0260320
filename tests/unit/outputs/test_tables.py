"""A table as lines."""

from __future__ import annotations

from sandbox.outputs.tables import MAX_CELLS, MAX_ROWS, Table


def table(rows: list[list[str]], heads: int = 0) -> Table:
    made = Table()
    for number, row in enumerate(rows):
        made.add_row()
        for cell in row:
            made.add_cell(is_head=number < heads)
            made.write(cell)
    return made


def test_a_row_is_a_line_and_those_that_name_columns_have_a_rule() -> None:
    assert table([["", "a"], ["0", "x"]], heads=1).lines() == [" | a", "--- | ---", "0 | x"]
    assert table([["1", "2"]]).lines() == ["1 | 2"]
    assert Table().lines() == []


def test_the_middle_of_a_long_table_is_left_out_and_counted() -> None:
    lines = table([[str(n)] for n in range(1000)]).lines()

    assert lines[0] == "0"
    assert lines[-1] == "999"
    assert f"[… {1000 - MAX_ROWS} rows left out …]" in lines
    assert len(lines) == MAX_ROWS + 1


def test_a_row_of_many_cells_ends_with_how_many_there_are() -> None:
    (line,) = table([[str(n) for n in range(1000)]]).lines()

    assert line.startswith("0 | 1 | 2")
    assert line.endswith(f"[… {1001 - MAX_CELLS} more …]")


def test_rows_without_cells_are_no_lines_and_words_without_a_cell_are_a_row() -> None:
    made = table([["a"], [], [], ["b"], []])
    made.write("tail")

    assert made.lines() == ["a", "b", "tail"]
    assert made.in_one_line() == "a; b; tail"
