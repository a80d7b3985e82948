"""The errors of a hospital's side; each class tells the caller what to do."""

from __future__ import annotations


class ClientError(Exception):
    """Base: catch this to handle any failure on a hospital's side."""


class DictionaryError(ClientError):
    """A data dictionary does not follow the written format: correct the dictionary, no file was read."""


class DataError(ClientError):
    """A data file cannot be used as it is: correct the file or the dictionary; no value of a row is named."""


class ModelFileError(ClientError):
    """A file is not a model this version can read: ask for the released file again."""


class TrainingRefusedError(ClientError):
    """This model, plan or data cannot be trained privately: change what the message names, nothing was charged."""


class BudgetError(ClientError):
    """The privacy account, its disk or a plan's cost does not allow this: nothing was half written, send nothing."""


class BudgetExceededError(BudgetError):
    """The release would exceed the dataset's lifetime budget: skip this round; smaller plans may still fit."""


class AttemptError(BudgetError):
    """This round of this job was attempted with another model: one attempt a round, skip it."""


class MessageError(ClientError):
    """A message from the coordinator is not laid out as the wire format says: drop it, train on nothing of it."""


class NodeKeyError(ClientError):
    """The key that this hospital's Flower node signs with cannot be used: restore it or deposit a new one."""


class ConfigError(ClientError):
    """hospital.toml or a file that it names cannot be used: correct it, nothing was started or written."""


class UnreachableError(ClientError):
    """The coordinator did not answer as it must: try again later, nothing was lost."""


class PostRefusedError(ClientError):
    """The coordinator refused a record or a cosignature.

    Attributes:
        status: Its HTTP status: 400, 403 or 409.
        rule: The ledger rule that it names, or "".
        statement: The objection that it signed, or b"".
    """

    def __init__(self, status: int, rule: str, reason: str, statement: bytes = b"") -> None:
        super().__init__(f"the coordinator refused ({status}): {reason}")
        self.status = status
        self.rule = rule
        self.statement = statement


class GateError(ClientError):
    """A message may not be obeyed: answer with the code, touch no row.

    Attributes:
        code: One of `client.gate.REFUSALS`; all that leaves the hospital.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class WorkerError(ClientError):
    """The worker did not do what was asked; it holds rows, so it says a code and nothing else.

    Attributes:
        code: One of `client.worker.CODES`.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class DeclinedError(ClientError):
    """This hospital does not take part in a job: post the code as its refusal.

    Attributes:
        code: One of `client.approval.REFUSALS`.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class LocalStateError(ClientError):
    """A file that the agent keeps cannot be read or written: see to the disk, then start the agent again."""
