"""The README's commands, run as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

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
