"""The vocabulary of records: narrowed scalars and the parts that several records share.

Every value here is public. There is no free text on the log: names, codes and purposes are short lowercase
words, and whatever needs prose (an agreement, a model card) is named by its digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal as _Decimal
from itertools import pairwise
from typing import Annotated

from ledger import canonical
from ledger.canonical import Text, Within
from ledger.errors import MalformedError

_NAME = r"[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?"
_VKEY = r"[^\s+]{1,200}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44,2000}={0,2}"
_HEX64 = "64 lowercase hex digits"

Origin = Annotated[
    str, Text(r"[a-z0-9][a-z0-9./-]{0,126}[a-z0-9]", "a log's origin: a URL without its scheme")
]
Name = Annotated[str, Text(_NAME, "a name of lowercase letters, digits, dots and hyphens")]
DatasetName = Annotated[str, Text(f"{_NAME}/{_NAME}", "a dataset's name: hospital/dataset")]
Code = Annotated[str, Text(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", "a code of lowercase words and hyphens")]
RuleName = Annotated[str, Text(r"[a-z]+\.[a-z0-9-]{1,60}", "the name of a rule")]
Version = Annotated[str, Text(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,63}", "a version number")]
Digest = Annotated[str, Text(r"[0-9a-f]{64}", f"a SHA-256 of {_HEX64}")]
MaybeDigest = Annotated[str, Text(r"(?:[0-9a-f]{64})?", f"empty or a SHA-256 of {_HEX64}")]
Key = Annotated[str, Text(r"[0-9a-f]{64}", f"an Ed25519 public key of {_HEX64}")]
MaybeKey = Annotated[str, Text(r"(?:[0-9a-f]{64})?", f"empty or an Ed25519 public key of {_HEX64}")]
VerifierKey = Annotated[str, Text(_VKEY, "a verifier key: name+hash+base64")]
MaybeVerifierKey = Annotated[str, Text(f"(?:{_VKEY})?", "empty or a verifier key: name+hash+base64")]
Decimal = Annotated[
    str,
    Text(r"(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,17}[1-9])?", "a decimal without sign, exponent or spare zeros"),
]
SignedDecimal = Annotated[
    str,
    Text(
        r"(?!-0\Z)-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,17}[1-9])?",
        "a decimal without exponent or spare zeros",
    ),
]
Count = Annotated[int, Within(0)]
Positive = Annotated[int, Within(1)]
Seconds = Annotated[int, Within(0)]  # Unix time, UTC

ROLES = ("auditor", "coordinator", "hospital", "patient-representative", "researcher")
MAX_MEMBERS = 64  # in a charter; amendments add more


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Base of every part of a record: checks its own fields when it is made."""

    def __post_init__(self) -> None:
        canonical.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member(Part):
    """Somebody who may sign records."""

    name: Name
    role: Code  # one of ROLES
    key: Key  # signs this member's records
    witness: MaybeVerifierKey  # cosigns checkpoints; empty for a member that is no witness

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        if self.role not in ROLES:
            raise MalformedError(f"member.role must be one of {', '.join(ROLES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms(Part):
    """Who the consortium is and how it decides: the content of a charter."""

    members: tuple[Member, ...]  # sorted by name
    max_dishonest: Count  # f: how many witnesses may be dishonest
    quorum: Positive  # k = floor((n + f) / 2) + 1
    log: VerifierKey  # its name is the log's origin
    recovery_keys: tuple[Key, ...]  # offline; may be empty
    recovery_quorum: Count
    rules: Positive  # version of the rules

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        names = [m.name for m in self.members]
        if not 1 <= len(names) <= MAX_MEMBERS or names != sorted(set(names)):
            raise MalformedError(
                f"terms.members must be 1 to {MAX_MEMBERS} members, sorted by name, each once"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous(Part):
    """The last final point of a log that died."""

    origin: Origin
    size: Positive
    root: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange(Part):
    """New keys of one member; an empty field keeps the old key."""

    member: Name
    key: MaybeKey
    witness: MaybeVerifierKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Software(Part):
    """One package that the result depends on."""

    name: Name
    version: Version
    digest: MaybeDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Part):
    """One further number of a method, by name."""

    name: Code
    value: SignedDecimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(Part):
    """What a hospital computes in one round; PRIVACY.md says why each is fixed beforehand."""

    model: Code  # a built-in model, or "custom"
    model_code: Digest  # of the model's source text
    parameters: Positive  # how many float32 numbers the model has
    loss: Code
    local_steps: Positive
    learning_rate: Decimal
    max_grad_norm: Decimal  # each patient's gradient is clipped to this
    sample_rate: Decimal  # "1" takes every patient in every step; less is Poisson sampling
    settings: tuple[Setting, ...]  # sorted by name

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        require_sorted("training.settings", [s.name for s in self.settings])


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation(Part):
    """How updates become the next model."""

    strategy: Code
    weighting: Code  # "uniform" or "size-class"
    settings: tuple[Setting, ...]  # sorted by name

    def __post_init__(self) -> None:
        Part.__post_init__(self)
        require_sorted("aggregation.settings", [s.name for s in self.settings])
        if self.weighting not in ("size-class", "uniform"):
            raise MalformedError("aggregation.weighting must be size-class or uniform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism(Part):
    """One differentially private release, as planned and as run: enough to account for it."""

    name: Code  # "dp-sgd" on the training side, "histogram" on the held-out side
    noise_multiplier: Decimal  # standard deviation of the noise over max_grad_norm
    sample_rate: Decimal
    steps: Positive  # in one message
    max_grad_norm: Decimal  # how far one patient can move the sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant(Part):
    """One hospital in a job's start."""

    hospital: Name
    approval: Digest
    weight: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut(Part):
    """A participant whose update is not in the round's model, and why."""

    hospital: Name
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent(Part):
    """What one hospital's patients have paid, rounded up to 0.01; the deltas are the job's and the dataset's."""

    hospital: Name
    epsilon_job: Decimal
    epsilon_dataset: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Part):
    """A published result with its 95% interval, which includes the noise."""

    name: Code
    value: SignedDecimal
    low: SignedDecimal
    high: SignedDecimal


def decimal(text: str) -> _Decimal:
    """Return the number that a checked decimal string stands for, exactly."""
    return _Decimal(text)


def require_sorted(where: str, keys: list[str]) -> None:
    """Refuse a list that is not sorted or holds something twice: one set has one spelling.

    Raises:
        MalformedError: naming the field.
    """
    if any(a >= b for a, b in pairwise(keys)):
        raise MalformedError(f"{where} must be sorted, each once")
