"""The errors of the coordinator; each class tells the caller what to do."""

from __future__ import annotations

from ledger.errors import RuleError


class CoordinatorError(Exception):
    """Base: catch this to handle any failure of the coordinator's own."""


class SettingError(CoordinatorError):
    """A job asks for something that cannot be done as written: refuse the job, nothing has started."""


class StorageError(CoordinatorError):
    """The disk refused or its outcome is unknown: stop, free the disk, try again; nothing half-made is visible."""


class IntegrityError(CoordinatorError):
    """Stored or received bytes are not the ones that their digest names: use nothing of them."""


class AggregationError(CoordinatorError):
    """These updates make no model: abort the round on the record."""


class TlsError(CoordinatorError):
    """A certificate or key cannot be used or made: correct the file or the host name that is named."""


class TransportError(CoordinatorError):
    """Flower's SuperLink does not run, or refused a request: read its log, then start again."""


class FlowerEndedError(TransportError):
    """Flower's SuperLink ended, or its folder is gone: start it again; the log says where the jobs go on."""


class ReplyError(CoordinatorError):
    """A hospital's reply is not laid out as the wire format says: leave it out of the round."""


class MetricsError(CoordinatorError):
    """A histogram or its edges do not fit together: publish no metric of this evaluation."""


class ModelFileError(CoordinatorError):
    """A model file cannot be written as asked: nothing half-made is left."""


class ConfigError(CoordinatorError):
    """The coordinator's folder is not complete or its settings are wrong: correct the file that is named."""


class ServiceError(CoordinatorError):
    """The service cannot run: do what the message says, then start it again."""


class JobError(CoordinatorError):
    """A job on the log cannot be run as it stands: nothing has started; put right what is named."""


class BridgeError(CoordinatorError):
    """The ServerApp's process and the coordinator cannot talk: end the run, it is started again."""


class StoppedError(CoordinatorError):
    """The coordinator is being stopped: leave what you do; the next start takes it up from the log."""


class EvidenceError(CoordinatorError):
    """An evidence bundle is incomplete, or what it shows is not what the log says: believe nothing of it."""


class JoiningError(CoordinatorError):
    """An invitation, a deposit or a signature cannot be taken: nothing has changed; do what the message says."""


class UninvitedError(JoiningError):
    """A code is nobody's, or has expired: refuse it, and count it as a guess."""


class ProposalError(CoordinatorError):
    """A proposal, or a signature on one, cannot be taken: nothing has changed; do what the message says."""


class ObjectedError(RuleError):
    """A member's record may not follow the log as it is: tell its author by which rule, and at which size.

    Attributes:
        record: The record's digest.
        size: Entries that the log had when it was judged.
    """

    def __init__(self, error: RuleError, *, record: str, size: int) -> None:
        super().__init__(error.rule, error.reason)
        self.record = record
        self.size = size


class BackupError(CoordinatorError):
    """A backup cannot be written or restored as asked: do what the line says, nothing half-made is left."""


class SuccessionError(CoordinatorError):
    """The log that follows a dead one cannot be begun as asked: do what the line says."""
