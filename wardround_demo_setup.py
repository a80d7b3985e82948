"""The directories of the demonstration: what a coordinator and four hospitals would have after founding.

One owner plays everybody here, so the founding signatures are gathered in one go; nothing runs yet.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from client import demo_data, software
from client.data import check_file
from client.demo_data import DemoSettings
from client.flower_connection import new_node_key
from coordinator.blobs import BlobStore
from coordinator.errors import CoordinatorError
from coordinator.tls import ensure_tls
from ledger import envelope
from ledger.durable import write_private
from ledger.log import Log
from ledger.policy import quorum_size
from ledger.record import Record
from ledger.records import Agreement, Charter, Dataset, Job
from ledger.signature import KeyType, SigningKey
from ledger.values import Aggregation, Member, Terms, Training

ORIGIN = "demo.wardround.example/consortium"
PURPOSE = "demonstration"
LIFETIME_EPSILON = "8"  # of each hospital's dataset, add/remove one patient
MAX_DISHONEST = 1
DAY = 86_400
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
    names = (*settings.hospitals, "coordinator", "researcher")
    keys = {name: _key(name, KeyType.ED25519) for name in names} | {"log": _key(ORIGIN, KeyType.ED25519)}
    witnesses = {name: _key(f"{name}.example/witness", KeyType.COSIGNATURE) for name in settings.hospitals}
    setup = Setup(
        directory=directory, settings=settings, port=port, keys=keys, charter=_charter(keys, witnesses)
    )
    _prepare_coordinator(setup)
    for name in settings.hospitals:
        _prepare_hospital(setup, name, witnesses[name], files[name])
    return setup


def _key(name: str, kind: KeyType) -> SigningKey:
    return SigningKey(name=name, type=kind, seed=secrets.token_bytes(32))


def _charter(keys: dict[str, SigningKey], witnesses: dict[str, SigningKey]) -> Charter:
    members = tuple(
        Member(
            name=name,
            role="hospital" if name in witnesses else name,
            key=envelope.public_hex(keys[name]),
            witness=witnesses[name].verifier.to_text() if name in witnesses else "",
        )
        for name in sorted(keys)
        if name != "log"
    )
    terms = Terms(
        members=members,
        max_dishonest=MAX_DISHONEST,
        quorum=quorum_size(len(witnesses), MAX_DISHONEST),
        log=keys["log"].verifier.to_text(),
        recovery_keys=(),
        recovery_quorum=0,
        rules=1,
    )
    return Charter(origin=ORIGIN, name="demonstration", founded_at=int(time.time()), terms=terms)


def _prepare_coordinator(setup: Setup) -> None:
    directory = setup.coordinator
    (directory / "keys").mkdir(parents=True)
    (directory / "nodes").mkdir()
    for name in ("log", "coordinator"):
        write_private(directory / "keys" / f"{name}.key", setup.keys[name].to_text().encode() + b"\n")
    config = f'host = "127.0.0.1"\nport = {setup.port}\npublic_name = "localhost"\nround_seconds = 60\n'
    (directory / "coordinator.toml").write_text(config)
    ensure_tls(directory / "tls", ["localhost", "127.0.0.1"], datetime.now(UTC))
    founders = [setup.keys[m.name] for m in setup.charter.terms.members]
    entry = envelope.sign(setup.charter, *founders)
    Log.create(directory / "log", entry, [setup.keys["log"]], int(time.time())).close()
    blobs = BlobStore(directory / "blobs")
    blobs.put(setup.settings.dictionary.to_bytes())
    blobs.put(initial_model(setup.settings))


def _prepare_hospital(setup: Setup, name: str, witness: SigningKey, file: Path) -> None:
    directory = setup.hospital(name)
    (directory / "keys").mkdir(parents=True)
    for folder in (directory, directory / "keys"):
        folder.chmod(0o700)
    write_private(directory / "keys" / "identity.key", setup.keys[name].to_text().encode() + b"\n")
    write_private(directory / "keys" / "witness.key", witness.to_text().encode() + b"\n")
    private, public = new_node_key()
    write_private(directory / "keys" / "node.pem", private)
    secret = secrets.token_bytes(32)
    write_private(directory / "keys" / "dataset.secret", secret)
    (setup.coordinator / "nodes" / f"{name}.pub").write_bytes(public)
    shutil.copyfile(setup.coordinator / "tls" / "ca.pem", directory / "ca.pem")
    shutil.move(file, directory / "patients.csv")
    (directory / "patients.csv").chmod(0o600)
    (directory / "dictionary.json").write_bytes(setup.settings.dictionary.to_bytes())
    settings = setup.settings
    report = check_file(
        directory / "patients.csv", settings.dictionary, secret=secret
    )  # what a person confirms
    (directory / "hospital.toml").write_text(f"""\
name = "{name}"
coordinator = "localhost:{setup.port}"
authority = "ca.pem"
charter = "{setup.charter.digest()}"

[dataset]
name = "{settings.data}"
file = "patients.csv"
dictionary = "dictionary.json"
size_class = {report.size_class}
epsilon = "{LIFETIME_EPSILON}"
delta = "{settings.delta}"
purposes = ["{PURPOSE}"]

[policy]
approve = "built-in"
purposes = ["{PURPOSE}"]
max_epsilon_per_job = "{settings.epsilon}"
""")


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
