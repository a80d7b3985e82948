"""The tutorials: every notebook of `notebooks/` as a page, with the outputs that it holds; nothing is executed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

INDEX = "tutorials/index.md"
_FENCE = re.compile(r"`{3,}")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LINK = re.compile(r"\]\(([\w.-]+)\.ipynb(#[\w-]+)?\)")
_TABLE = re.compile(r'<table [^>]*class="dataframe"[^>]*>')
_BAR = re.compile(r"^.*: +\d+%\|")  # a progress bar's first look, which a notebook's widget stands for
_STYLE = re.compile(r"<style.*?</style>", re.DOTALL)
_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the notebooks that are there into the navigation."""
    pages = [INDEX, *(f"tutorials/{path.stem}.md" for path in _notebooks(config))]
    for section in config.nav or []:
        if "Tutorials" in section:
            section["Tutorials"] = pages
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, and the list of them."""
    listed = [
        "# Tutorials\n",
        "Notebooks, as the test suite executes them; read them here or run them yourself.\n",
    ]
    for path in _notebooks(config):
        page = rendered(json.loads(path.read_text(encoding="utf-8")))
        found = _HEADING.search(page)
        listed.append(f"- [{found[1] if found else path.stem}]({path.stem}.md)")
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=page))
    if len(listed) == 2:
        listed.append("There are none yet: begin with [from idea to job](../how-to/data-scientist.md).")
    files.append(File.generated(config, INDEX, content="\n".join(listed) + "\n"))
    return files


def _notebooks(config: MkDocsConfig) -> list[Path]:
    return sorted((Path(config.config_file_path).parent / "notebooks").glob("*.ipynb"))


def rendered(notebook: dict[str, Any]) -> str:
    """Return a notebook (nbformat 4) as Markdown."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = _text(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_LINK.sub(r"](\1.md\2)", source))
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(_fenced(source, "python"))
            parts += filter(None, (_output(output) for output in cell["outputs"]))
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    """Return one output: a picture, else HTML, else text."""
    if output["output_type"] == "stream":
        return _shown(_text(output["text"]))
    if output["output_type"] == "error":
        return _shown("\n".join(output["traceback"]))
    data = output["data"]
    if "image/png" in data:
        encoded = "".join(_text(data["image/png"]).split())
        return (
            f'<div class="output"><img alt="what the cell draws" src="data:image/png;base64,{encoded}"></div>'
        )
    if "text/html" in data:  # an empty line would end the block of HTML
        html = _TABLE.sub(
            "<table>", _STYLE.sub("", _text(data["text/html"]))
        )  # as the site's own tables look
        kept = "\n".join(line for line in html.splitlines() if line.strip())
        return f'<div class="output">{kept}</div>'
    said = _text(data.get("text/plain", ""))
    return _shown(said) if said and not _BAR.search(said) else ""


def _shown(text: str) -> str:
    return _fenced(_plain(text), "{ .text .output .no-copy }")


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def _plain(text: str) -> str:
    """Return what a terminal would show in the end: without colours, and a line that is redrawn only once."""
    return "\n".join(
        line.rstrip("\r").rsplit("\r", 1)[-1] for line in _ANSI.sub("", text).rstrip().split("\n")
    )


def _fenced(text: str, language: str) -> str:
    longest = max((len(found) for found in _FENCE.findall(text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
