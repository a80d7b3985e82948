"""The errors of the ledger; each class tells the caller what to do."""

from __future__ import annotations


class LedgerError(Exception):
    """Base: catch this to handle any ledger failure."""


class MalformedError(LedgerError):
    """Bytes do not follow the written format: refuse them."""


class VerificationError(LedgerError):
    """Well-formed, but a hash, proof or signature is wrong: use nothing from this source."""


class InconsistentError(VerificationError):
    """Two signed checkpoints cannot both be true: keep both as evidence, stop training."""


class StorageError(LedgerError):
    """The disk's content is not what was written, or a write's outcome is unknown: stop, recover from disk."""


class RuleError(LedgerError):
    """A well-formed record may not follow the records before it.

    Attributes:
        rule: The rule's name as FORMAT.md lists it, for example `round.continues-lineage`.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"{rule}: {reason}")
        self.rule = rule
        self.reason = reason

    def __reduce__(self) -> tuple[type[RuleError], tuple[str, str]]:
        return (RuleError, (self.rule, self.reason))


class UpgradeError(RuleError):
    """The log uses rules newer than this software: install a newer version, nothing is wrong with the log."""


class ReadOnlyError(LedgerError):
    """The log was stopped and may not sign yet: collect its witnesses' reports first (`restart`)."""
