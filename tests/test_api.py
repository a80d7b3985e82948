"""The names of the Python API: there, lazy, and light for whoever only verifies a log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import wardround

HEAVY = ("IPython", "flwr", "httpx", "matplotlib", "numpy", "opacus", "pandas", "starlette", "torch", "tqdm")
ROOT = Path(__file__).parents[1]


def loaded(code: str) -> str:
    check = f"import sys; {code}; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "import wardround as wr; dir(wr)",
        "import wardround, contextlib\n"
        "with contextlib.suppress(SystemExit): wardround.main(['ledger', '--help'])",
    ],
)
def test_neither_the_import_nor_the_ledger_loads_anything_heavy(code: str) -> None:
    script = f"exec({code!r})"
    assert loaded(script) == "[]"


def test_every_name_is_listed() -> None:
    assert set(wardround.__all__) <= set(dir(wardround))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        wardround.train  # noqa: B018 - read to see it refused
