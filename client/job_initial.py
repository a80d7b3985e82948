"""The first parameters of a job's model: a function of public settings, so that anybody finds the same bytes again.

A researcher's own `model.py` runs where it will run at every hospital, in the confined builder of `client.building`;
what comes of it is the shapes of its parameters, never their values.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from client import building, software
from client.dictionary import Dictionary
from client.errors import DeclinedError, JobFileError, TrainingRefusedError, WorkerError
from client.job_toml import JobDraft
from client.reviewed import CUSTOM
from client.settings import Limits
from client.spare_builder import SpareBuilder

if TYPE_CHECKING:
    from torch import nn

    from client.models import ModelSettings

LIMITS = Limits(
    threads=1, memory_mib=8192, model_seconds=60, gpu=False
)  # as a hospital's, where it says nothing
BUILDERS = SpareBuilder(LIMITS)  # `prepare` it where several models will be tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Initial:
    """What a job begins with."""

    parameters: bytes  # packed float32, little-endian
    model_code: str  # digest of the model's source text
    graph: bytes = b""  # what the builder made of the job's own model.py

    @property
    def count(self) -> int:
        """How many numbers the model has."""
        return len(self.parameters) // 4

    @property
    def digest(self) -> str:
        """How the record names them."""
        return hashlib.sha256(self.parameters).hexdigest()


def compute(draft: JobDraft, dictionary: Dictionary, source: bytes | None) -> Initial:
    """Build a job's model, try whether it may be trained privately, and return its first parameters.

    Args:
        draft: A job without problems of its own.
        dictionary: Its data dictionary.
        source: Bytes of its model.py; None for a built-in model.

    Raises:
        JobFileError: the model cannot be built or trained; says why and what to do.
    """
    from client import models  # torch: seconds
    from client.model_check import check_model

    shape = dictionary.input_shape
    custom = draft.model == CUSTOM
    try:
        settings = models.ModelSettings(
            name="model.py" if custom else draft.model,
            input_shape=shape,
            outputs=draft.outputs,
            hidden=draft.widths,
        )
        graph = built(source or b"", shape, draft.outputs) if custom else b""
        module = _own(graph, settings) if custom else models.build(settings)
        check_model(module, example_shape=shape, loss=draft.loss, outputs=draft.outputs)
        found = models.initial_parameters(
            module, settings, seed=draft.seed, prevalence=float(draft.prevalence)
        )
    except TrainingRefusedError as error:
        raise JobFileError(f"{'model.py' if custom else 'model'}: {error}") from None
    except DeclinedError as error:
        raise JobFileError(f"model.py: every hospital would refuse it ({error})") from None
    except WorkerError as error:
        raise JobFileError(f"model.py could not be tried here: {error}") from None
    code = hashlib.sha256(source or b"").hexdigest() if custom else software.models_digest()
    return Initial(parameters=found.astype("<f4").tobytes(), model_code=code, graph=graph)


@lru_cache(maxsize=8)
def built(source: bytes, input_shape: tuple[int, ...], outputs: int) -> bytes:
    """Return the graph that a `model.py` becomes; a process of its own makes it, once for each text.

    Raises:
        DeclinedError, WorkerError: see `building.build`.
    """
    return building.build(
        source, input_shape=input_shape, outputs=outputs, limits=LIMITS, start=BUILDERS.take
    )


def _own(graph: bytes, settings: ModelSettings) -> nn.Module:
    """Return the module of a graph. Raises TrainingRefusedError."""
    from client import graph_model

    return graph_model.from_bytes(graph, settings.input_shape)
