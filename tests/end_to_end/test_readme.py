"""The README's commands, run as written, in order; only the test command itself is left out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECONDS = 280


def commands() -> list[str]:
    """Every command of a console block, and the two of the first screen."""
    first = re.findall(r"^    (make \w+)", README, re.MULTILINE)
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    typed = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [*first, *typed]


def run(command: str, where: Path) -> str:
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        shlex.split(command), cwd=where, capture_output=True, text=True, timeout=SECONDS, env=environment
    )
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}{done.stdout[-1000:]}"
    return done.stdout


def test_the_first_screen_names_the_two_commands() -> None:
    assert commands()[:2] == ["make demo", "make test"]
    assert README.index("make test") < 2000


@pytest.mark.timeout(600)
def test_the_commands_run_as_written(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")  # the commands name it; what they write stays here
    out = ""
    for command in commands():
        if command == "make test":
            continue
        out += run(command, ROOT if command.startswith("make") else tmp_path)
    assert "bit for bit" in out
    assert "Established:" in out


def test_the_lines_that_the_table_counts_are_those_of_the_example() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [line for line in example.splitlines() if line.strip()]
    simulated = next(i for i, line in enumerate(lines, start=1) if "wr.simulate" in line)
    submitting = sum("wr.connect" in line or ".submit(" in line for line in lines)
    assert f"| Wardround, as above | {simulated} | {simulated + submitting} |" in README
    compile(example, "README.md", "exec")
