"""A person sees each output once, as it comes, and finds the pictures as files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from sandbox.cli.printing import Printer
from sandbox.errors import InvalidRequest
from sandbox.kernels.models import LateOutput

from ...support.results import result, stream

PNG = base64.b64encode(b"\x89PNG").decode()


def display(**data: Any) -> dict[str, Any]:
    return {"output_type": "display_data", "data": data, "metadata": {}}


def test_a_growing_text_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(tmp_path, "x")
    printer.show(result(stream("a\n"), status="running").outputs)
    printer.show(result(stream("a\nb\n"), status="running").outputs)
    printer.close(result(stream("a\nb\n"), stream("warn\n", "stderr")))
    assert capsys.readouterr() == ("a\nb\n", "warn\n")


def test_a_replaced_text_is_printed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printer = Printer(tmp_path, "x")
    printer.show(result(display(**{"text/plain": "1 of 2"}), status="running").outputs)
    printer.close(result(display(**{"text/plain": "2 of 2"})))
    assert capsys.readouterr().out == "1 of 2\n\n2 of 2\n"


def test_pictures_are_saved_under_numbered_names_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    svg = display(**{"image/svg+xml": "<svg/>"})
    Printer(tmp_path, "plot").close(
        result(display(**{"image/png": PNG, "text/plain": "<Figure>"}), svg)
    )
    assert (tmp_path / "plot-1.png").read_bytes() == b"\x89PNG"
    assert (tmp_path / "plot-2.svg").read_text() == "<svg/>"
    out, err = capsys.readouterr()
    assert out == ""
    assert "plot-1.png" in err
    assert "plot-2.svg" in err


def test_a_damaged_picture_is_said_and_not_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Printer(tmp_path, "x").close(result(display(**{"image/png": "A"})))
    assert "damaged" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--images"):
        Printer(tmp_path / "absent", "x").close(result(display(**{"image/png": PNG})))


def test_how_it_ended_is_said_unless_it_ended_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Printer(tmp_path, "x").close(result())
    assert capsys.readouterr().err == ""
    Printer(tmp_path, "x").close(result(status="timeout", state="restarted", reason="too slow"))
    assert "timeout" in capsys.readouterr().err


def test_json_output_is_not_mixed_with_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Printer(tmp_path, "x", quiet=True).close(result(stream("a")))
    assert capsys.readouterr().out == ""


def test_what_earlier_cells_wrote_is_printed_apart_with_whose_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = LateOutput(execution_id="e1", execution_count=3, text="late")
    Printer(tmp_path, "x").close(result(stream("own\n"), late=(late,)))
    assert capsys.readouterr() == ("own\n", f"{late.words()}\n")
