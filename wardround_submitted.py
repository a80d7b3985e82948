"""The run of a job at a consortium: its price, its progress and its end, by the member's verified copy of the log.

Looking at it changes nothing, and leaving it alone neither: the job goes on at the coordinator and the hospitals.
What is shown before the release of how good the model is stands in the coordinator's status, and is its word.
"""

from __future__ import annotations

import asyncio
import html
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client import job_match
from client.errors import JobStateError, UnreachableError
from client.job_match import Price
from client.job_story import SHORT, Event, Story
from client.notebook import consortium_tables, job_result_folder, price_table, tables
from client.notebook.figures import Figures
from client.notebook.job_bar import Bar
from client.notebook.tracking import Callback, Callbacks, Tracker
from client.researcher import OPEN, POLL_SECONDS
from coordinator.histories import History
from ledger.job_records import Job
from ledger.state import JobState
from wardround_live import figures

if TYPE_CHECKING:
    import pandas as pd

    from client.job_result import Result
    from client.notebook.plots import Plot
    from wardround_connect import Consortium
    from wardround_run import Run

AWAIT_SECONDS = 2.0  # between two looks of a coroutine that may be called away
STATUS_SECONDS = 1.0  # between two questions for the coordinator's figures
STOPPED = "stopped following; the job goes on: run.follow() follows it again, run.cancel() ends it"


class ConsortiumRun:
    """One job at a consortium: `await` it, follow it, wait for it, cancel it, fetch its result.

    Attributes:
        digest: The job's, as the log names it.
        folder: Where the job is kept; None for one that was not submitted from here.
    """

    def __init__(self, consortium: Consortium, digest: str, *, folder: Path | None) -> None:
        """Look at a job that is on the log.

        Args:
            consortium: Where it is.
            digest: The job's.
            folder: Where it is kept.

        Raises:
            UnreachableError, LedgerError: see `Consortium.look`.
        """
        self.digest = digest
        self.folder = folder
        self._consortium = consortium
        self._lock = threading.RLock()
        self._story = Story(digest=digest)
        self._events: list[Event] = []
        self._size = 0  # entries that the story has read
        self._claimed: dict[str, Any] = {}  # the coordinator's status, its word
        self._seen = consortium.look()
        self._estimated = self._estimate()
        self._now()

    @property
    def status(self) -> str:
        """Where the job stands: proposed, running, released, finished, cancelled, expired or below-minimum.

        Raises UnreachableError: the coordinator is away; says what goes on.
        """
        self._now()
        return self._known.status

    @property
    def price(self) -> pd.DataFrame:
        """Who is asked, what the job may cost there, and what later jobs have left; see `price_table.prices`."""
        self._now()
        return self._price()

    @property
    def events(self) -> pd.DataFrame:
        """Everything that happened to the job, as the log has it: `entry`, `event` and `line`, a sentence."""
        self._now()
        columns, events = ("entry", "event", "line"), self._events
        return consortium_tables.table(columns, [(e.index, e.kind, e.line) for e in events])

    @property
    def figures(self) -> Figures:
        """What is known of the job now: participation and privacy from the log, quality by the coordinator's word.

        Raises UnreachableError: the coordinator is away; says what goes on.
        """
        self._now()
        with self._consortium.door() as me:
            self._claimed = dict(me.door.status())
        return figures(self._history, self._seen.sight.state, self._claimed)

    @property
    def metrics(self) -> pd.DataFrame:
        """How good the model was measured to be; see `tables.metrics`. The coordinator's word until the release."""
        return tables.metrics(self.figures)

    @property
    def privacy(self) -> pd.DataFrame:
        """What the job has cost the hospitals' patients; see `tables.privacy`."""
        return tables.privacy(self.figures)

    @property
    def participation(self) -> pd.DataFrame:
        """What became of each hospital in each round; see `tables.participation`."""
        return tables.participation(self.figures)

    @property
    def plot(self) -> Plot:
        """The pictures of the job as it stands."""
        from client.notebook.plots import Plot

        return Plot(lambda: self.figures)

    def follow(self, callbacks: Iterable[Tracker | Callback] = (), progress: bool = True) -> ConsortiumRun:
        """Follow the job to its end, through any outage. Ctrl-C stops following, and the job goes on.

        Args:
            callbacks: Trackers, and functions that are called with the figures whenever they have changed; one that
                fails is reported, and ends nothing.
            progress: Whether to show a bar.
        """
        asked, job = 0.0, self._job
        try:
            with Bar(job.name, job.last_exchange, shown=progress) as bar, Callbacks(callbacks) as told:
                for event, story in self._watch(lambda: POLL_SECONDS, time.sleep, bar.wait):
                    if time.monotonic() - asked > STATUS_SECONDS or event.kind not in ("round", "skip"):
                        asked = time.monotonic()
                        with suppress(UnreachableError):
                            told.update(self.figures)
                    bar.event(event, story, self._claimed)
        except KeyboardInterrupt:
            print(STOPPED)  # noqa: T201 - who interrupts reads what it means
        return self

    def wait(self, timeout: float | None = None) -> ConsortiumRun:
        """Wait for the job's end, through any outage, and show nothing.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            JobStateError: it has not ended by then, and goes on.
        """
        until = time.monotonic() + timeout if timeout is not None else float("inf")
        for _ in self._watch(lambda: until - time.monotonic(), time.sleep):
            pass
        if (status := self._known.status) in OPEN:
            raise JobStateError(
                f"job {self.digest[:SHORT]} is {status} after {timeout:g} s, and goes on: wait again"
            )
        return self

    def __await__(self) -> Generator[Any, None, ConsortiumRun]:
        """Wait for the job's end while the event loop does other things; cancelling it leaves the job alone."""
        return self._ended().__await__()

    def cancel(self) -> ConsortiumRun:
        """End the job, at whatever stage it is; what hospitals have spent stays spent.

        Raises:
            JobStateError: it has ended otherwise, or is somebody else's.
            PostRefusedError, UnreachableError: run the cell again.
        """
        with self._consortium.door() as me:
            me.cancel(self.digest)
        self._now()
        return self

    def result(self, folder: str | Path | None = None) -> Run:
        """Fetch what `fetch` does; return it as what `simulate` returns, to verify, plot and predict with.

        Args:
            folder: As for `fetch`.

        Raises:
            JobStateError, UnreachableError, LocalStateError: as for `fetch`, or it was not submitted from here.
            IntegrityError: the evidence is not what the log names.
        """
        from wardround_opened import opened

        if self.folder is None:
            raise JobStateError(
                f"job {self.digest[:SHORT]} was not submitted from here: run.fetch(folder) gets its files"
            )
        found, charter = self.fetch(folder), self._consortium.membership.charter
        self._now()
        return opened(found, self.folder, self._history, self._known.status, charter)

    def fetch(self, folder: str | Path | None = None) -> Result:
        """Fetch the finished job's model, card and evidence; a folder that holds them already is taken as it is.

        Args:
            folder: The folder to make; `result` in the job's own where none is given.

        Raises:
            JobStateError: the job has released nothing, or the folder holds something else.
            UnreachableError, LocalStateError: run the cell again: it goes on where it was.
        """
        usual = (self.folder or Path(f"job-{self.digest[:SHORT]}")) / "result"
        with self._consortium.door() as me:
            return job_result_folder.fetch(me, self.digest, Path(folder) if folder is not None else usual)

    def __repr__(self) -> str:
        heading, price = price_table.heading(self._story, self._known), self._price()
        return f"{heading}\n{price.to_string(index=False, na_rep='')}\n{self._words()}"

    def _repr_html_(self) -> str:
        price = self._price().to_html(index=False, na_rep="")
        heading, words = price_table.heading(self._story, self._known), self._words()
        return f"<p>{html.escape(heading)}</p>{price}<p>{html.escape(words)}</p>"

    @property
    def _known(self) -> JobState:
        return self._seen.sight.state.jobs[self.digest]

    @property
    def _job(self) -> Job:
        return self._known.record

    @property
    def _history(self) -> History:
        return self._seen.histories.jobs[self.digest]

    def _now(self) -> None:
        """Read what is new on the log."""
        with self._lock, self._consortium.door() as me:
            self._seen = self._consortium.look()
            new = me.log.entries(self._size, self._seen.sight.size)
            self._events += self._story.follow(new, self._size)
            self._size = self._seen.sight.size

    def _watch(
        self,
        patience: Callable[[], float],
        sleep: Callable[[float], None],
        waiting: Callable[[str], None] = lambda reason: None,
    ) -> Iterator[tuple[Event, Story]]:
        """Yield the job's events by an access of one's own, so that nobody else has to wait."""
        story = Story(digest=self.digest)
        with self._consortium.another(sleep) as me:
            for event in me.watch(self.digest, story=story, waiting=waiting, patience=patience):
                yield event, story
        with suppress(UnreachableError):
            self._now()

    async def _ended(self) -> ConsortiumRun:
        left = threading.Event()

        def sleep(seconds: float) -> None:
            left.wait(seconds)

        def watch() -> None:
            for _ in self._watch(lambda: 0.0 if left.is_set() else AWAIT_SECONDS, sleep):
                pass

        try:
            await asyncio.to_thread(watch)
        finally:
            left.set()
        return self

    def _estimate(self) -> dict[str, Price]:
        """Return what hospitals that have not answered would decide, as far as their budgets are public."""
        state = self._seen.sight.state
        if self._known.status != "proposed":
            return {}
        asked = [state.datasets[ref].record for ref in self._job.datasets]
        return {price.dataset: price for price in job_match.prices(self._job, asked, state)}

    def _price(self) -> pd.DataFrame:
        return price_table.prices(self._story, self._seen.sight.state, self._estimated)

    def _words(self) -> str:
        found = [price_table.WORDS.format(delta=self._job.delta)]
        if (release := self._story.release) is not None:
            found += [f"Released: {m.name} {m.value} ({m.low} to {m.high})." for m in release.metrics]
        if self.folder is not None:
            found.append(
                f"Kept in {self.folder}: the same cell finds it again; it goes on without the notebook."
            )
        return " ".join(found)
