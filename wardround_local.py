"""`wardround.local`: a consortium of this machine, to rehearse what a real one does: separate processes, over TLS.

    with wardround.local(job, hospitals) as folder:
        with wardround.connect(folder) as consortium:
            run = consortium.submit(job)

The commands that run are those that a coordinator's and a hospital's people would give. One person plays everybody,
so the founding and the data use agreement are signed in one go, and each hospital approves by its policy.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import wardround_founding
import wardround_processes
import wardround_settling
from client import member
from client.errors import LocalStateError, UnreachableError
from client.job_folder import JobFolder
from client.log_copy import LogCopy
from client.notebook import job_files
from client.notebook.job_files import Drafted
from client.private_file import write_private
from coordinator.errors import ServiceError
from ledger import envelope
from ledger.records import Agreement
from wardround_founding import DAY, RESEARCHER

ORIGIN = "local.invalid/consortium"
READY_SECONDS = 240  # until every hospital has offered its dataset; a limit against hanging
_LOOK_SECONDS = 0.2
_TEXT = b"A rehearsal on one machine: every hospital is its owner."


@contextmanager
def local(
    job: Drafted,
    datasets: Mapping[str, object],
    directory: str | Path | None = None,
    *,
    lifetime_epsilon: str | None = None,
) -> Iterator[Path]:
    """Found a consortium on this machine and keep it running; yield the researcher's folder, for `connect`.

    Args:
        job: Says the data dictionary, the purpose and what a job may cost; nothing is proposed.
        datasets: By hospital: a DataFrame, a pair of arrays (inputs, labels), or a path.
        directory: Where everybody's folders go; must not exist, or be empty. None: a temporary one.
        lifetime_epsilon: Budget of each dataset, a decimal; twice the job's target where none is given.

    Raises:
        JobFileError: the job has a problem.
        DataError: a hospital's rows cannot be used; says whose, and why.
        ServiceError: a process ended by itself; its last line says why.
    """
    folder = job_files.unsaved(job)
    folder.require_sound()
    with _directory(directory) as place:
        made = wardround_founding.found(
            place,
            sorted(datasets),
            origin=ORIGIN,
            name="rehearsal",
            dishonest=0,
            port=wardround_processes.free_port(),
        )
        wardround_founding.begin_log(made).close()
        wardround_settling.settle(made, folder, datasets, lifetime_epsilon)
        researcher = _researcher(made)
        hospitals = {name: made.hospital(name) for name in made.witnesses}
        with wardround_processes.running(made.coordinator, hospitals) as check:
            _agree(made, researcher, folder, check)
            yield researcher


@contextmanager
def _directory(given: str | Path | None) -> Iterator[Path]:
    if given is None:
        with tempfile.TemporaryDirectory(prefix="wardround-local-", ignore_cleanup_errors=True) as made:
            yield Path(made)
        return
    path = Path(given)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise LocalStateError(f"{path} exists: name a folder that does not")
    yield path


def _researcher(made: wardround_founding.Consortium) -> Path:
    """Write the researcher's folder, as `wardround member join` leaves it."""
    path = made.directory / RESEARCHER
    (path / "keys").mkdir(parents=True)
    write_private(path / "keys" / "identity.key", made.keys[RESEARCHER].to_text().encode() + b"\n")
    shutil.copyfile(made.coordinator / "tls" / "ca.pem", path / "ca.pem")
    (path / member.FILE).write_text(
        f'name = "{RESEARCHER}"\ncoordinator = "localhost:{made.port}"\nauthority = "ca.pem"\n'
        f'charter = "{made.charter.digest()}"\n'
    )
    return path


def _agree(
    made: wardround_founding.Consortium, researcher: Path, folder: JobFolder, check: Callable[[], None]
) -> None:
    """Wait until every hospital has offered its dataset, then let everybody sign the agreement."""
    membership = member.load(researcher)
    with closing(membership.connect()) as door:
        log, until = LogCopy(membership, door), time.monotonic() + READY_SECONDS
        while True:
            check()
            with suppress(UnreachableError):
                found = log.pull().state.datasets
                if len(found) == len(made.witnesses):
                    agreed = Agreement(
                        origin=ORIGIN,
                        text=hashlib.sha256(_TEXT).hexdigest(),
                        parties=tuple(sorted((*made.witnesses, RESEARCHER))),
                        datasets=tuple(sorted(found)),
                        purposes=(folder.draft.purpose,),
                        expires_at=int(time.time()) + max(30 * DAY, 2 * folder.draft.expires_seconds),
                    )
                    door.post_record(envelope.sign(agreed, *(made.keys[name] for name in agreed.parties)))
                    return
            if time.monotonic() > until:
                raise ServiceError(f"the hospitals' offers did not come within {READY_SECONDS} s")
            time.sleep(_LOOK_SECONDS)
