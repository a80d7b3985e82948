"""Reference pages that are made from the code itself: commands, codes, endpoints. None can fall behind it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.main import get_command

CODES = (  # heading, what it is about, module, name of the dictionary
    ("A hospital declines a job", "The code of a refusal record.", "client.approval", "REFUSALS"),
    ("A job waits for a person", "The policy allows it, and does not decide it.", "client.approval", "WAITS"),
    ("A hospital refuses a round", "What the gate answers to a message.", "client.gate", "REFUSALS"),
    ("A hospital is left out of a round", "As the round record says it.", "client.job_story", "REASONS"),
    ("A round is aborted", "Its number is used up; the model stays.", "client.job_story", "ABORTS"),
    ("A job ends", "As the record of its end says it.", "client.job_story", "ENDS"),
    ("The coordinator broke its word", "What a hospital keeps evidence of.", "client.owed", "FINDINGS"),
    ("Incidents", "What the digest on the log is of.", "client.receipts", "INCIDENTS"),
    (
        "A hospital waits for a person",
        "Nothing is trained until one looked.",
        "client.standing_cli",
        "REASONS",
    ),
    ("The worker", "What it tells the hospital's own agent.", "client.worker_questions", "CODES"),
    ("Rules", "Why a record may not follow those before it.", "ledger.rule_names", "RULES"),
)
CHECK = (
    "Checks of a hospital's folder",
    "What `wardround hospital check` says.",
    "client.preflight_codes",
    "FAULTS",
)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"commands": commands, "codes": codes, "endpoints": endpoints}
    for name, page in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files


def commands() -> str:
    """Return the help of every command."""
    from wardround import NOUNS

    parts = [
        "# Commands",
        "What `--help` says of each, in one page. An error is one line on standard error and exit status 1; wrong "
        "usage is exit status 2. Words in capitals are yours to fill in.",
    ]
    for noun, (module, attribute, _) in sorted(NOUNS.items()):
        parts += _command(noun, get_command(getattr(importlib.import_module(module), attribute)))
    return "\n\n".join(parts) + "\n"


def _command(words: str, command: click.Command) -> Iterator[str]:
    yield f'{"#" * (2 + words.count(" "))} wardround {words} {{ data-toc-label="{words}" }}'
    said, example = _help(command.help or "")
    yield from said
    if isinstance(command, click.Group) and not command.invoke_without_command:
        for line in example:
            yield f"For example: `{line}`"
    else:
        usage = " ".join((f"wardround {words}", *command.collect_usage_pieces(click.Context(command))))
        yield "\n".join(("```text", usage, *(f"# for example\n{line}" for line in example), "```"))
        shown = [p for p in command.params if not getattr(p, "hidden", False)]
        if rows := [row for row in map(_parameter, shown) if any(row[1:])]:
            yield _table(("argument or option", "what it is"), rows)
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield from _command(f"{words} {name}", sub)


def _help(text: str) -> tuple[list[str], list[str]]:
    """Return the paragraphs of a help, and its examples as they are typed."""
    said, examples = [], []
    for paragraph in re.split(r"\n\s*\n", text.replace("\b", "")):
        words, example, typed = " ".join(paragraph.split()).partition("Example: ")
        if words.strip():
            said.append(_escaped(words.strip()))
        if example:
            examples.append(typed)
    return said, examples


def _parameter(parameter: click.Parameter) -> tuple[str, str]:
    if not isinstance(parameter, click.Option):
        name = parameter.metavar or str(parameter.name).upper()
        return f"`{name}`", _escaped(getattr(parameter, "help", None) or "")
    spelt = ", ".join((*parameter.opts, *parameter.secondary_opts))
    if not parameter.is_flag:
        spelt += f" {parameter.metavar or parameter.type.name.upper()}"
    about = [parameter.help or ""]
    given = parameter.default
    if parameter.required:
        about.append("Must be given.")
    elif isinstance(given, str | int | float) and not isinstance(given, bool) and given != "":
        about.append(f"`{given}` where it is not.")
    return f"`{spelt}`", _escaped(" ".join(filter(None, about)))


def codes() -> str:
    """Return every code that the product says, from the dictionaries that it says them from."""
    parts = [
        "# Codes",
        "Every code is from a fixed list and may be relied on by programs. None that leaves a hospital depends on a "
        "patient's row. Which of them a record may hold is in [the written format](format.md#code-lists).",
    ]
    for heading, about, module, name in CODES:
        found: Mapping[str, str] = getattr(importlib.import_module(module), name)
        rows = [(f"`{code}`", _escaped(words)) for code, words in found.items()]
        parts += [f"## {heading}", f"{about} From `{module}.{name}`.", _table(("code", "means"), rows)]
    heading, about, module, name = CHECK
    faults: Mapping[str, tuple[str, str]] = getattr(importlib.import_module(module), name)
    checks = [(f"`{code}`", level, _escaped(what)) for code, (level, what) in faults.items()]
    parts += [
        f"## {heading}",
        f"{about} From `{module}.{name}`.",
        _table(("code", "level", "what to do"), checks),
    ]
    return "\n\n".join(parts) + "\n"


def endpoints() -> str:
    """Return what the public port answers."""
    from coordinator.endpoint import WHO
    from coordinator.endpoints import ENDPOINTS

    rows = [(f"`{e.method} {e.path}`", _escaped(WHO[e.who.kind]), _escaped(e.summary)) for e in ENDPOINTS]
    intro = "What a coordinator's one public port answers. A running one serves the same as OpenAPI: `/openapi.json`."
    return "\n\n".join(("# Endpoints", intro, _table(("method and path", "who may", "what"), rows))) + "\n"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *(tuple(c.replace("|", "\\|") for c in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Keep what a sentence says from being read as HTML; code between backticks needs none of it."""
    parts = text.split("`")
    return "`".join(p if i % 2 else p.replace("<", "&lt;").replace("[", "\\[") for i, p in enumerate(parts))
