"""The documentation site: it builds without a warning, its links resolve, and it loads nothing from elsewhere.

`WARDROUND_DOCS=all` also runs the data scientist's simulation, and the auditor's command on its evidence;
without it, the guide's lines are compared with those of the notebook that the suite executes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import matplotlib
import numpy as np
import pandas as pd
import pytest

import wardround
from client import accounting, job_problems
from client.notebook import datasets
from ledger import example
from tests.coordinator.test_evidence import release_job
from tests.coordinator.ward import Ward, carry
from tests.test_help import COMMANDS, parse

ROOT = Path(__file__).parents[1]
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
    assert not [page for page in site.rglob("*.html") if 'class="mermaid' in page.read_text(encoding="utf-8")]
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//", text), style


def test_every_included_page_and_every_command_is_there(site: Path) -> None:
    for page in hook("included").PAGES.values():
        assert (site / page.removesuffix(".md") / "index.html").is_file()
    commands = (site / "reference/commands/index.html").read_text(encoding="utf-8")
    for words in COMMANDS:
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
                {"output_type": "display_data", "data": {"text/plain": "job:   0%|     | 0/21 [00:00<?]"}},
                {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["one line"]},
            ],
        },
        {"cell_type": "code", "source": "", "outputs": []},
    ]
    assert hook("notebooks").rendered({"cells": cells}).split("\n\n") == [
        "# First\nwords",
        "```python\nx = 1\n```",
        "````{ .text .output .no-copy }\n20%\nred ```\n````",
        '<div class="output"><table>\n</table></div>',
        '<div class="output"><img alt="what the cell draws" src="data:image/png;base64,aGk="></div>',
        "```{ .text .output .no-copy }\none line\n```\n",
    ]


def test_links_between_notebooks_lead_to_their_pages() -> None:
    cell = {"cell_type": "markdown", "source": "[next](02_choose.ipynb#a), [file](x/y.ipynb)"}
    assert hook("notebooks").rendered({"cells": [cell]}) == "[next](02_choose.md#a), [file](x/y.ipynb)\n"


def blocks(page: str, language: str) -> list[str]:
    """Return a page's code of one language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


SIMULATED, LOOKED, SKETCHED, *_ = blocks("docs/how-to/data-scientist.md", "python")


def test_the_simulation_of_the_guide_is_that_of_the_first_notebook() -> None:
    cells = json.loads((ROOT / "notebooks/01_first_federation.ipynb").read_text(encoding="utf-8"))["cells"]
    executed = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
    assert [line for line in SIMULATED.splitlines() if line not in executed.splitlines()] == []


@pytest.mark.skipif(os.environ.get("WARDROUND_DOCS") != "all", reason="WARDROUND_DOCS=all runs it")
def test_the_simulation_of_the_guide_runs_as_written(tmp_path: Path) -> None:
    matplotlib.use("Agg")
    names: dict[str, Any] = {}
    with contextlib.chdir(tmp_path):
        exec(SIMULATED + LOOKED, names)
    assert names["run"].status == "finished"
    assert "Verified." in repr(names["run"])
    assert (tmp_path / "result" / "evidence").is_dir()


def test_the_sketch_of_the_guide_runs_as_written_and_is_not_to_be_submitted(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    columns = {"id": range(80), "age": random.integers(40, 90, 80), "died": random.integers(0, 2, 80)}
    pd.DataFrame(columns).to_csv(tmp_path / "patients.csv", index=False)
    names: dict[str, Any] = {"wr": wardround}
    with contextlib.chdir(tmp_path), pytest.warns(datasets.SketchWarning):
        exec(SKETCHED, names)
    assert len(names["hospitals"]) == 4
    assert job_problems.before_submitting(names["job"].dictionary) != []
    reviewed = names["dictionary"].reviewed(source="a register's report")
    assert job_problems.before_submitting(reviewed) == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `result`, as a finished job leaves it."""
    ward = Ward(tmp_path_factory.mktemp("ward"))
    ward.start()
    carry(ward.rounds(), ward)
    shutil.copytree(release_job(ward), ward.folder / "reader" / "result")
    return ward.folder / "reader"


def test_the_auditors_commands_run_as_written(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished)
    charter, receipt = example.charter().digest(), ""
    done: set[str] = set()
    for line in "".join(blocks("docs/how-to/auditor.md", "console")).splitlines():
        typed = line.removeprefix("$ wardround ").replace("DIGEST", charter).replace("INDEX", receipt).split()
        with pytest.raises(SystemExit) as ended:
            wardround.main(typed)
        out, wrong = capsys.readouterr()
        assert ended.value.code == 0, (line, wrong)
        done.add(" ".join(typed[:2]))
        if typed[1] == "show" and "--json" not in typed:
            receipt = next(line.split()[0] for line in out.splitlines() if line.split()[0].isdigit())
        if typed[1] == "verify":
            assert "Established:" in out
            assert "Not established:" in out
    assert done == {
        "evidence verify",
        *(f"ledger {x}" for x in ("verify", "show", "policy", "prove", "check-proof")),
    }


PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_one_that_would_be_taken(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for line in re.findall(r"^(?:\$ )?(wardround .+)$", text, re.MULTILINE):
        parse(line.replace("INDEX", "7"))
    for words in re.findall(r"`wardround ([a-z -]+)`", text):
        assert {words, words.rpartition(" ")[0]} & set(COMMANDS), words  # the last one may be a name


def test_every_test_that_the_threat_model_names_is_there() -> None:
    text = (ROOT / "docs/explanation/threats.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)`", text)
    assert len(named) > 10
    assert [name for name in named if len(list((ROOT / "tests").rglob(name))) != 1] == []


def test_every_name_of_the_api_is_in_the_reference(pages: dict[Path, Page]) -> None:
    anchors = set().union(*(page.anchors for page in pages.values()))
    for name in wardround.__all__:
        found = getattr(wardround, name)
        assert f"{found.__module__}.{found.__qualname__}" in anchors, name


def test_every_list_of_codes_is_in_the_reference_in_full(site: Path) -> None:
    text = (site / "reference/codes/index.html").read_text(encoding="utf-8")
    generated = hook("generated")
    for _, _, module, name in (*generated.CODES, generated.CHECK):
        for code in getattr(importlib.import_module(module), name):
            assert f"<code>{code}</code>" in text


def test_the_figures_of_privacy_in_plain_words_are_those_of_the_accounting() -> None:
    text = (ROOT / "docs/explanation/privacy.md").read_text(encoding="utf-8")
    odds = re.findall(r"^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) % \|$", text, re.MULTILINE)
    assert len(odds) == 4
    for epsilon, factor, guess in (map(float, row) for row in odds):
        assert math.isclose(math.exp(epsilon), factor, rel_tol=0.05)
        assert abs(100 / (1 + math.exp(-epsilon)) - guess) < 0.5
    releases = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert [int(count) for count, _, _ in releases] == [1, 10, 30, 100]
    one = releases[0][1]
    for count, together, added in releases:
        event = accounting.Event(noise_multiplier=10, sample_rate=1, count=int(count))
        assert accounting.round_up(accounting.job_epsilon([event], 0.0001)) == together
        assert f"{int(count) * float(one):.2g}" == added


def test_the_readmes_numbers_of_lines_are_those_of_its_code() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip()]
    simulated = next(i for i, line in enumerate(lines, 1) if "simulate(" in line)
    submitted = [i for i, line in enumerate(lines, 1) if "connect(" in line or "submit(" in line]
    counted = re.search(r"^\| Wardround, as above \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert counted is not None
    assert (int(counted[1]), int(counted[2])) == (simulated, simulated + len(submitted))
