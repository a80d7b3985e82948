"""The documentation site: it builds without a warning, its links resolve, and it loads nothing from elsewhere.

`WARDROUND_DOCS=all` also runs the data scientist's simulation, and the auditor's command on its evidence;
without it, the guide's lines are compared with those of the notebook that the suite executes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
SCIENTIST = (ROOT / "docs/how-to/data-scientist.md").read_text(encoding="utf-8")
LOADS = {"audio", "embed", "iframe", "img", "script", "source", "track", "video"}  # by their `src`
STYLES = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload", "prefetch"}


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/hooks/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Page(HTMLParser):
    """What a page links to, what it loads, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADS and "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and STYLES & set(values.get("rel", "").split()):
            self.loaded.append(values["href"])


def foreign(address: str) -> bool:
    return bool(urlsplit(address).netloc)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(built)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return built


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def broken(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Yield every internal link that leads nowhere."""
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute, for wherever the site is served
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = target in pages and (
                not parts.fragment or unquote(parts.fragment) in pages[target].anchors
            )
            if not known and not (target.is_file() and not parts.fragment):
                yield f"{path.relative_to(site)}: {link}"


def test_every_internal_link_and_anchor_resolves(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 20
    assert list(broken(site, pages)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    here = tmp_path / "index.html"
    page = Page('<h1 id="a"></h1><a href="#a"></a><a href="#b"></a><a href="absent/"></a>')
    assert list(broken(tmp_path, {here: page})) == ["index.html: #b", "index.html: absent/"]


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert [address for page in pages.values() for address in page.loaded if foreign(address)] == []
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//", text), style


def test_every_included_page_and_every_command_is_there(site: Path) -> None:
    for page in hook("included").PAGES.values():
        assert (site / page.removesuffix(".md") / "index.html").is_file()
    commands = (site / "reference/commands/index.html").read_text(encoding="utf-8")
    for words in ("ledger verify", "hospital check", "job submit", "coordinator backup", "member rotate"):
        assert f"wardround {words}<" in commands


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("README.md", "[a](ledger/FORMAT.md#records)", "[a](reference/format.md#records)"),
        ("coordinator/README.md", "[a](../ledger/FORMAT.md)", "[a](../reference/format.md)"),
        ("client/README.md", "[a](#systemd)", "[a](#systemd)"),
        ("ledger/FORMAT.md", "`[a-z](?:[a-z.-]{0,62})?`", "`[a-z](?:[a-z.-]{0,62})?`"),
    ],
)
def test_links_between_included_files_lead_to_their_pages(source: str, text: str, expected: str) -> None:
    assert hook("included").relinked(text, source) == expected


def test_a_list_after_a_paragraph_becomes_one_and_code_stays_as_it_is() -> None:
    spaced = hook("included").spaced
    assert spaced("words\n- a\n  more\n- b") == "words\n\n- a\n  more\n- b\n"
    assert spaced("```text\nx\n- a\n```") == "```text\nx\n- a\n```\n"


def test_a_notebook_keeps_its_words_its_code_and_its_outputs() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# First\n", "words"]},
        {
            "cell_type": "code",
            "source": "x = 1",
            "outputs": [
                {
                    "output_type": "stream",
                    "name": "stdout",
                    "text": ["10%\r20%\n", "\x1b[31mred\x1b[0m ``` \n"],
                },
                {
                    "output_type": "execute_result",
                    "data": {
                        "text/html": '<table border="1" class="dataframe">\n\n</table>',
                        "text/plain": "t",
                    },
                },
                {"output_type": "display_data", "data": {"image/png": "aGk=\n", "text/plain": "<Axes>"}},
                {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["one line"]},
            ],
        },
        {"cell_type": "code", "source": "", "outputs": []},
    ]
    assert hook("notebooks").rendered({"cells": cells}).split("\n\n") == [
        "# First\nwords",
        "```python\nx = 1\n```",
        "````text\n20%\nred ```\n````",
        '<div class="output"><table>\n</table></div>',
        '<img alt="what the cell draws" src="data:image/png;base64,aGk=">',
        "```text\none line\n```\n",
    ]


def code_lines() -> list[list[str]]:
    """Return the lines of code of the page's Python cells: no blank lines, no comments."""
    blocks = re.findall(r"```python\n(.*?)```", SCIENTIST, re.DOTALL)
    return [[x for x in b.splitlines() if x.strip() and not x.lstrip().startswith("#")] for b in blocks]


def test_the_numbers_of_lines_are_those_of_the_guide() -> None:
    simulated, submitted = (len(lines) for lines in code_lines())
    table = (ROOT / "docs/explanation/lines.md").read_text(encoding="utf-8")
    numbers = re.findall(r"^\| Wardround, .*\| (\d+) \| \|$", table, re.MULTILINE)
    assert [int(n) for n in numbers] == [simulated, simulated + submitted]


def test_the_simulation_of_the_guide_is_that_of_the_first_notebook() -> None:
    cells = json.loads((ROOT / "notebooks/01_first_federation.ipynb").read_text(encoding="utf-8"))["cells"]
    executed = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
    (simulated, _) = code_lines()
    assert [line for line in simulated if line not in executed.splitlines()] == []


@pytest.mark.skipif(os.environ.get("WARDROUND_DOCS") != "all", reason="WARDROUND_DOCS=all runs it")
def test_the_guides_of_data_scientist_and_auditor_run_as_written(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    (simulated, _) = code_lines()
    exec("\n".join(simulated), names)
    run = names["run"]
    assert run.status == "finished"
    given = f"evidence verify {run.save(tmp_path / 'result') / 'evidence'} --charter {run.charter}"
    assert "bit for bit" in wardround(given, tmp_path)


def wardround(command: str, where: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "wardround", *command.split()]
    done = subprocess.run(words, cwd=where, capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_auditors_commands_run_as_written(tmp_path: Path) -> None:
    guide = (ROOT / "docs/how-to/auditor.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ wardround (.+)$", guide, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        wardround(command, tmp_path)


def test_links_between_notebooks_lead_to_their_pages() -> None:
    cell = {"cell_type": "markdown", "source": "[next](02_choose.ipynb#a), [file](x/y.ipynb)"}
    assert hook("notebooks").rendered({"cells": [cell]}) == "[next](02_choose.md#a), [file](x/y.ipynb)\n"
