"""The directories of the demonstration: what a coordinator and four hospitals would have after founding.

One owner plays everybody here, so the founding signatures are gathered in one go; nothing runs yet.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import wardround_founding
from client import demo_data, software
from client.demo_data import DemoSettings
from coordinator.blobs import BlobStore
from coordinator.errors import CoordinatorError
from ledger.record import Record
from ledger.records import Agreement, Charter, Dataset, Job
from ledger.signature import SigningKey
from ledger.values import Aggregation, Training
from wardround_founding import DAY, Offered

ORIGIN = "demo.wardround.example/consortium"
PURPOSE = "demonstration"
LIFETIME_EPSILON = "8"  # of each hospital's dataset, add/remove one patient
MAX_DISHONEST = 1
LIVE_EVALUATIONS = 4


class DemoError(CoordinatorError):
    """The demonstration cannot go on; its processes are stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A prepared consortium."""

    directory: Path
    settings: DemoSettings
    port: int
    keys: dict[str, SigningKey] = field(repr=False)
    charter: Charter

    @property
    def coordinator(self) -> Path:
        """The coordinator's directory."""
        return self.directory / "coordinator"

    @property
    def url(self) -> str:
        """Where the coordinator answers."""
        return f"https://localhost:{self.port}"

    def hospital(self, name: str) -> Path:
        """A hospital's directory."""
        return self.directory / "hospitals" / name


def prepare(directory: Path, settings: DemoSettings, source: Path | None, port: int) -> Setup:
    """Write what a coordinator and its hospitals would have after founding; nothing runs yet.

    Raises:
        DemoError: the directory is in use for something else.
        DataError: the data cannot be had.
    """
    marker = directory / ".wardround-demo"
    if directory.exists() and not marker.exists():
        raise DemoError(f"{directory} exists and is no demonstration: name another with --directory")
    shutil.rmtree(directory, ignore_errors=True)
    data = directory / "data"
    data.mkdir(parents=True)
    marker.touch()
    if settings.data == "heart-disease":
        if source is None:
            raise DemoError(
                f"--data heart-disease needs --source, a folder with {demo_data.HEART_DISEASE_ADDRESS}"
            )
        files = demo_data.write_heart_disease(source, data)
    else:
        files = demo_data.write_breast_cancer(data)
    made = wardround_founding.found(
        directory,
        settings.hospitals,
        origin=ORIGIN,
        name="demonstration",
        dishonest=MAX_DISHONEST,
        port=port,
    )
    wardround_founding.begin_log(made).close()
    blobs = BlobStore(made.coordinator / "blobs")
    blobs.put(settings.dictionary.to_bytes())
    blobs.put(initial_model(settings))
    for name in settings.hospitals:
        wardround_founding.settle(made, name, _offered(settings, files[name]))
    return Setup(directory=directory, settings=settings, port=port, keys=made.keys, charter=made.charter)


def _offered(settings: DemoSettings, file: Path) -> Offered:
    return Offered(
        name=settings.data,
        kind="csv",
        file=file,
        dictionary=settings.dictionary.to_bytes(),
        purpose=PURPOSE,
        epsilon=LIFETIME_EPSILON,
        delta=settings.delta,
        epsilon_per_job=settings.epsilon,
        moved=True,
    )


def initial_model(settings: DemoSettings) -> bytes:
    """Return the first parameters of the demo's logistic regression: zeros, known to everybody."""
    return bytes(4 * (len(settings.dictionary.feature_names) + 1))


def agreement(setup: Setup, datasets: Sequence[Record]) -> Agreement:
    """Return the data use agreement of all hospitals and the researcher."""
    refs = tuple(sorted(r.ref for r in datasets if isinstance(r, Dataset)))
    text = b"The hospitals of the demonstration let the researcher train one model on public records."
    return Agreement(
        origin=setup.charter.origin,
        text=hashlib.sha256(text).hexdigest(),
        parties=tuple(sorted((*setup.settings.hospitals, "researcher"))),
        datasets=refs,
        purposes=(PURPOSE,),
        expires_at=int(time.time()) + 30 * DAY,
    )


def job(setup: Setup, agreement: Agreement) -> Job:
    """Return the job that the researcher proposes."""
    settings, now = setup.settings, int(time.time())
    rounds, model = settings.rounds, initial_model(settings)
    live = {1 + rounds * (i + 1) // (LIVE_EVALUATIONS + 1) for i in range(LIVE_EVALUATIONS)}
    return Job(
        origin=setup.charter.origin,
        researcher="researcher",
        name=settings.data,
        purpose=PURPOSE,
        agreements=(agreement.digest(),),
        datasets=agreement.datasets,
        dictionary=settings.dictionary.digest,
        model=hashlib.sha256(model).hexdigest(),
        training=Training(
            model=settings.model,
            model_code=software.models_digest(),
            parameters=len(model) // 4,
            loss=settings.loss,
            local_steps=settings.local_steps,
            learning_rate=settings.learning_rate,
            max_grad_norm=settings.max_grad_norm,
            sample_rate=settings.sample_rate,
            settings=(),
        ),
        aggregation=Aggregation(strategy=settings.strategy, weighting=settings.weighting, settings=()),
        epsilon=settings.epsilon,
        heldout_epsilon=settings.epsilon,
        delta=settings.delta,
        rounds=rounds,
        evaluate=(*sorted(live), rounds + 1),
        min_participants=len(settings.hospitals) - 1,
        expires_at=now + DAY,
        software=software.installed(),
    )
