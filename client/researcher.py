"""What a researcher does with jobs: submit, watch, cancel. Returns values and prints nothing: notebooks build on it.

    with Researcher(member.load(Path("researcher"))) as me:
        submission = me.submit(job_folder.load(Path("my-job")))
        for event in me.watch(submission.digest):
            print(event.line)

Whatever is returned was read from the researcher's own verified copy of the log. Every step may be repeated after a
crash: the record is in the job's folder before anything is sent, and sending the same bytes again changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from client import job_folder, job_initial, job_match, job_record
from client.consortium import Consortium
from client.errors import JobFileError, JobStateError, PostRefusedError, UnreachableError
from client.follower import Sight
from client.job_folder import JobFolder
from client.job_initial import Initial
from client.job_story import Event, Story
from client.log_copy import LogCopy
from client.member import Membership
from client.turn import turn
from ledger import envelope
from ledger.job_records import Job
from ledger.record import Record
from ledger.records import Ended
from ledger.state import JobState

OPEN = ("proposed", "running", "released")  # a job's statuses before its end
POLL_SECONDS = 25.0
RETRY_SECONDS = (0.2, 5.0)  # first and longest wait for a coordinator that does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job as it stands on the log."""

    digest: str
    job: Job
    status: str
    new: bool  # False where the folder's job was there already

    @property
    def hospitals(self) -> tuple[str, ...]:
        """Who is asked."""
        return tuple(ref.split("/")[0] for ref in self.job.datasets)


class Researcher:
    """One researcher's access to a consortium; a context manager. One thread at a time."""

    def __init__(
        self,
        membership: Membership,
        *,
        door: Consortium | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect to nothing yet.

        Args:
            membership: The researcher's folder.
            door: Its door to the coordinator, for tests.
            clock: Unix seconds.
            sleep: Waits for a coordinator that is away.

        Raises:
            ConfigError: the folder's key or certificate cannot be used.
        """
        self.membership = membership
        self._key = membership.read_identity_key()
        self.door = door or membership.connect()
        self.log = LogCopy(membership, self.door, clock)
        self._clock = clock
        self._sleep = sleep

    def __enter__(self) -> Researcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the door."""
        self.door.close()

    def submit(self, folder: JobFolder) -> Submission:
        """Propose a folder's job to the hospitals; the same folder again finds its job.

        Raises:
            JobFileError: the job has problems, all of them named; nothing was sent.
            JobStateError: the folder was changed while its earlier job is open.
            PostRefusedError, UnreachableError, LocalStateError: repeat it: nothing is proposed twice.
        """
        folder.require_sound()
        with turn(folder.path, seconds=math.inf):  # two kernels with the same cells propose one job
            return self._submit(folder)

    def _submit(self, folder: JobFolder) -> Submission:
        sight = self.log.pull()
        job = self._kept(folder, sight)
        found = sight.state.jobs.get(job.digest()) if job is not None else None
        if job is not None and found is not None and found.status != "proposed":
            return Submission(digest=job.digest(), job=job, status=found.status, new=False)
        initial = job_initial.compute(folder.draft, folder.dictionary, folder.source)
        job = job or self._made(folder, initial, sight)
        self._upload(folder, initial, job)  # before the record: from then on a coordinator may start it
        if found is not None:
            return Submission(digest=job.digest(), job=job, status=found.status, new=False)
        self._post(job)
        sight = self.log.pull()
        digest = job.digest()
        if digest not in sight.state.jobs:
            raise UnreachableError(
                "the coordinator took the job and does not show it yet: submit again, which proposes nothing twice"
            )
        return Submission(digest=digest, job=job, status=sight.state.jobs[digest].status, new=True)

    def find(self, reference: str) -> str:
        """Return the digest of a job on the log that begins with `reference`.

        Raises:
            JobStateError: none or several do.
        """
        jobs = self.log.pull().state.jobs
        found = sorted(d for d in jobs if d.startswith(reference)) if len(reference) >= 4 else []
        if len(found) != 1:
            raise JobStateError(
                f"{len(found)} jobs on the log begin with {reference[:64]!r}: give more of the digest"
            )
        return found[0]

    def status(self, job: str) -> JobState:
        """Return where a job stands on the log as it is now. Raises JobStateError for an unknown one."""
        found = self.log.pull().state.jobs.get(job)
        if found is None:
            raise JobStateError(f"job {job[:16]} is not on the log: submit it first")
        return found

    def story(self, job: str) -> tuple[Story, list[Event]]:
        """Return all that the log tells of a job so far. Raises JobStateError for an unknown one."""
        self.status(job)
        story, size = Story(digest=job), self.log.sight.size
        return story, story.follow(self.log.entries(0, size), 0)

    def watch(
        self,
        job: str,
        *,
        story: Story | None = None,
        patient: bool = True,
        waiting: Callable[[str], None] = lambda reason: None,
        patience: Callable[[], float] = lambda: POLL_SECONDS,
    ) -> Iterator[Event]:
        """Yield what happens to a job, from its proposal on, until it has ended.

        Args:
            job: Its digest.
            story: A new one, to look at between events.
            patient: Whether to wait for a coordinator that does not answer.
            waiting: Told why nothing comes, once for each reason.
            patience: How long to wait for the next event, in seconds; 0 or less ends the watch before the job has.

        Raises:
            UnreachableError: the coordinator does not answer, and nobody is patient.
            LedgerError: the log contradicts itself or its rules: nothing of it is shown any more.
        """
        story, seen = story or Story(digest=job), 0
        wait, told = RETRY_SECONDS[0], ""
        while (longest := min(patience(), POLL_SECONDS)) > 0:
            try:
                sight = self.log.wait(longest) if seen else self.log.pull()
            except UnreachableError as error:
                if not patient:
                    raise
                if str(error) != told:
                    waiting(told := str(error))
                self._sleep(min(wait, longest))
                wait = min(2 * wait, RETRY_SECONDS[1])
                continue
            wait, told = RETRY_SECONDS[0], ""
            if job not in sight.state.jobs:
                raise JobStateError(f"job {job[:16]} is not on the log: submit it first")
            yield from story.follow(self.log.entries(seen, sight.size), seen)
            seen = sight.size
            if sight.state.jobs[job].status not in OPEN:
                return

    def cancel(self, job: str) -> str:
        """End a job of this researcher; return its status, also where it was cancelled before.

        Raises:
            JobStateError: it has ended otherwise, or is somebody else's.
            PostRefusedError, UnreachableError: repeat it.
        """
        found = self.status(job)
        owner = found.record.researcher
        if owner != self.membership.name:
            raise JobStateError(f"job {job[:16]} is {owner}'s: only its researcher cancels it")
        if found.status in ("proposed", "running"):
            ended = Ended(origin=found.record.origin, job=job, reason="cancelled")
            try:
                self._post(ended)
            except PostRefusedError as error:
                if not error.rule.startswith("ended."):
                    raise
            found = self.status(job)
        if found.status != "cancelled":
            raise JobStateError(f"job {job[:16]} is {found.status}: there is nothing left to cancel")
        return found.status

    def _kept(self, folder: JobFolder, sight: Sight) -> Job | None:
        """Return the record that this folder became earlier, if it still is that job."""
        kept = job_folder.submitted(folder.path)
        if kept is None:
            return None
        job = kept.job
        mine = (job.origin, job.researcher) == (sight.state.origin, self.membership.name)
        found = sight.state.jobs.get(job.digest())
        if kept.content == folder.content and mine:
            expired = found is None and job.expires_at <= max(self._clock(), sight.state.time)
            return None if expired else job
        if found is not None and found.status in OPEN:
            raise JobStateError(
                f"{folder.path} was changed since it was submitted as job {job.digest()[:12]}, which is "
                f"{found.status}: cancel that one first, or copy the folder without {job_folder.SUBMITTED}"
            )
        return None

    def _made(self, folder: JobFolder, initial: Initial, sight: Sight) -> Job:
        """Make the record and keep it, before anything is sent."""
        now = int(self._clock())
        fitting = job_match.match(folder.draft, folder.dictionary, sight.state, self.membership.name, now)
        if fitting.problems:
            raise JobFileError(*fitting.problems, where=str(folder.path))
        job = job_record.build(
            folder,
            initial,
            origin=sight.state.origin,
            researcher=self.membership.name,
            datasets=[d.ref for d in fitting.datasets],
            agreements=fitting.agreements,
            now=max(now, sight.state.time),
        )
        job_folder.keep(folder, job)
        return job

    def _upload(self, folder: JobFolder, initial: Initial, job: Job) -> None:
        if initial.digest != job.model:
            raise JobStateError(
                "this version makes other first parameters than the submitted job names: submit with the version "
                f"that made it, or move {job_folder.SUBMITTED} away"
            )
        for _, data, kind in job_record.blobs(folder, initial):
            self.door.put_blob(data, kind)

    def _post(self, record: Record) -> None:
        self.door.post_record(envelope.sign(record, self._key))
