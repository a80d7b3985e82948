"""What the worker is told about a job: public numbers of the job's and the approval's records, as one JSON object.

The agent makes it from records, the worker turns it into a plan and a model; neither imports the other's
libraries. Defaults of settings that a job leaves out are here, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from client.errors import TrainingRefusedError
from client.training_plan import TrainingPlan
from ledger import canonical
from ledger.errors import MalformedError
from ledger.values import Code, Count, Decimal, Digest, Part, Positive, Training

BUILT_IN = ("logistic-regression", "mlp", "small-cnn")  # as `client.models`, which needs torch
# beside hidden-1, hidden-2 and so on; what a job was initialised with changes nothing here
SETTINGS = ("chunk-size", "fedprox-mu", "grid-bits", "outputs", "prevalence", "seed")
HIDDEN = (64, 32)  # widths of the MLP's hidden layers where the job names none
GRID_BITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec(Part):
    """How this hospital trains in one job."""

    job: Digest
    model: Code
    model_code: Digest
    parameters: Positive
    outputs: Positive
    hidden: tuple[Positive, ...]
    loss: Code
    local_steps: Positive
    learning_rate: Decimal
    max_grad_norm: Decimal
    noise_multiplier: Decimal
    sample_rate: Decimal
    size_class: Positive
    grid_bits: Positive
    chunk_size: Count  # 0: whatever suits the model
    fedprox_mu: Decimal

    @classmethod
    def of(cls, job: str, training: Training, noise_multiplier: str, size_class: int) -> JobSpec:
        """Return the spec of a job.

        Args:
            job: The job's digest.
            training: The job's.
            noise_multiplier: This hospital's, as its approval spells it.
            size_class: Its dataset's.

        Raises:
            TrainingRefusedError: a setting is unknown, or its value out of range.
        """
        settings = {s.name: s.value for s in training.settings}
        widths = [f"hidden-{i + 1}" for i in range(sum(n.startswith("hidden-") for n in settings))]
        if unknown := sorted(set(settings) - set(SETTINGS) - set(widths)):
            raise TrainingRefusedError(
                f"the setting {unknown[0]!r} is unknown here: leave it out, or upgrade"
            )
        try:
            return cls(
                job=job,
                model=training.model,
                model_code=training.model_code,
                parameters=training.parameters,
                outputs=int(settings.get("outputs", "1")),
                hidden=tuple(int(settings[w]) for w in widths) or HIDDEN,
                loss=training.loss,
                local_steps=training.local_steps,
                learning_rate=training.learning_rate,
                max_grad_norm=training.max_grad_norm,
                noise_multiplier=noise_multiplier,
                sample_rate=training.sample_rate,
                size_class=size_class,
                grid_bits=int(settings.get("grid-bits", str(GRID_BITS))),
                chunk_size=int(settings.get("chunk-size", "0")),
                fedprox_mu=settings.get("fedprox-mu", "0"),
            )
        except (ValueError, MalformedError):
            raise TrainingRefusedError("a setting of the job is out of range: correct the job") from None

    @classmethod
    def from_json(cls, value: object) -> JobSpec:
        """Read what `to_json` wrote. Raises MalformedError for anything else."""
        return canonical.build(cls, value)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return canonical.plain(self)

    def plan(self, chunk_size: int) -> TrainingPlan:
        """Return the plan of one round.

        Args:
            chunk_size: What suits the model; the job's own takes precedence.

        Raises:
            TrainingRefusedError: a number or a mode is not offered.
        """
        rate = float(self.sample_rate)
        return TrainingPlan(
            learning_rate=float(self.learning_rate),
            max_grad_norm=float(self.max_grad_norm),
            noise_multiplier=float(self.noise_multiplier),
            size_class=self.size_class,
            loss=self.loss,
            local_steps=self.local_steps,
            sampling="full" if rate == 1 else "poisson",
            sample_rate=rate,
            chunk_size=self.chunk_size or chunk_size,
            grid_bits=self.grid_bits,
            fedprox_mu=float(self.fedprox_mu),
        )
