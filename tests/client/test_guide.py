"""The guide for a hospital's IT says what the code does: commands, files, exit statuses, codes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
from typer import Typer
from typer.main import get_command

from client import settings
from client.cli import app as hospital
from client.preflight_codes import FAULTS
from client.preflight_keys import DATABASE, KEYS
from coordinator.cli import app as coordinator
from ledger.unit import PERSON, STOPPED, TEMPORARY, USAGE

GUIDE = (Path(__file__).parents[2] / "client" / "README.md").read_text()


def table_of(heading: str) -> str:
    return GUIDE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_the_commands_from_nothing_to_training_are_three_and_counted() -> None:
    block = re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)[0]
    counted = [line for line in block.splitlines() if line[0].isdigit()]
    assert [line[0] for line in counted] == ["1", "2", "3"]
    assert "## From nothing to training: three commands" in GUIDE
    assert [line.split()[3] for line in counted] == ["join", "check", "run"]


def commands(app: Typer) -> set[str]:
    group = get_command(app)
    assert isinstance(group, click.Group)
    return set(group.commands)


def test_every_command_that_it_names_is_one() -> None:
    known = {"hospital": commands(hospital), "coordinator": commands(coordinator)}
    named = set(re.findall(r"wardround (hospital|coordinator) ([a-z]+)", GUIDE))
    founding = {("hospital", "join")}  # enrolment's own
    assert {(noun, verb) for noun, verb in named - founding if verb not in known[noun]} == set()


def test_every_code_has_a_line_and_no_line_is_of_an_older_code() -> None:
    rows = table_of("Every code of `check`")
    assert re.findall(r"^\| `([a-z.-]+)` \|", rows, re.MULTILINE) == list(FAULTS)
    for code, (level, remedy) in FAULTS.items():
        assert f"| `{code}` | {level} | " in rows
        assert remedy.replace("|", "\\|") in rows


def test_every_file_of_the_folder_is_explained() -> None:
    rows = table_of("The folder")
    for name in (*(f"keys/{key}" for key in (*KEYS, DATABASE)), "account.sqlite", "mirror/", "standing.json"):
        assert f"`{name}`" in rows


def test_the_exit_statuses_are_those_of_the_code() -> None:
    found = [int(status) for status in re.findall(r"^\| (\d+) \|", table_of("systemd"), re.MULTILINE)]
    assert found == [STOPPED, PERSON, USAGE, TEMPORARY]


def test_the_journal_settings_that_it_shows_are_settings() -> None:
    [text] = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    settings.Journal(**tomllib.loads(text)["journal"])
