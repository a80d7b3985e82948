"""What is wrong with a job that can be told without asking anybody: a line each, with the field and the remedy.

Pure. The rules are those of `ledger.rules_jobs.job`, of the plan that hospitals train by, and of what a coordinator
takes; what depends on who is in the consortium is `client.job_match`.
"""

from __future__ import annotations

from collections.abc import Iterator

from client import accounting, job_strategies, plan
from client.accounting import Lifetime
from client.dictionary import Dictionary
from client.errors import BudgetError, TrainingRefusedError
from client.job_spec import BUILT_IN, JobSpec
from client.job_toml import JobDraft
from client.reviewed import CUSTOM, MAX_SIZE
from ledger.values import Training

LOSSES = ("bce-with-logits", "cross-entropy", "mse")  # as `client.losses`, which needs torch
WEIGHTINGS = ("size-class", "uniform")
MAX_EXPIRY = 3650 * 86_400  # seconds
SMALLEST = 16  # patients of the smallest hospital anybody would ask: for what depends on a size class
IMAGE_SHAPE = (1, 28, 28)  # as `client.models`, which needs torch
_NO_DIGEST = "0" * 64
_WIDE = 4.0  # times the target: a lifetime that is in nobody's way; a real one is `client.job_match`'s


def problems(draft: JobDraft, dictionary: Dictionary, source: bytes | None) -> list[str]:
    """Return every problem of a job by itself, in the order of the file; none when it is sound.

    Args:
        draft: The job.
        dictionary: Its data dictionary.
        source: Bytes of its model.py, or None where the folder has none.
    """
    return [
        *_job(draft),
        *_model(draft, dictionary, source),
        *_training(draft),
        *_evaluation(draft),
        *_privacy(draft),
        *job_strategies.problems(draft.strategy, draft.strategy_settings),
        *_participants(draft),
    ]


def before_submitting(dictionary: Dictionary) -> list[str]:
    """Return what keeps a job from being proposed, though it may be tried on rows at hand: a line each."""
    if not (names := dictionary.unreviewed):
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [
        f"the dictionary's ranges of {', '.join(names[:3])}{more} were taken from patients' rows, and would publish "
        "them: replace them by publicly known ones, then take dictionary.reviewed(source=...)"
    ]


def training_of(draft: JobDraft, *, model_code: str, parameters: int) -> Training:
    """Return the `training` of the record that a draft becomes.

    Args:
        draft: The job.
        model_code: Digest of the model's source text.
        parameters: How many float32 numbers the model has.
    """
    return Training(
        model=draft.model,
        model_code=model_code,
        parameters=parameters,
        loss=draft.loss,
        local_steps=draft.local_steps,
        learning_rate=draft.learning_rate,
        max_grad_norm=draft.max_grad_norm,
        sample_rate=draft.sample_rate,
        settings=draft.settings,
    )


def _job(draft: JobDraft) -> Iterator[str]:
    if draft.expires_seconds > MAX_EXPIRY:
        yield f"expires must be at most {MAX_EXPIRY // 86_400}d: no agreement lasts longer"
    hospitals = [ref.split("/")[0] for ref in draft.datasets]
    if twice := sorted({h for h in hospitals if hospitals.count(h) > 1}):
        yield f"datasets names two of {twice[0]}: a job takes at most one dataset of each hospital"


def _model(draft: JobDraft, dictionary: Dictionary, source: bytes | None) -> Iterator[str]:
    if draft.model not in (*BUILT_IN, CUSTOM):
        yield f"model.name {draft.model!r} is not built in: use {', '.join(BUILT_IN)}, or custom with a model.py"
    if draft.model == CUSTOM and source is None:
        yield "model.name is custom and the folder has no model.py: write one, or use a built-in model"
    if source is not None and len(source) > MAX_SIZE:
        yield f"model.py is larger than {MAX_SIZE} bytes: no hospital reads that much"
    if draft.model != CUSTOM and source is not None:
        yield f"model.py is there and model.name is {draft.model}: say custom, or remove the file"
    if draft.hidden and draft.model != "mlp":
        yield f"model.hidden is for an mlp, not for {draft.model}: leave it empty"
    if draft.model == "small-cnn" and dictionary.input_shape != IMAGE_SHAPE:
        yield (
            f"model.name small-cnn takes images of 28 by 28, the dictionary has {len(dictionary.feature_names)} "
            "features: use mlp"
        )
    if not 0 < float(draft.prevalence) < 1:
        yield f"model.prevalence must lie between 0 and 1, not {draft.prevalence}"


def _training(draft: JobDraft) -> Iterator[str]:
    if draft.loss not in LOSSES:
        yield f"training.loss {draft.loss!r} is not offered: use one of {', '.join(LOSSES)}"
    elif draft.loss == "cross-entropy" and draft.outputs < 2:
        yield "training.loss cross-entropy needs model.outputs of at least 2: use bce-with-logits for a yes or no"
    elif draft.loss != "cross-entropy" and draft.outputs != 1:
        yield f"training.loss {draft.loss} needs model.outputs = 1: use cross-entropy for {draft.outputs} classes"
    if not 0 < float(draft.sample_rate) <= 1:
        yield f"training.sample_rate must be above 0 and at most 1, not {draft.sample_rate}"
        return
    if float(draft.fedprox_mu) > 0 and draft.local_steps == 1:
        yield "training.fedprox_mu changes nothing with local_steps = 1: leave it out, or take more local steps"
    training = training_of(draft, model_code=_NO_DIGEST, parameters=1)
    try:
        JobSpec.of(_NO_DIGEST, training, "1", SMALLEST).plan(chunk_size=256)
    except TrainingRefusedError as error:
        yield f"training: {_in_our_words(str(error))}"


def _evaluation(draft: JobDraft) -> Iterator[str]:
    if draft.live_evaluations > draft.rounds:
        yield f"evaluation.live is {draft.live_evaluations}, the job has {draft.rounds} rounds: at most one a round"
    costs = float(draft.heldout_epsilon) > 0
    if draft.evaluate and not costs:
        yield "privacy.heldout_epsilon is 0 and the model is measured: give it a target, or turn evaluation off"
    if costs and not draft.evaluate:
        yield "privacy.heldout_epsilon is above 0 and nothing is measured: set it to 0, or measure the final model"


def _privacy(draft: JobDraft) -> Iterator[str]:
    delta, rate = float(draft.delta), float(draft.sample_rate)
    if float(draft.epsilon) <= 0:
        yield "privacy.epsilon must be above 0: training without any privacy loss learns nothing"
    if not 0 < delta < 1:
        yield f"privacy.delta must lie between 0 and 1, not {draft.delta}: try 0.0001"
    elif delta * 10 * SMALLEST > 1:
        yield (
            f"privacy.delta is {draft.delta}: it must be at most a tenth of one over a hospital's patients, "
            "such as 0.0001 for up to 1000"
        )
    elif float(draft.epsilon) > 0 and 0 < rate <= 1:
        yield from _unaffordable(draft)


def _unaffordable(draft: JobDraft) -> Iterator[str]:
    """Name what no noise pays for, whatever a hospital's budget."""
    delta = float(draft.delta)
    most = _WIDE * max(2.0, float(draft.epsilon), float(draft.heldout_epsilon))
    wide = Lifetime(epsilon=most, delta=delta, order=accounting.filter_order(most, delta))
    try:
        plan.choose_noise(
            target_epsilon=float(draft.epsilon),
            delta=delta,
            sample_rate=float(draft.sample_rate),
            steps=draft.rounds * draft.local_steps,
            lifetime=wide,
        )
    except BudgetError as error:
        yield f"privacy.epsilon: {error}"
    if not draft.evaluate or float(draft.heldout_epsilon) <= 0:
        return
    live = sum(number <= draft.rounds for number in draft.evaluate)
    try:
        plan.evaluation_noise(
            target_epsilon=float(draft.heldout_epsilon), delta=delta, lifetime=wide, live=live
        )
    except BudgetError as error:
        yield f"privacy.heldout_epsilon: {error}"


def _participants(draft: JobDraft) -> Iterator[str]:
    if draft.weighting not in WEIGHTINGS:
        yield f"aggregation.weighting must be {' or '.join(WEIGHTINGS)}, not {draft.weighting!r}"
    if draft.strategy not in job_strategies.STRATEGIES:
        return
    needed = job_strategies.minimum_updates(draft.strategy, draft.strategy_settings)
    if draft.min_participants < needed:
        yield f"min_participants is {draft.min_participants}: {draft.strategy} needs {needed} hospitals in each round"
    if draft.datasets and draft.min_participants > len(draft.datasets):
        yield f"min_participants is {draft.min_participants}, datasets names {len(draft.datasets)}: ask for more"


def _in_our_words(line: str) -> str:
    """Name a number of the plan as `job.toml` does."""
    return line.replace("max_grad_norm", "clip")
