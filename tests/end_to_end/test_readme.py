"""The README's commands, run as written; but the test command, and `make demo`, which `test_demo` runs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.end_to_end.readme import README, ROOT, commands, run


def test_the_first_screen_names_the_two_commands() -> None:
    assert commands()[:2] == ["make demo", "make test"]
    assert README.index("make test") < 2000


def test_the_commands_run_as_written(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")  # the commands name it; what they write stays here
    out = "".join(run(command, tmp_path) for command in commands() if not command.startswith("make "))
    assert "Established:" in out


def test_the_lines_that_the_table_counts_are_those_of_the_example() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [line for line in example.splitlines() if line.strip()]
    simulated = next(i for i, line in enumerate(lines, start=1) if "wr.simulate" in line)
    submitting = sum("wr.connect" in line or ".submit(" in line for line in lines)
    assert f"| Wardround, as above | {simulated} | {simulated + submitting} |" in README
    compile(example, "README.md", "exec")
