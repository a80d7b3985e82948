"""`wardround.connect`: a consortium as a member sees it in a notebook, and jobs that are submitted to it.

    with wardround.connect("researcher") as consortium:
        run = consortium.submit(job)
        run.follow()

Everything shown comes from the member's own verified copy of the log. Nothing is asked on standard input: what
`submit` returns shows the price. A submitted job goes on without the notebook; the same cells, run again, find it.
"""

from __future__ import annotations

import html
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client import config, job_match, member
from client.errors import ConfigError, JobFileError, UnreachableError
from client.follower import Sight
from client.job_folder import JobFolder
from client.member import Membership
from client.notebook import consortium_tables, job_files
from client.notebook.job_files import Drafted
from client.researcher import OPEN, Researcher
from coordinator.histories import Histories
from wardround_submitted import ConsortiumRun

if TYPE_CHECKING:
    import pandas as pd

AWAY = (
    "while it is away no round is closed; hospitals keep their data, decisions and budgets, a running job resumes by "
    "itself, and what was submitted is kept: run this cell again later"
)
_UNREACHED = "the coordinator cannot be reached"
Open = Callable[
    [Callable[[float], None]], Researcher
]  # how to sleep -> a door and a copy of the log of one's own


def connect(folder: str | Path) -> Consortium:
    """Connect to the consortium of a member's folder; usable as a context manager and without.

    Args:
        folder: With `member.toml` (or a hospital's `hospital.toml`), `ca.pem` and `keys/`.

    Raises:
        ConfigError: the folder is no member's.
        UnreachableError: the coordinator is away; says what goes on.
        LedgerError: the log contradicts itself or its rules: nothing of it is shown.
    """
    path = Path(folder)
    if not any((path / name).is_file() for name in (member.FILE, config.FILE)):
        raise ConfigError(
            f"{path} is no member's folder, it has no {member.FILE}: name the one that `wardround member join` made"
        )
    membership = member.load(path)
    return Consortium(membership, lambda sleep: Researcher(membership, sleep=sleep))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The log as a member verified it at one moment."""

    sight: Sight
    histories: Histories


class Consortium:
    """One member's view of its consortium; may be used from several threads.

    Attributes:
        membership: Whose view it is.
    """

    def __init__(
        self, membership: Membership, open_: Open, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Read the log.

        Args:
            membership: Whose view it is.
            open_: Gives a researcher's access; each thread that waits for something takes its own.
            clock: Unix seconds.

        Raises:
            UnreachableError, LedgerError: see `connect`.
        """
        self.membership = membership
        self._open = open_
        self._clock = clock
        self._lock = threading.RLock()
        self._opened: Researcher | None = None
        try:
            with self.door() as me:
                self._known = Seen(sight=me.log.pull(), histories=Histories())
            self.look()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Consortium:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; jobs go on. Whoever uses a run of it afterwards opens one again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def submit(self, job: Drafted, folder: str | Path | None = None) -> ConsortiumRun:
        """Sign a job and propose it to the hospitals; the same job again finds its run, also after a restart.

        Its folder holds the record before anything is sent. What is returned shows who is asked and what it costs.

        Args:
            job: The job, as `simulate` took it.
            folder: Where the job is kept; `jobs/NAME` where none is given.

        Raises:
            JobFileError: the job has problems, or fits no dataset: nothing was sent.
            JobStateError: the folder holds another job.
            UnreachableError, PostRefusedError, LocalStateError: run the cell again: nothing is proposed twice.
        """
        path = Path(folder) if folder is not None else None
        drafted = job_files.unsaved(job, path)
        drafted.require_sound()
        with self.door() as me:
            if not drafted.path.exists():  # a job that cannot be sent leaves no folder behind
                self._require_fitting(drafted, me)
            kept = job_files.keep(job, path)
            made = me.submit(kept)
        return ConsortiumRun(self, made.digest, folder=kept.path)

    def run(self, reference: str) -> ConsortiumRun:
        """Return the run of any job on the log, of whichever researcher.

        Args:
            reference: The beginning of its digest, 4 digits at least.

        Raises:
            JobStateError: none or several begin so.
            UnreachableError: the coordinator is away.
        """
        with self.door() as me:
            return ConsortiumRun(self, me.find(reference), folder=None)

    def members(self) -> pd.DataFrame:
        """Return the members as a table; see `consortium_tables.members`."""
        return consortium_tables.members(self.look().sight.state)

    def datasets(self) -> pd.DataFrame:
        """Return the hospitals' datasets and budgets as a table; see `consortium_tables.datasets`."""
        return consortium_tables.datasets(self.look().sight.state)

    def agreements(self) -> pd.DataFrame:
        """Return the data use agreements as a table; see `consortium_tables.agreements`."""
        state = self.look().sight.state
        return consortium_tables.agreements(state, state.time)

    def jobs(self) -> pd.DataFrame:
        """Return all jobs as a table, the newest first; see `consortium_tables.jobs`."""
        seen = self.look()
        order = {digest: history.index for digest, history in seen.histories.jobs.items()}
        return consortium_tables.jobs(seen.sight.state, order)

    def look(self) -> Seen:
        """Return the log as it is now.

        Raises:
            UnreachableError: the coordinator is away; says what goes on.
            LedgerError: the log contradicts itself or its rules.
        """
        with self.door() as me:
            sight = me.log.pull()
            new = me.log.entries(self._known.histories.size, sight.size)
            self._known = Seen(sight=sight, histories=self._known.histories.follow(new))
            return self._known

    @contextmanager
    def door(self) -> Iterator[Researcher]:
        """Give this member's access to one caller at a time."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open(time.sleep)
                weakref.finalize(
                    self, self._opened.close
                )  # who uses no `with` leaves no open connection either
            try:
                yield self._opened
            except UnreachableError as error:
                raise UnreachableError(away(str(error))) from None

    def __repr__(self) -> str:
        state = self._known.sight.state
        roles = [m.member.role for name, m in state.members.items() if state.member(name) is not None]
        going = sum(found.status in OPEN for found in state.jobs.values())
        where = f"{self.membership.name} of {state.name}, at {self.membership.coordinator}"
        return (
            f"{where}: {roles.count('hospital')} hospitals, {len(state.datasets)} datasets, {going} open of "
            f"{len(state.jobs)} jobs; a log of {self._known.sight.size} entries, verified. See .datasets(), "
            ".agreements(), .members(), .jobs(), .submit(job)"
        )

    def _repr_html_(self) -> str:
        table = consortium_tables.datasets(self._known.sight.state).to_html(index=False)
        return f"<p>{html.escape(repr(self))}</p>{table}"

    def another(self, sleep: Callable[[float], None]) -> Researcher:
        """Return an access for one thread alone; close it."""
        return self._open(sleep)

    def _require_fitting(self, folder: JobFolder, me: Researcher) -> None:
        """Refuse a job that no hospital would be asked about. Raises JobFileError."""
        sight, now = me.log.pull(), int(self._clock())
        found = job_match.match(
            folder.draft, folder.dictionary, sight.state, self.membership.name, max(now, sight.state.time)
        )
        if found.problems:
            raise JobFileError(*found.problems, where=folder.draft.name)


def away(reason: str) -> str:
    """Return why the coordinator does not answer, with what goes on meanwhile where that is of interest."""
    return f"{reason}; {AWAY}" if reason.startswith(_UNREACHED) and AWAY not in reason else reason
