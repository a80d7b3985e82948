"""Jobs as a notebook holds them, for tests of plans."""

from __future__ import annotations

from pathlib import Path

from client import dictionary
from client.job_folder import JobFolder
from client.job_toml import JobDraft


def folder_of(draft: JobDraft) -> JobFolder:
    """A job of a shipped dictionary, on no disk."""
    return JobFolder(
        path=Path("jobs") / draft.name,
        draft=draft,
        dictionary=dictionary.shipped(draft.dictionary),
        source=None,
    )
