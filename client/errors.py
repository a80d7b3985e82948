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


class GraphError(TrainingRefusedError):
    """The graph of a job's own model is not one that is offered: change the model as the message says."""


class ModelRefusedError(TrainingRefusedError):
    """A job's `model.py` does what no model may: change the model as the message says.

    Attributes:
        code: One of `client.approval.REFUSALS`.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


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
        status: Its HTTP status: 400, 403, 409 or 413.
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


class SandboxError(ClientError):
    """The kernel does not confine this process: run no code here that it was to confine."""


class DeclinedError(ClientError):
    """This hospital does not take part in a job: post the code as its refusal.

    Attributes:
        code: One of `client.approval.REFUSALS`.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class DecisionError(ClientError):
    """A person's command cannot be carried out as it stands: do what the line says, nothing was decided."""


class LocalStateError(ClientError):
    """A file that the agent keeps cannot be read or written: see to the disk, then start the agent again."""


class JobFileError(ClientError):
    """A job folder cannot be used as it is: correct what is named, nothing was sent.

    Attributes:
        problems: One line for each thing that is wrong.
    """

    def __init__(self, *problems: str, where: str = "") -> None:
        if len(problems) > 1:
            text = f"{len(problems)} problems: {'; '.join(problems)}"
        else:
            text = "".join(problems)
        super().__init__(f"{where}: {text}" if where else text)
        self.problems = problems


class EngineError(ClientError):
    """What a simulation runs on cannot start, or ended: do what the line says; no hospital's budget was touched."""


class JobStateError(ClientError):
    """What is asked of a job does not fit its place in its life on the log: the message says what does."""


class InterceptedError(ClientError):
    """Who answers is not the coordinator that the invitation names: nothing was sent or written."""


class JoiningError(ClientError):
    """Joining cannot go on as it is: do what the message says, then give the same command again.

    Attributes:
        status: The coordinator's HTTP status, or 0 where it was not asked.
    """

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class ProposalError(ClientError):
    """A proposal cannot be shown or signed as it is: nothing was signed; do what the message says."""


class UnsoundLogError(ClientError):
    """The log is not the one that was agreed on, or breaks a rule: decide nothing, tell the other members."""


class MissingExtraError(ClientError):
    """An optional package that this needs is not installed: install the extra that the message names."""


class TrackingError(ClientError):
    """A run cannot be followed as was asked: do what the message says; the run itself is not touched."""
