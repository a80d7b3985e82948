"""`Job`: all that a data scientist decides about a training job, as one value that never changes.

    job = Job(dictionary="breast-cancer", purpose="cancer-research", rounds=20, epsilon=3)
    job.check()
    job.save("my-job")          what `wardround job check my-job` reads; `Job.load("my-job")` is the same job again

From code or from a folder, the same decisions are the same job, by one digest. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client import dictionary as dictionaries
from client import job_folder, job_templates
from client.dictionary import SHIPPED, Dictionary
from client.errors import DictionaryError, JobFileError
from client.job_folder import DICTIONARY, JobContent
from client.job_initial import BUILDERS
from client.job_toml import JobDraft
from client.notebook import job_values, layout, model_text
from client.reviewed import CUSTOM

if TYPE_CHECKING:
    from client.follower import Sight
    from client.notebook.job_checked import Checked

DEFAULTS: dict[str, Any] = {  # beside `JobDraft`'s own
    "purpose": "health-services-research",
    "rounds": 30,
    "learning_rate": 0.3,
    "max_grad_norm": 0.5,
    "epsilon": 3,
}


@dataclass(frozen=True, slots=True, kw_only=True, init=False, repr=False)
class Job(JobContent):
    """A training job: a data dictionary, a model, settings, and the privacy it may cost.

    Attributes:
        draft: The settings, as `job.toml` holds them; decimals are text.
        dictionary: What the table's columns are.
        source: Bytes of `model.py`; None for a built-in model.
    """

    def __init__(
        self,
        *,
        dictionary: Dictionary | str | Path,
        name: str = "",
        model: object = "logistic",
        frozen: Mapping[str, object] | None = None,
        **settings: Any,
    ) -> None:
        """Make a job.

        Args:
            dictionary: A data dictionary, the name of a shipped one, or the path of a JSON file.
            name: What the job is called; the dictionary's name where none is given.
            model: "logistic", "mlp" or "small-cnn"; or your own: the path or the text of a `model.py`, a
                `torch.nn.Module` class, or a function that returns a module.
            frozen: Weights that are not trained, with your own model: by the name of a part of it a trained module
                or its `state_dict()`, or by the name of a parameter a tensor. They become part of `model.py`.
            settings: Any other field of `JobDraft`: purpose, rounds, epsilon, delta, learning_rate, hidden, ...
                Numbers may be floats.

        Raises:
            JobFileError: names everything that is wrong, a sentence each.
        """
        problems: list[str] = []
        found, named = _dictionary(dictionary, problems)
        kind, source = _model(model, frozen, problems)
        given = {**DEFAULTS, **settings, "dictionary": named, "model": kind}
        given["name"] = name or (found.name if found is not None else "job")
        values, wrong = job_values.read(given)
        problems += wrong
        _fill(values)
        self._become(values, found, source, problems, called=given["name"])

    def _become(
        self,
        values: dict[str, Any],
        dictionary: Dictionary | None,
        source: bytes | None,
        problems: list[str],
        *,
        called: object,
    ) -> None:
        """Set the three fields, or say everything that is wrong."""
        if not problems and dictionary is not None:
            draft = JobDraft(**values)
            for field, value in (("draft", draft), ("dictionary", dictionary), ("source", source)):
                object.__setattr__(self, field, value)
            problems += self.problems()
            if source is not None and not problems:
                BUILDERS.prepare()  # it will be tried, and so will the next one
        if problems:
            raise JobFileError(*map(job_values.in_python, problems), where=f"job {str(called)[:60]}")

    @classmethod
    def _of(cls, content: JobContent) -> Job:
        made = object.__new__(cls)
        values = {field: getattr(content.draft, field) for field in JobDraft.__dataclass_fields__}
        made._become(values, content.dictionary, content.source, [], called=content.draft.name)
        return made

    @classmethod
    def template(cls, name: str = "breast-cancer", **changes: Any) -> Job:
        """Return a job that runs as it is, with changes.

        Args:
            name: "breast-cancer", "heart-disease", "custom-model" or "blank".
            changes: As for `replace`.

        Raises:
            JobFileError: no such template, or a change is wrong.
        """
        if name not in job_templates.DRAFTS:
            raise JobFileError(
                f"no template {name!r}: choose one of {', '.join(sorted(job_templates.DRAFTS))}"
            )
        draft, files = job_templates.DRAFTS[name], job_templates.files(name)
        text = files.get(draft.dictionary)
        meant = dictionaries.shipped(draft.dictionary) if text is None else dictionaries.parse(text.encode())
        source = files["model.py"].encode() if draft.model == CUSTOM else None
        return cls._of(JobContent(draft=draft, dictionary=meant, source=source)).replace(**changes)

    @classmethod
    def load(cls, folder: str | Path) -> Job:
        """Return the job of a folder with a `job.toml`.

        Raises:
            JobFileError: names every line that is wrong, or the file that is missing.
        """
        return cls._of(job_folder.load(Path(folder)))

    def save(self, folder: str | Path) -> Path:
        """Write `job.toml`, the data dictionary and `model.py` into a folder, and return it.

        The folder must not exist, be empty, or hold this very job.

        Raises:
            JobFileError: the folder is in use.
            LocalStateError: the disk refuses; nothing half-made is left.
        """
        return job_folder.save(self, Path(folder)).path

    def replace(self, **changes: Any) -> Job:
        """Return this job with some settings changed.

        Args:
            changes: Whatever `Job` takes.

        Raises:
            JobFileError: names everything that is wrong.
        """
        problems: list[str] = []
        values = {field: getattr(self.draft, field) for field in JobDraft.__dataclass_fields__}
        dictionary: Dictionary | None = self.dictionary
        source = self.source
        if "dictionary" in changes:
            dictionary, values["dictionary"] = _dictionary(changes.pop("dictionary"), problems)
        if "model" in changes or "frozen" in changes:
            model = changes.pop("model", self.source or self.draft.model)
            values["model"], source = _model(model, changes.pop("frozen", None), problems)
        found, wrong = job_values.read(changes)
        if "rounds" in found and "live_evaluations" not in changes:
            values["live_evaluations"] = min(values["live_evaluations"], found["rounds"])
        made = object.__new__(type(self))
        called = changes.get("name", self.draft.name)
        made._become({**values, **found}, dictionary, source, problems + wrong, called=called)
        return made

    def check(
        self,
        *,
        fix: bool = False,
        dry: bool = True,
        sight: Sight | None = None,
        researcher: str = "researcher",
        now: int | None = None,
    ) -> Checked:
        """Return every problem with its fix, the price for patients, and what a try on made-up patients showed.

        Args:
            fix: Whether to mend what can be mended first; the mended job is `.job` of what is returned.
            dry: Whether to try it on made-up patients, which takes some seconds.
            sight: The consortium's log as you verified it; without one, hospitals of usual sizes are priced.
            researcher: The member who would propose.
            now: Unix seconds; this machine's where none is given.

        Raises:
            DataError: no patients can be made up from this dictionary.
            ConfigError: a package that hospitals train with is not installed here.
        """
        from client.notebook import job_checked  # torch: seconds

        job = self.fixed() if fix else self
        return job_checked.check(job, dry=dry, sight=sight, researcher=researcher, now=now)

    def fixed(self) -> Job:
        """Return this job with its own model mended: BatchNorm becomes GroupNorm, dropout is left out, and so on.

        `model.py` gets a few lines at its end, which hospitals read like the rest.
        """
        from client.notebook import mending

        return self if self.source is None else self.replace(model=mending.mended(self.source))

    def __repr__(self) -> str:
        return layout.text(f"Job {self.draft.name} ({self.content[:12]})", self._rows())

    def _repr_html_(self) -> str:
        return layout.html(f"Job {self.draft.name} ({self.content[:12]})", self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        draft, label = self.draft, self.dictionary.label
        measured = f", {draft.heldout_epsilon} for those it is measured on" if draft.evaluate else ""
        own = f", your own ({len(self.source):,} bytes)" if self.source is not None else ""
        return [
            ("predicts", label.meaning or label.name),
            ("from", f"{len(self.dictionary.inputs)} columns of {self.dictionary.name}"),
            ("for", draft.purpose),
            ("model", f"{draft.model}{own}"),
            ("training", f"{draft.rounds} rounds of {draft.local_steps} steps, learning rate {draft.learning_rate}"),
            ("privacy", f"epsilon at most {draft.epsilon} for each patient{measured}, at delta {draft.delta}"),
            ("hospitals", f"at least {draft.min_participants}, {draft.strategy} weighted by {draft.weighting}"),
        ]  # fmt: skip


def _fill(values: dict[str, Any]) -> None:
    """Choose what follows from other settings where nobody chose it."""
    if "rounds" in values:
        values.setdefault("live_evaluations", min(4, values["rounds"]))
    measured = values.get("live_evaluations", 1) > 0 or values.get("final_evaluation", True)
    alike = values.get("epsilon", "0")
    alike = alike if alike != "0" else str(DEFAULTS["epsilon"])  # which is the mistake to name, once
    values.setdefault("heldout_epsilon", alike if measured else "0")


def _dictionary(given: object, problems: list[str]) -> tuple[Dictionary | None, str]:
    """Return a data dictionary, and what `job.toml` calls it."""
    try:
        if isinstance(given, Dictionary):
            ships = given.name in SHIPPED and dictionaries.shipped(given.name) == given
            return given, given.name if ships else DICTIONARY
        if isinstance(given, str) and given in SHIPPED:
            return dictionaries.shipped(given), given
        if not isinstance(given, str | Path):
            problems.append(
                "dictionary must be a Dictionary, the name of a shipped one, or the path of a JSON file"
            )
            return None, DICTIONARY
        if not (path := Path(given)).is_file():
            problems.append(
                f"dictionary {str(given)!r} is no file, and does not come with Wardround: there are "
                f"{', '.join(SHIPPED)}"
            )
            return None, DICTIONARY
        return dictionaries.parse(path.read_bytes()[: dictionaries.MAX_SIZE + 1]), DICTIONARY
    except (DictionaryError, OSError) as error:
        problems.append(str(error))
    return None, DICTIONARY


def _model(
    given: object, frozen: Mapping[str, object] | None, problems: list[str]
) -> tuple[str, bytes | None]:
    """Return the draft's name of a model, and its source if it is the researcher's own."""
    try:
        return model_text.read(given, frozen or {})
    except JobFileError as error:
        problems += error.problems
    return CUSTOM, None
