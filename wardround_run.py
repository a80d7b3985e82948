"""A run in a notebook: its figures as tables and pictures, its evidence, and the model that came of it."""

from __future__ import annotations

import html
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.errors import JobStateError, LocalStateError
from client.job_folder import JobFolder
from client.job_result import CARD, EVIDENCE, MODEL
from client.notebook import scoring, tables
from client.notebook.extras import needed
from client.notebook.figures import Estimate, Figures
from client.notebook.plots import Plot
from client.notebook.run_bar import RunBar

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

_SHOWN = 12  # hospitals that are listed one by one
NO_EVIDENCE = (
    "A crowd has no evidence: nothing of it was signed or logged; simulate at most 62 hospitals without an engine, "
    "or submit the job to a consortium, for a run that anybody can verify."
)
_UNFINISHED = (
    "the run is {status} after round {done} of {rounds} and has released nothing: {what} needs a finished run"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a run's evidence has shown, and what it cannot show; whatever is wrong was raised instead."""

    established: Sequence[str]
    not_established: Sequence[str]

    def __repr__(self) -> str:
        shown = [f"  + {line}" for line in self.established]
        return "\n".join(
            ("Verified:", *shown, "Not shown by it:", *(f"  - {n}" for n in self.not_established))
        )


class Run:
    """What a job has shown: finished, or as far as it came.

    Attributes:
        figures: All that tables and plots are made from.
        plot: The pictures: `run.plot.auroc()`, or `run.plot()` for all.
        charter: Digest of the consortium's charter.
        directory: Where the consortium's folders were left, each hospital's budget among them; None: nowhere.
    """

    def __init__(
        self,
        figures: Figures,
        *,
        job: JobFolder,
        charter: str,
        result: Path | None,
        directory: Path | None,
        passing: Path | None = None,
        crowd: bytes | None = None,
    ) -> None:
        """Show what came of a job.

        Args:
            figures: As the log and the evidence have them.
            job: What was run.
            charter: Digest of the consortium's charter.
            result: Folder with the model, its card and the evidence; None where nothing was released.
            directory: The consortium's folders, where they were left.
            passing: A folder that is removed with this object.
            crowd: The parameters of a crowd's model, which has no evidence.
        """
        self.figures = figures
        self.plot = Plot(lambda: self.figures)
        self.charter = charter
        self.directory = directory
        self._job = job
        self._result = result
        self._crowd = crowd
        self._verified = False
        if passing is not None:
            weakref.finalize(self, shutil.rmtree, passing, ignore_errors=True)

    @property
    def status(self) -> str:
        """Where the job stands, as the log says: "running", "finished", ..."""
        return self.figures.status

    @property
    def metrics(self) -> pd.DataFrame:
        """The published evaluations; see `tables.metrics`."""
        return tables.metrics(self.figures)

    @property
    def privacy(self) -> pd.DataFrame:
        """What each round has cost each hospital's patients; see `tables.privacy`."""
        return tables.privacy(self.figures)

    @property
    def participation(self) -> pd.DataFrame:
        """What became of each hospital in each round; see `tables.participation`."""
        return tables.participation(self.figures)

    @property
    def geometry(self) -> pd.DataFrame:
        """How each noised update pulled at the model; see `tables.geometry`."""
        return tables.geometry(self.figures)

    @property
    def budgets(self) -> pd.DataFrame:
        """What each hospital has set aside, and what is gone of it; see `tables.budgets`."""
        return tables.budgets(self.figures)

    @property
    def evidence(self) -> Path:
        """The folder that `wardround evidence verify` takes. Raises JobStateError: nothing was released."""
        return self._of_result("evidence") / EVIDENCE

    @property
    def card(self) -> str:
        """The model's card. Raises JobStateError: nothing was released."""
        return (self._of_result("a card") / CARD).read_text(encoding="utf-8")

    def verify(self, progress: bool = True) -> Verification:
        """Check the whole log, and compute every round again from the updates that the hospitals signed for.

        Args:
            progress: Whether to show a bar.

        Raises:
            JobStateError: nothing was released.
            CoordinatorError, LedgerError: saying what is wrong and where.
        """
        from coordinator import evidence_check

        with RunBar("verification", self.figures.rounds, shown=progress) as bar:
            found = evidence_check.verify(self.evidence, charter=self.charter, progress=bar.count)
        self._verified = True
        return Verification(
            established=tuple(found.established()), not_established=tuple(found.not_established())
        )

    def model(self) -> nn.Module:
        """Return the released model, a torch module that takes scaled features (`run.predict` takes raw rows).

        Raises:
            JobStateError: nothing was released.
            ModelFileError, JobFileError: it cannot be read or built.
        """
        if self._crowd is not None:
            return scoring.of_parameters(self._crowd, self._job)
        return scoring.load(self._of_result("a model") / MODEL, self._job)

    def predict(self, frame: Any) -> pd.DataFrame:
        """Score the rows of a DataFrame; see `scoring.predict`."""
        return scoring.predict(self.model(), self._job, frame)

    def save(self, folder: str | Path) -> Path:
        """Copy the model, its card and the evidence into a folder that does not exist yet; return it.

        Raises:
            JobStateError: nothing was released, or the folder exists.
            LocalStateError: the disk refuses; nothing half-made is left.
        """
        result, path = self._of_result("saving"), Path(folder)
        if path.exists():
            raise JobStateError(f"{path} exists: name a folder that does not")
        partial = path.with_name(f".{path.name}.partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(result, partial)
            partial.replace(path)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise LocalStateError(f"cannot make {path}: {error.strerror}; see to the disk") from None
        return path

    def __repr__(self) -> str:
        lines = [self._heading()]
        shown = tables.budgets(self.figures)
        width = max(map(len, shown["hospital"].head(_SHOWN)), default=0)
        for b in shown.head(_SHOWN).itertuples():
            spent = f"epsilon {b.job_spent:g} of {b.job_epsilon:g} for this job"
            lines.append(f"  {b.hospital:<{width}}  about {b.patients} patients, {spent}{_lifetime(b)}")
        if len(shown) > _SHOWN:
            lines.append(f"  ... and {len(shown) - _SHOWN} more: run.budgets")
        return "\n".join((*lines, self._words()))

    def _repr_html_(self) -> str:
        table = tables.budgets(self.figures).to_html(index=False, na_rep="", max_rows=_SHOWN)
        return f"<p>{html.escape(self._heading())}</p>{table}<p>{html.escape(self._words())}</p>"

    def _heading(self) -> str:
        f = self.figures
        last = next((m.auroc for m in reversed(f.measured) if m.auroc is not None), None)
        done = f"{self._done()} of {f.rounds} rounds"
        return f"run of {f.name} ({f.digest[:12]}): {f.status}, {done}{_auroc(last)}"

    def _words(self) -> str:
        if self._crowd is not None:
            return f"Epsilons are for adding or removing one patient. {NO_EVIDENCE}"
        if self._result is None:
            return "Nothing was released; tables and plots show the rounds so far."
        checked = "Verified." if self._verified else "Not verified yet: run.verify()."
        return f"Epsilons are for adding or removing one patient. {checked}"

    def _done(self) -> int:
        return min(self.figures.rounds, max((part.round for part in self.figures.parts), default=0))

    def _of_result(self, what: str) -> Path:
        if self._crowd is not None:
            raise JobStateError(NO_EVIDENCE)
        if self._result is None:
            f = self.figures
            raise JobStateError(
                _UNFINISHED.format(status=f.status, done=self._done(), rounds=f.rounds, what=what)
            )
        return self._result


def require_tables() -> None:
    """Refuse to begin what could not be shown at its end. Raises MissingExtraError: pandas is not installed."""
    needed("pandas", "notebook", "tables are made")


def _auroc(found: Estimate | None) -> str:
    return "" if found is None else f", AUROC {found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _lifetime(budget: Any) -> str:
    if budget.lifetime_spent != budget.lifetime_spent:  # NaN: not known
        return f"; {budget.lifetime_epsilon:g} for ever"
    return f"; {budget.lifetime_spent:g} of {budget.lifetime_epsilon:g} for ever"
