"""A notebook as a script."""

from __future__ import annotations

import ast

from sandbox.notebooks.models import Cell, Notebook
from sandbox.notebooks.script import to_script

from .notebooks import notebook


def test_code_is_code_and_the_rest_is_comments() -> None:
    value = Notebook(
        (
            Cell("a", "markdown", "# Title\n\ntext"),
            Cell("b", "code", "x = 1"),
            Cell("c", "code", "while True:\n    pass", {"tags": ["skip-execution"]}),
            Cell("d", "code", "%%bash\necho 'hi'\n"),
        )
    )
    script = to_script(value)
    ast.parse(script)
    assert script == (
        "# %% [markdown]\n# # Title\n#\n# text\n\n"
        "# %%\nx = 1\n\n"
        "# %% skip-execution\n# while True:\n#     pass\n\n"
        "# %%\nget_ipython().run_cell_magic('bash', '', \"echo 'hi'\\n\")\n"
    )


def test_a_line_of_a_comment_cannot_become_code() -> None:
    value = Notebook((Cell("a", "raw", "x\x0cimport os\u2028import sys\r\nimport re"),))
    assert ast.parse(to_script(value)).body == []
    assert notebook() == Notebook()
