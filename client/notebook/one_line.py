"""Errors of ours in a notebook: one line that says what is wrong and what to do, in the place of a traceback.

IPython is never imported here: where it is not loaded already, nothing is done.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


def install(errors: tuple[type[BaseException], ...]) -> bool:
    """Have the IPython that runs this process, if any, show `errors` as one line; tell whether there is one.

    Args:
        errors: The bases of our own errors; whatever else is raised keeps its traceback.
    """
    loaded = sys.modules.get("IPython")
    shell = loaded.get_ipython() if loaded is not None and hasattr(loaded, "get_ipython") else None
    if shell is None:
        return False
    before, chosen = tuple(shell.custom_exceptions), shell.CustomTB
    if before and not set(before) <= set(errors):  # somebody else's formatter stays, for what is theirs

        def either(
            shell: Any,
            kind: type[BaseException],
            error: BaseException,
            trace: TracebackType,
            tb_offset: Any = None,
        ) -> Any:
            if isinstance(error, errors):
                return show(shell, kind, error, trace, tb_offset)
            return chosen(kind, error, trace, tb_offset=tb_offset)

        shell.set_custom_exc((*before, *errors), either)
    else:
        shell.set_custom_exc(errors, show)
    return True


def show(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    tb_offset: Any = None,
) -> None:
    """Show an error as its one line, where the shell would show a traceback."""
    del trace, tb_offset
    shell._showtraceback(kind, error, [line(kind, error)])


def line(kind: type[BaseException], error: BaseException) -> str:
    """Return what is shown of an error."""
    return f"{kind.__name__}: {error}"
