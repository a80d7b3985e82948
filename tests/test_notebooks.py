"""Every notebook runs from the top in a fresh folder, says what its committed copy says, and holds no logic."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import notebooks
from tests.notebooks import Notebook

PRIVATE_NAMES = re.compile(
    r"^\s*(?:from|import)\s+(?!wardround\b)(?:client|coordinator|ledger)\b", re.MULTILINE
)
LOCAL = re.compile(r"(?:/home/|/root/|/Users/|/work/|/tmp/)\w")  # a path of whoever executed it last


def outputs(notebook: Notebook) -> list[Notebook]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text(output: Notebook) -> str:
    if output.output_type == "stream":
        return str(output.text)
    return "\n".join(str(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/"))


@pytest.mark.parametrize("name", notebooks.names())
def test_notebook_runs_from_the_top(name: str, tmp_path: Path) -> None:
    if "HEART_DISEASE" in str(notebooks.read(name)) and not notebooks.HEART_DISEASE.is_dir():
        pytest.skip(f"UCI's heart disease data are not at {notebooks.HEART_DISEASE}")
    found = notebooks.execute(name, tmp_path)
    kinds = [o.output_type for o in outputs(found)]
    assert "error" not in kinds
    assert kinds == [o.output_type for o in outputs(notebooks.read(name))], (
        "execute it again: see tests/notebooks.py"
    )
    assert not [text(o) for o in outputs(found) if o.get("name") == "stderr" and "Warning" in text(o)]


@pytest.mark.parametrize("name", notebooks.names())
def test_committed_notebook_was_executed_and_tells_nothing_of_where(name: str) -> None:
    notebook = notebooks.read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert not LOCAL.search(text(output))
    for cell in code:
        assert not PRIVATE_NAMES.search(cell.source), "a notebook uses public names only"


def test_notebooks_are_numbered_without_a_gap() -> None:
    assert [name[:2] for name in notebooks.names()] == [
        f"{i:02}" for i in range(1, len(notebooks.names()) + 1)
    ]
