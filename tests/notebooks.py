"""Runs the notebooks as a reader would: from the top, in a fresh folder, each in a kernel of its own.

    python -m tests.notebooks [NAME ...]

executes them and writes what came out into the files that are committed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
HEART_DISEASE = ROOT.parent / "shared" / "data" / "heart_disease"  # not ours to publish
Notebook = Any  # a tree of dictionaries with attributes; nbformat's own annotations stop there
_files: Any = nbformat
SECONDS = 120  # for one cell; a limit against hanging, not a measurement


def names() -> list[str]:
    """Return the notebooks in the order of reading."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def read(name: str) -> Notebook:
    return _files.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(name: str, folder: Path) -> Notebook:
    """Run a notebook from the top and return it with what came out. Raises CellExecutionError."""
    notebook = read(name)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # for `!wardround ...`
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "HEART_DISEASE": str(HEART_DISEASE),
    }
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        coalesce_streams=True,
        kernel_name="python3",
        shutdown_kernel="immediate",  # the other way waits three seconds for nothing
        resources={"metadata": {"path": str(folder)}},
    )
    asyncio.run(client.async_execute(env=environment))
    return _plain(notebook)


def _plain(notebook: Notebook) -> Notebook:
    """Leave out what differs from run to run without meaning anything, and progress bars as pictures of widgets."""
    notebook.metadata = _files.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.metadata = _files.from_dict({})
        cell.id = f"cell-{number:02}"
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            if "metadata" in output:
                output.metadata = _files.from_dict({})
    return notebook


def main() -> None:
    for name in sys.argv[1:] or names():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(name, Path(folder))
        _files.validate(notebook)
        _files.write(notebook, FOLDER / f"{name}.ipynb")
        print(f"{name}: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
