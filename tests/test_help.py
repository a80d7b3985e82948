"""Every command's help has a line that says what it is for, and an example that the command would take."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator

import click
import pytest
from typer.main import get_command

from wardround import NOUNS, app

FOR_A_PERSON = {  # commands without --json, and why no program needs one
    "agreement new": "writes a folder to edit",
    "coordinator unit": "prints a file",
    "demo tamper": "shows a person what verification says",
    "evidence export": "writes a folder; the exit status says whether",
    "hospital approve": "a person's decision; `jobs --json` tells what came of it",
    "hospital join": "talks to a person, who compares a digest by telephone",
    "hospital offer": "shows a person what will be public for ever",
    "hospital pause": "a person's decision",
    "hospital refuse": "a person's decision; `jobs --json` tells what came of it",
    "hospital resume": "a person's decision; `standing --json` tells what came of it",
    "hospital unit": "prints a file",
    "hospital unpause": "a person's decision",
    "hospital withdraw": "a person's decision; `jobs --json` tells what came of it",
    "job new": "writes a folder to edit",
    "ledger append": "writes the log; the exit status says whether",
    "ledger cosign": "writes a file",
    "ledger example": "writes a folder",
    "ledger init": "writes a folder",
    "ledger keygen": "writes a file; prints one line, the public key",
    "ledger policy": "writes a file in a format of its own",
    "ledger prove": "writes a file in a format of its own",
    "ledger sign": "writes a file",
    "member decline": "a person's decision; `proposals --json` tells what came of it",
    "member join": "talks to a person, who compares a digest by telephone",
    "member leave": "a person's decision; `proposals --json` tells what came of it",
    "member rotate": "a person's decision; `proposals --json` tells what came of it",
}


def tree() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its words after `wardround`."""
    for noun, (module, attribute, _) in NOUNS.items():
        yield from below(noun, get_command(getattr(importlib.import_module(module), attribute)))


def below(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield from below(f"{words} {name}", sub)


COMMANDS = dict(tree())


def is_run(command: click.Command) -> bool:
    """Whether it does something by itself."""
    return not isinstance(command, click.Group) or command.invoke_without_command


def examples(command: click.Command) -> list[str]:
    """Return the command lines of its examples, each up to the next one."""
    text = " ".join((command.help or "").split())
    return [
        line.strip()
        for line in re.split(r"Example: |then: |, or ", text)[1:]
        if line.startswith("wardround ")
    ]


@pytest.mark.parametrize("words", COMMANDS)
def test_help_says_what_it_is_for_and_shows_an_example(words: str) -> None:
    command = COMMANDS[words]
    purpose = (command.help or "").partition("Example:")[0].strip()
    assert purpose.endswith(".")
    assert len(purpose.splitlines()[0]) <= 118
    assert any(line.startswith(f"wardround {words} ") for line in examples(command)) or words == "demo"
    for line in examples(command):
        parse(line)


def parse(line: str) -> None:
    """Parse a command line without running it. Raises UsageError if the command would not take it."""
    _, *arguments = shlex.split(line)
    command: click.Command = COMMANDS[arguments[0]]
    del arguments[0]
    while isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    if isinstance(command, click.Group) and not command.invoke_without_command:
        raise click.UsageError(f"no such command: {line}")
    command.make_context("wardround", arguments)


def test_an_example_that_the_command_would_not_take_is_found() -> None:
    parse("wardround ledger show run/log --type round")
    for wrong in (
        "wardround ledger show",
        "wardround ledger show run/log --tpye round",
        "wardround ledger no",
    ):
        with pytest.raises(click.UsageError):
            parse(wrong)


def test_every_command_prints_json_or_is_known_to_be_for_a_person() -> None:
    without = {
        words
        for words, command in COMMANDS.items()
        if is_run(command) and not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == set(FOR_A_PERSON)


def test_the_front_door_lists_every_noun_and_shows_an_example() -> None:
    assert "Example: wardround demo" in str(app.info.help)
    assert all(line.endswith(".") for _, _, line in NOUNS.values())
