"""Reference pages that are made from the code itself: commands, codes, endpoints. None can fall behind it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping

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
        "Each `--help` says the same; `wardround NOUN VERB --help` is quicker on a terminal.",
    ]
    for noun, (module, attribute, _) in sorted(NOUNS.items()):
        parts += _command(noun, get_command(getattr(importlib.import_module(module), attribute)))
    return "\n\n".join(parts) + "\n"


def _command(words: str, command: click.Command) -> Iterator[str]:
    yield f"{'#' * (2 + words.count(' '))} wardround {words}"
    yield from _help(command.help or "")
    if not isinstance(command, click.Group) or command.invoke_without_command:
        shown = [p for p in command.params if not getattr(p, "hidden", False)]
        if rows := [_parameter(parameter) for parameter in shown]:
            yield _table(("argument or option", "what it is"), rows)
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield from _command(f"{words} {name}", sub)


def _help(text: str) -> Iterator[str]:
    """Yield the paragraphs, and the example as it is typed."""
    for paragraph in re.split(r"\n\s*\n", text.replace("\b", "")):
        said, example, typed = " ".join(paragraph.split()).partition("Example: ")
        if said.strip():
            yield _escaped(said.strip())
        if example:
            yield f"```text\n{typed}\n```"


def _parameter(parameter: click.Parameter) -> tuple[str, str]:
    if isinstance(parameter, click.Option):
        spelt = ", ".join((*parameter.opts, *parameter.secondary_opts))
        about = parameter.help or ""
        given = parameter.default
        if isinstance(given, str | int | float) and not isinstance(given, bool) and given != "":
            about += f" [default: {given}]"
    else:
        spelt = parameter.metavar or str(parameter.name).upper()
        about = getattr(parameter, "help", None) or ""
    return f"`{spelt}`", _escaped(about)


def codes() -> str:
    """Return every code that the product says, from the dictionaries that it says them from."""
    parts = [
        "# Codes",
        "Every code is from a fixed list and may be relied on by programs. None that leaves a hospital depends on a "
        "patient's row.",
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


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *(tuple(c.replace("|", "\\|") for c in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Keep what a sentence says from being read as HTML; code between backticks needs none of it."""
    parts = text.split("`")
    return "`".join(p if i % 2 else p.replace("<", "&lt;").replace("[", "\\[") for i, p in enumerate(parts))
