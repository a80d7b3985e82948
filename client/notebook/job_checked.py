"""What a check of a job found, as a table: problems with their fixes, prices by hospital, the dry run's figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client import job_check, job_problems
from client.job_check import LABEL, Report
from client.job_match import Price
from client.model_faults import SEPARATOR
from client.notebook import job_values, layout
from client.notebook.mending import MENDABLE

if TYPE_CHECKING:
    from client.follower import Sight
    from client.notebook.job import Job

_OF_MODEL = re.compile(
    r"model\.py: every hospital would refuse it \(model-[a-z]+: (.*)\)", re.DOTALL
).fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem of a job."""

    problem: str  # what is wrong
    fix: str  # what to do; "" where the problem says it
    mendable: bool = False  # whether `job.fixed()` does it

    def __str__(self) -> str:
        return f"{self.problem}: {self.fix}" if self.fix else self.problem


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Checked:
    """What is known of a job before anybody is asked.

    Attributes:
        job: The job that was checked; with `fix=True`, as it was mended.
        findings: Its problems, each with its fix.
        report: What `wardround job check` prints of it: the record, prices, the dry run.
    """

    job: Job
    findings: tuple[Finding, ...]
    report: Report

    @property
    def ok(self) -> bool:
        """Whether the job can be submitted as it is."""
        return not self.findings

    @property
    def problems(self) -> tuple[str, ...]:
        """Each problem with its fix, a sentence each."""
        return tuple(map(str, self.findings))

    def to_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return self.report.to_json() | {"problems": list(self.problems)}

    def __repr__(self) -> str:
        return "\n".join(layout.text(title, rows, header) for title, header, rows in self._tables())

    def _repr_html_(self) -> str:
        return "".join(layout.html(title, rows, header) for title, header, rows in self._tables())

    def _tables(self) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        count, name = len(self.findings), self.job.draft.name
        if count:
            rows = [(f.problem, f.fix) for f in self.findings]
            yield f"Job {name} has {count} problem{'s' if count > 1 else ''}", ("problem", "what to do"), rows
        else:
            yield f"Job {name} can be submitted", (), [(line,) for line in self._summary()]
        if self.report.prices:
            header = (
                "hospital",
                "patients",
                "epsilon, trained on",
                "epsilon, measured on",
                "noise multiplier",
            )
            title = f"The price, for each patient, at delta {self.job.draft.delta} (add/remove one patient)"
            yield title, header, [self._price(p) for p in self.report.prices]
        if (dry := self.report.dry) is not None:
            yield (
                f"The dry run, {LABEL}",
                (),
                [
                    ("rounds", f"{dry.rounds}, {dry.seconds_per_round:.3f} s for one hospital's here"),
                    (
                        "bytes",
                        f"{dry.bytes_down:,} to each hospital in each round, about {dry.bytes_up:,} back",
                    ),
                    ("AUROC", f"{dry.before.auroc:.2f} -> {dry.after.auroc:.2f}"),
                    ("loss", f"{dry.before.log_loss:.2f} -> {dry.after.log_loss:.2f}"),
                ],
            )

    def _summary(self) -> Iterator[str]:
        return iter(()) if self.report.job is None else job_check.summary(self.job, self.report.job)

    def _price(self, price: Price) -> tuple[str, ...]:
        draft = self.job.draft
        if price.terms is None:
            return (price.dataset, f"about {price.size_class}", f"would decline: {price.refusal}", "", "")
        most = price.terms.epsilon
        measured = min((draft.heldout_epsilon, most), key=float) if draft.evaluate else "not measured"
        return (
            price.dataset,
            f"about {price.size_class}",
            f"at most {min((draft.epsilon, most), key=float)}",
            f"at most {measured}" if draft.evaluate else measured,
            price.terms.training.noise_multiplier,
        )


def check(job: Job, *, dry: bool, sight: Sight | None, researcher: str, now: int | None) -> Checked:
    """Check a job, as `wardround job check` does. For arguments and errors see `Job.check`."""
    report = job_check.check(job, sight=sight, researcher=researcher, now=now, dry=dry)
    lines = dict.fromkeys([*report.problems, *job_problems.before_submitting(job.dictionary)])
    return Checked(job=job, findings=tuple(f for line in lines for f in findings(line)), report=report)


def findings(problem: str) -> Iterator[Finding]:
    """Yield the problems that one line of a report names, each apart from its fix."""
    of_model = _OF_MODEL(problem)
    for part in of_model[1].split(SEPARATOR) if of_model else [job_values.in_python(problem)]:
        said, _, fix = part.rpartition(": ")
        mendable = bool(of_model and MENDABLE(part))
        yield Finding(
            problem=said or part,
            fix=(fix if said else "") + (", or job.fixed() does it" if mendable else ""),
            mendable=mendable,
        )
