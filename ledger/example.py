"""A small but complete consortium with fixed keys and times: what `wardround ledger example` writes.

Five hospitals, a coordinator and a researcher; two of the hospitals offer a dataset, one job runs three rounds and
evaluates its released model. Every byte is the same every time, so other people's tools can be tested on it.
The keys are derived from public words: never use them elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from ledger import envelope, records
from ledger.policy import quorum_size
from ledger.records import Record
from ledger.signature import KeyType, SigningKey
from ledger.values import (
    Aggregation,
    Mechanism,
    Member,
    Metric,
    Participant,
    Setting,
    Software,
    Spent,
    Terms,
    Training,
)

ORIGIN = "ledger.example/heart-consortium"
FOUNDED = 1_790_000_000  # 2026-09-21
EXPIRES = FOUNDED + 365 * 86_400
HOSPITALS = ("alpha", "bravo", "charlie", "delta", "echo")
PARTICIPANTS = ("alpha", "bravo")
MAX_DISHONEST = 1
ROUNDS = 3


def digest(words: str) -> str:
    """Return a digest that stands for content that the example does not carry."""
    return hashlib.sha256(f"wardround example: {words}".encode()).hexdigest()


def key(words: str, name: str, kind: KeyType = KeyType.ED25519) -> SigningKey:
    """Return the example's key of these words."""
    return SigningKey(name=name, type=kind, seed=bytes.fromhex(digest(f"key {words}")))


LOG_KEY = key("log", ORIGIN)
KEYS = {name: key(name, name) for name in (*HOSPITALS, "coordinator", "researcher")}
WITNESSES = {
    name: key(f"{name} witness", f"{name}.example/witness", KeyType.COSIGNATURE) for name in HOSPITALS
}


def members() -> tuple[Member, ...]:
    """Return the founding members, sorted by name."""
    roles = {"coordinator": "coordinator", "researcher": "researcher"}
    return tuple(
        Member(
            name=name,
            role=roles.get(name, "hospital"),
            key=envelope.public_hex(KEYS[name]),
            witness=WITNESSES[name].verifier.to_text() if name in WITNESSES else "",
        )
        for name in sorted(KEYS)
    )


def charter() -> records.Charter:
    """Return entry 0's record."""
    terms = Terms(
        members=members(),
        max_dishonest=MAX_DISHONEST,
        quorum=quorum_size(len(HOSPITALS), MAX_DISHONEST),
        log=LOG_KEY.verifier.to_text(),
        recovery_keys=tuple(envelope.public_hex(key(f"recovery {i}", "recovery")) for i in range(3)),
        recovery_quorum=2,
        rules=1,
    )
    return records.Charter(origin=ORIGIN, name="heart-consortium", founded_at=FOUNDED, terms=terms)


def dataset(hospital: str) -> records.Dataset:
    """Return a hospital's dataset record."""
    return records.Dataset(
        origin=ORIGIN,
        hospital=hospital,
        name="heart",
        version=1,
        schema=digest("heart data dictionary"),
        cohort=digest(f"{hospital} cohort"),
        size_class=256 if hospital == "alpha" else 128,
        purposes=("cardiology-research",),
        epsilon="8",
        delta="0.0001",
    )


def agreement() -> records.Agreement:
    """Return the data use agreement."""
    return records.Agreement(
        origin=ORIGIN,
        text=digest("data use agreement"),
        parties=(*PARTICIPANTS, "researcher"),
        datasets=tuple(f"{name}/heart" for name in PARTICIPANTS),
        purposes=("cardiology-research",),
        expires_at=EXPIRES,
    )


def job() -> records.Job:
    """Return the job: logistic regression on 13 features, three rounds, the released model evaluated."""
    return records.Job(
        origin=ORIGIN,
        researcher="researcher",
        name="heart-disease",
        purpose="cardiology-research",
        agreements=(agreement().digest(),),
        datasets=agreement().datasets,
        dictionary=digest("heart data dictionary"),
        model=digest("model 0"),
        training=Training(
            model="logistic-regression",
            model_code=digest("logistic regression's source"),
            parameters=14,
            loss="bce-with-logits",
            local_steps=1,
            learning_rate="0.3",
            max_grad_norm="0.5",
            sample_rate="1",
            settings=(),
        ),
        aggregation=Aggregation(
            strategy="fedavg", weighting="size-class", settings=(Setting(name="server-rate", value="1"),)
        ),
        epsilon="3",
        heldout_epsilon="3",
        delta="0.0001",
        rounds=ROUNDS,
        evaluate=(ROUNDS + 1,),
        min_participants=2,
        expires_at=FOUNDED + 30 * 86_400,
        software=(Software(name="wardround", version="0.1.0", digest=digest("wardround 0.1.0")),),
    )


def mechanism(name: str, noise: str, clip: str) -> Mechanism:
    """Return one full-batch step of a mechanism."""
    return Mechanism(name=name, noise_multiplier=noise, sample_rate="1", steps=1, max_grad_norm=clip)


TRAINING = mechanism("dp-sgd", "2.6", "0.5")
EVALUATION = mechanism("histogram", "1.7", "1")


def approval(hospital: str) -> records.Approval:
    """Return a hospital's approval of `job`."""
    return records.Approval(
        origin=ORIGIN,
        hospital=hospital,
        number=1,
        job=job().digest(),
        dataset=f"{hospital}/heart",
        cohort=digest(f"{hospital} cohort for the job"),
        epsilon="3",
        training=TRAINING,
        evaluation=(EVALUATION,),
    )


def start() -> records.Start:
    """Return round 0."""
    return records.Start(
        origin=ORIGIN,
        job=job().digest(),
        time=FOUNDED + 3_600,
        participants=tuple(
            Participant(hospital=h, approval=approval(h).digest(), weight=dataset(h).size_class)
            for h in PARTICIPANTS
        ),
        model=job().model,
        software=job().software,
    )


def receipt(hospital: str, number: int, checkpoint: tuple[int, str]) -> records.Receipt:
    """Return a hospital's receipt of round `number` under the checkpoint (size, root in hex)."""
    trains = number <= ROUNDS
    return records.Receipt(
        origin=ORIGIN,
        hospital=hospital,
        job=job().digest(),
        round=number,
        model_before=digest(f"model {min(number - 1, ROUNDS)}"),
        update=digest(f"{hospital} update {number}") if trains else "",
        metrics="" if trains else digest(f"{hospital} histogram"),
        mechanisms=(TRAINING,) if trains else (EVALUATION,),
        charge=number,
        epsilon_job=f"{1 + number / 2:g}",
        epsilon_dataset=f"{1 + number / 2:g}",
        checkpoint_size=checkpoint[0],
        checkpoint_root=checkpoint[1],
    )


def round_(number: int, receipts: Sequence[records.Receipt]) -> records.Round:
    """Return the record that closes a round."""
    before, after = (digest(f"model {min(n, ROUNDS)}") for n in (number - 1, number))
    used = ((r.hospital, r.update, r.metrics, dataset(r.hospital).size_class) for r in receipts)
    return records.Round(
        origin=ORIGIN,
        job=job().digest(),
        round=number,
        time=FOUNDED + 3_600 + 10 * number,
        model_before=before,
        model_after=after,
        receipts=len(receipts),
        left_out=(),
        inputs=records.inputs_digest(before, "", used),
        server_state_after="",
    )


def release() -> records.Release:
    """Return the release of the finished model."""
    spent = f"{1 + (ROUNDS + 1) / 2:g}"
    return records.Release(
        origin=ORIGIN,
        job=job().digest(),
        model=digest(f"model {ROUNDS}"),
        artifact=digest("model.safetensors"),
        card=digest("model card"),
        metrics=(Metric(name="auroc", value="0.88", low="0.82", high="0.93"),),
        epsilons=tuple(Spent(hospital=h, epsilon_job=spent, epsilon_dataset=spent) for h in PARTICIPANTS),
    )


def history() -> Iterator[Sequence[Record]]:
    """Yield what comes before the rounds, in the groups that are appended together."""
    yield [charter()]
    yield [*(dataset(h) for h in PARTICIPANTS), agreement()]
    yield [job()]
    yield [approval(h) for h in PARTICIPANTS]
    yield [start()]


ROUND_NUMBERS = range(1, ROUNDS + 2)  # the last one evaluates the released model


def exchange(number: int, checkpoint: tuple[int, str]) -> Sequence[Record]:
    """Return the batch of one round, obeying a checkpoint (size, root in hex)."""
    receipts = [receipt(h, number, checkpoint) for h in PARTICIPANTS]
    return [*receipts, round_(number, receipts)]


def ending() -> Sequence[Record]:
    """Return what comes after the rounds."""
    return [release(), records.Ended(origin=ORIGIN, job=job().digest(), reason="finished")]


def signed(record: Record) -> bytes:
    """Return the entry of a record, signed by whoever must sign it."""
    if isinstance(record, records.Charter):
        return envelope.sign(record, *KEYS.values())
    if isinstance(record, records.Agreement):
        return envelope.sign(record, *(KEYS[name] for name in record.parties))
    for role in ("hospital", "researcher", "member"):
        if (name := getattr(record, role, None)) is not None and not isinstance(record, records.Access):
            return envelope.sign(record, KEYS[name])
    return envelope.sign(record, KEYS["coordinator"])
