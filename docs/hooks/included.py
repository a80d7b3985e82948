"""Pages that are kept beside the code: the guides, the format, the results. One source; links fit both places."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {  # file of the repository -> page of the site
    "README.md": "readme-page.md",
    "CHANGELOG.md": "changelog.md",
    "client/README.md": "how-to/hospital.md",
    "coordinator/README.md": "how-to/operator.md",
    "ledger/FORMAT.md": "reference/format.md",
    "tests/benchmarks/RESULTS.md": "explanation/results.md",
    "tests/end_to_end/FAULTS.md": "explanation/faults.md",
}
_LINK = re.compile(r"\]\(([\w./-]+\.md)(#[\w-]+)?\)")
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the included pages."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        text = (root / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=spaced(relinked(text, source))))
    return files


def relinked(text: str, source: str) -> str:
    """Return a page whose links to other included files lead to their pages; other links are left as they are."""

    def replace(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if target not in PAGES:
            return match[0]
        page = posixpath.relpath(PAGES[target], posixpath.dirname(PAGES[source]) or ".")
        return f"]({page}{match[2] or ''})"

    return _LINK.sub(replace, text)


def spaced(text: str) -> str:
    """Put an empty line before a list that follows a paragraph, which this site's Markdown needs."""
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        before = lines[-1] if lines else ""
        paragraph = before and not before.startswith(" ") and not _ITEM.match(before)
        if not fenced and _ITEM.match(line) and paragraph:
            lines.append("")
        fenced ^= line.startswith("```")
        lines.append(line)
    return "\n".join(lines) + "\n"
