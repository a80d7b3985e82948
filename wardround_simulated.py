"""`wardround.simulate` as a notebook calls it: a bar while it runs, Ctrl-C at any moment, a `Run` at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from client.notebook import job_files
from client.notebook.figures import Figures
from client.notebook.job_files import Drafted
from client.notebook.run_bar import RunBar
from wardround_run import Run, require_tables

STOPPED = "stopped after round {done} of {rounds}: every thread has ended{where}"

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of a name of its own is made in it, for its owner alone
ROOM = 4 << 30  # bytes that must be free there


def simulate(
    job: Drafted,
    datasets: Mapping[str, object],
    *,
    lifetime_epsilon: str | float | None = None,
    directory: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Run a job at hospitals that are all in this process, with the real client and coordinator code.

    Noise is the operating system's, as at a hospital, so no two runs are alike; there is no seed.

    Args:
        job: The job; which datasets and agreements it names is of no account here.
        datasets: By hospital: a DataFrame with the dictionary's columns, two arrays (inputs, labels), or a path.
        lifetime_epsilon: Budget of each dataset; twice the job's target where none is given.
        directory: Where the consortium's folders are left; must not exist, or be empty. Where none is given, all of
            it is removed but the model, its card and the evidence, and these with the run.
        progress: Whether to show a bar.

    Returns:
        The run; after Ctrl-C, the run so far.

    Raises:
        JobFileError: the job has a problem, or too few hospitals take part; says who declined, and why.
        DataError: a hospital's rows cannot be used; says whose, and why.
        ClientError, CoordinatorError, LedgerError: one line says what is wrong.
    """
    import wardround_simulate

    require_tables()
    folder = job_files.unsaved(job)
    place = Path(directory) if directory is not None else _passing()
    passing = place if directory is None else None
    so_far: list[Figures] = []
    try:
        with RunBar(
            folder.draft.name, _exchanges(folder.draft.evaluate, folder.draft.rounds), shown=progress
        ) as bar:

            def watch(figures: Figures) -> None:
                so_far[:] = [figures]
                bar.show(figures)

            found = wardround_simulate.simulate(
                job,
                datasets,
                place / "consortium" if passing else place,
                lifetime_epsilon=None if lifetime_epsilon is None else f"{lifetime_epsilon}",
                watch=watch,
            )
    except KeyboardInterrupt:
        if passing is not None:
            shutil.rmtree(passing, ignore_errors=True)
        if not so_far or not so_far[0].parts:
            raise
        return _stopped(so_far[0], folder, place, passing)
    except BaseException:
        if passing is not None:
            shutil.rmtree(passing, ignore_errors=True)
        raise
    result = found.evidence.parent
    if passing is not None:
        result = result.replace(passing / "result")
        shutil.rmtree(passing / "consortium", ignore_errors=True)  # with the rows
    return Run(
        found.figures,
        job=folder,
        charter=found.charter,
        result=result,
        directory=place if passing is None else None,
        passing=passing,
    )


def _passing() -> Path:
    """Make a folder for what is removed again: in memory where there is room: rounds wait for the disk."""
    try:
        roomy = shutil.disk_usage(MEMORY).free > ROOM and os.access(MEMORY, os.W_OK)
    except OSError:
        roomy = False
    return Path(tempfile.mkdtemp(prefix="wardround-simulate-", dir=MEMORY if roomy else None))


def _stopped(figures: Figures, folder: job_files.JobFolder, place: Path, passing: Path | None) -> Run:
    where = ", nothing is left on the disk" if passing else f", what there is stays in {place}"
    done = max(part.round for part in figures.parts)
    print(STOPPED.format(done=done, rounds=figures.rounds, where=where))  # noqa: T201 - who interrupts reads it
    return Run(figures, job=folder, charter="", result=None, directory=None if passing else place)


def _exchanges(evaluate: tuple[int, ...], rounds: int) -> int:
    return max((rounds, *evaluate))
