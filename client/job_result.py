"""Fetches what a finished job left: the released model, its card and the evidence, each file checked as it comes.

The model and the card are those that the release on the verified log names; the evidence is for `wardround evidence
verify` to judge, which computes every round again. A folder appears whole or not at all; what an interrupted fetch
has kept is taken up again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.errors import JobStateError, LocalStateError, NotYetError, UnreachableError
from client.private_file import read_private, write_private
from client.researcher import Researcher
from ledger.records import Release

MODEL, CARD = "model.safetensors", "card.md"
EVIDENCE = "evidence"
MAX_LISTING = 64 << 20  # bytes
MAX_FILE = 4 << 30  # bytes
MAX_FILES = 1_000_000
_PATH = re.compile(
    r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}/){0,8}[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}", re.ASCII
)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished job's files on this disk."""

    folder: Path
    release: Release
    files: int

    @property
    def model(self) -> Path:
        """The released model."""
        return self.folder / MODEL

    @property
    def evidence(self) -> Path:
        """The bundle that `wardround evidence verify` takes."""
        return self.folder / EVIDENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A file as the coordinator lists it."""

    size: int
    digest: str


def fetch(member: Researcher, job: str, out: Path) -> Result:
    """Fetch a finished job's files into a folder that does not exist yet.

    Args:
        member: Who asks; any member may.
        job: The job's digest.
        out: The folder to make. `<out>.partial` beside it keeps what an interrupted fetch has got.

    Raises:
        JobStateError: the job has released nothing yet, or `out` exists.
        NotYetError: the release is not final yet, or the evidence is being written.
        UnreachableError: the files are not there yet, or are not what the log names: nothing of them is kept.
        LocalStateError: the disk refuses.
    """
    story, _ = member.story(job)
    status = member.log.sight.state.jobs[job].status
    if story.release is None:
        raise JobStateError(
            f"job {job[:16]} is {status} and has released nothing: wait for it with job watch"
        )
    if story.release_index >= member.log.sight.final_size:
        raise NotYetError(f"the release of job {job[:16]} is not final yet: ask again in a moment")
    if out.exists():
        raise JobStateError(f"{out} exists: name a folder that does not")
    try:
        listed = parse_listing(member.door.file(f"/api/runs/{job}", MAX_LISTING))
    except FileNotFoundError:
        raise NotYetError("the coordinator is still writing the evidence: ask again in a moment") from None
    _check(listed, story.release)
    partial = out.with_name(f"{out.name}.partial")
    for path, file in listed.items():
        _fetch_one(member, job, partial, path, file)
    try:
        for kept in sorted(p for p in partial.rglob("*") if p.is_file()):
            if kept.relative_to(partial).as_posix() not in listed:
                kept.unlink()  # of another listing
        partial.replace(out)
    except OSError as error:
        raise LocalStateError(f"cannot make {out}: {error.strerror}; see to the disk") from None
    return Result(folder=out, release=story.release, files=len(listed))


def parse_listing(data: bytes) -> dict[str, Listed]:
    """Read a coordinator's listing, by path. Raises UnreachableError for anything that is none."""
    wrong = UnreachableError("the coordinator's listing of the job's files is malformed")
    try:
        found = {}
        for item in json.loads(data)["files"]:
            path, size, digest = item["path"], item["size"], item["digest"]
            sound = (
                type(path) is str
                and _PATH.fullmatch(path)
                and type(size) is int
                and 0 <= size <= MAX_FILE
                and type(digest) is str
                and _DIGEST.fullmatch(digest)
            )
            if not sound:  # a path becomes a file here: only plain names may
                raise wrong
            found[path] = Listed(size=size, digest=digest)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise wrong from None
    if len(found) > MAX_FILES:
        raise wrong
    return found


def _check(listed: Mapping[str, Listed], release: Release) -> None:
    """Compare the listing with the record: these digests, and those in the names of blobs."""
    wanted = {MODEL: release.artifact, CARD: release.card}
    wanted |= {f"{EVIDENCE}/{name}": digest for name, digest in wanted.items()}
    wanted |= {path: path.rsplit("/", 1)[1] for path in listed if path.startswith(f"{EVIDENCE}/blobs/")}
    for path, digest in wanted.items():
        if path not in listed or listed[path].digest != digest:
            raise UnreachableError(
                f"the coordinator offers another {path} than the release on the log names: nothing was kept"
            )


def _fetch_one(member: Researcher, job: str, partial: Path, path: str, file: Listed) -> None:
    """Fetch one file, unless an earlier try has got it."""
    target = partial / path
    kept = read_private(target, MAX_FILE) if target.is_file() else None
    if kept is not None and hashlib.sha256(kept).hexdigest() == file.digest:
        return
    try:
        data = member.door.file(f"/api/runs/{job}/{path}", file.size)
    except FileNotFoundError:
        raise UnreachableError(f"the coordinator lists {path} and does not hand it out: ask again") from None
    if hashlib.sha256(data).hexdigest() != file.digest:
        raise UnreachableError(f"the coordinator served other bytes than {path} should have: ask again")
    write_private(target, data)
