"""Errors of ours in IPython: one line, and every other error as before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from client.errors import ClientError, DataError
from client.notebook import one_line

RAISE_OURS = "from client.errors import DataError\nraise DataError('hillcrest: column age is missing')"


@pytest.fixture
def shell() -> Iterator[Any]:
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance()
    made.history_manager.enabled = False
    yield made
    made.history_manager.end_session()
    InteractiveShell.clear_instance()


def test_an_error_of_ours_is_one_line(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert one_line.install((ClientError,))
    done = shell.run_cell(RAISE_OURS)
    assert isinstance(done.error_in_exec, DataError)
    assert capsys.readouterr().out == "DataError: hillcrest: column age is missing\n"


def test_an_error_of_somebody_else_keeps_its_traceback(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    one_line.install((ClientError,))
    done = shell.run_cell("1 / 0")
    assert isinstance(done.error_in_exec, ZeroDivisionError)
    assert "Traceback" in capsys.readouterr().out


def test_a_formatter_that_was_there_keeps_what_is_its(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    shell.set_custom_exc((KeyError,), lambda shell, kind, *rest, tb_offset=None: seen.append(kind))
    one_line.install((ClientError,))
    one_line.install((ClientError,))  # again, as every name of the API does
    shell.run_cell("{}['age']")
    shell.run_cell(RAISE_OURS)
    assert seen == [KeyError]
    assert capsys.readouterr().out == "DataError: hillcrest: column age is missing\n"


def test_without_ipython_nothing_is_done() -> None:
    InteractiveShell.clear_instance()
    assert not one_line.install((ClientError,))
