"""`wardround.plan`: what a job costs and what can be expected of it, before anybody is asked.

    plan = wardround.plan(job, {"hillcrest": 500, "lakeside": 300})
    plan.plot()
    better = plan.job

Nothing here touches a hospital: a plan uses rows that the data scientist holds, or made-up ones. To try settings on
the hospitals' own patients would cost their privacy once for every try.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

from client.errors import PlanError
from client.job_folder import JobFolder
from client.notebook import job_files, plan_costs
from client.notebook.extras import needed
from client.notebook.job_files import Drafted
from client.notebook.plan_costs import Asked
from wardround_connect import Consortium
from wardround_planned import Plan, Point
from wardround_rehearsal import MADE_UP, Rehearsal, at_epsilon, require_enough

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the job's epsilon, where nobody says which to look at
SECONDS = 60.0  # that measuring may take
MOST_SEEDS = 50
FREE = (
    "Planning costs no patient's privacy: it used {rows}. The hospitals' patients pay once, for the job as it is "
    "submitted; trying several settings on them would cost a budget for each."
)


def plan(
    job: Drafted,
    sizes: Mapping[str, int] | Consortium,
    *,
    data: Mapping[str, object] | None = None,
    seeds: int = 3,
    epsilons: Sequence[float] | None = None,
    seconds: float = SECONDS,
    progress: bool = True,
    budgets: Mapping[str, float] | float | None = None,
    limits: Mapping[str, float] | float | None = None,
    gpu: bool = False,
) -> Plan:
    """Return what a job would cost and what can be expected of it. Nobody is asked, and no budget is touched.

    Args:
        job: The job, as `simulate` and `submit` take it.
        sizes: Patients by hospital; or a consortium, whose datasets' size classes and budgets are used.
        data: Rows for each hospital, as `simulate` takes them; made-up patients where none are given.
        seeds: How many times each epsilon is tried, 1 to 50.
        epsilons: Which to try beside the job's own; `float("inf")` stands for no noise. Four others and no noise
            where none are given.
        seconds: That measuring may take; what was not measured by then is left out, and said.
        progress: Whether to show a bar.
        budgets: Lifetime epsilon by hospital, or of all; not for a consortium, which knows them.
        limits: The most that each hospital lets one job spend, or that all do.
        gpu: Whether to measure on a graphics processor.

    Raises:
        PlanError: what is asked cannot be had; says what to change.
        JobFileError: the job has problems, all of them named.
        DataError: a hospital's rows cannot be used; says whose.
        UnreachableError: the consortium's coordinator is away.
    """
    folder = job_files.unsaved(job)
    folder.require_sound()
    _require_sensible(seeds, seconds, gpu)
    wanted = _epsilons(float(folder.draft.epsilon), epsilons)
    asked = _asked(folder, sizes, budgets, limits, wanted)
    rehearsal = Rehearsal(folder, asked, data, gpu=gpu)
    found = rehearsal.priced(folder.draft)
    require_enough(found)
    points, note = _measure(rehearsal, folder, wanted, seeds, seconds, progress)
    return Plan(
        costs=tuple(plan_costs.cost(a, p, found.job) for a, p in zip(asked, found.prices, strict=True)),
        points=points,
        notes=(*note, *_notes(rehearsal, asked, points)),
        _given=job,
        _folder=folder,
        _rehearsal=rehearsal,
        _seeds=seeds,
        _seconds=seconds,
        _progress=progress,
    )


def _require_sensible(seeds: int, seconds: float, gpu: bool) -> None:
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= MOST_SEEDS:
        raise PlanError(f"seeds is {seeds!r}: give a whole number from 1 to {MOST_SEEDS}, such as 3")
    if not 0 < seconds < math.inf:
        raise PlanError(f"seconds is {seconds!r}: give the time that measuring may take, such as 60")
    if gpu and not needed("torch", "hospital", "models are trained").cuda.is_available():
        raise PlanError(
            "gpu=True, and torch finds no graphics processor here: leave gpu out; hospitals decide by limits.gpu in "
            "their own hospital.toml whether theirs trains"
        )


def _epsilons(own: float, given: Sequence[float] | None) -> list[float]:
    """Return the epsilons to look at, the job's own first, then the nearest."""
    if given is None:
        found = {float(f"{own * factor:.6g}") for factor in FACTORS} | {own, math.inf}
    else:
        if wrong := [e for e in given if isinstance(e, bool) or not isinstance(e, int | float) or not e > 0]:
            raise PlanError(f"epsilons names {wrong[0]!r}: each must be above 0, such as 0.5, 1, 3")
        found = {float(e) for e in given} | {own}
    return sorted(found, key=lambda e: abs(math.log(e / own)))


def _asked(
    folder: JobFolder,
    sizes: Mapping[str, int] | Consortium,
    budgets: Mapping[str, float] | float | None,
    limits: Mapping[str, float] | float | None,
    epsilons: Sequence[float],
) -> list[Asked]:
    if isinstance(sizes, Consortium):
        if budgets is not None:
            raise PlanError("budgets are on the consortium's log: leave budgets out")
        state = sizes.look().sight.state
        return plan_costs.of_log(folder, state, sizes.membership.name, int(time.time()), limits)
    if not isinstance(sizes, Mapping) or not sizes:
        raise PlanError(
            "sizes must name each hospital's patients, such as {'hillcrest': 500}, or be a consortium"
        )
    most = max(e for e in epsilons if not math.isinf(e))
    return plan_costs.of_sizes(folder, sizes, budgets, limits, most)


def _measure(
    rehearsal: Rehearsal,
    folder: JobFolder,
    epsilons: Sequence[float],
    seeds: int,
    seconds: float,
    progress: bool,
) -> tuple[tuple[Point, ...], tuple[str, ...]]:
    """Try every epsilon with every seed, the job's own first, until time runs out or somebody interrupts."""
    until = time.monotonic() + seconds
    wanted = [(e, seed) for e in epsilons[:1] for seed in range(seeds)]
    wanted += [(e, seed) for seed in range(seeds) for e in epsilons[1:]]
    points: list[Point] = []
    bar = needed("tqdm.auto", "notebook", "progress is shown").tqdm(
        wanted, desc="plan", unit="trial", disable=not progress, leave=False
    )
    said = f"measuring stopped after {seconds:g} s"
    try:
        for epsilon, seed in bar:
            draft = at_epsilon(folder.draft, epsilon)
            found = rehearsal.outcome(draft, seed, lambda: time.monotonic() < until)
            if found is None:
                break
            points.append(Point(epsilon=epsilon, seed=seed, auroc=found.auroc, loss=found.loss))
    except KeyboardInterrupt:
        said = "measuring was interrupted"
    finally:
        bar.close()
    points.sort(key=lambda p: (p.epsilon, p.seed))
    if len(points) == len(wanted):
        return tuple(points), ()
    return tuple(points), (
        f"{said}, with {len(points)} of {len(wanted)} trials done; seconds= gives it more",
    )


def _notes(rehearsal: Rehearsal, asked: Sequence[Asked], points: Sequence[Point]) -> Iterator[str]:
    """Yield what the numbers do not say themselves."""
    if any(math.isnan(p.auroc) for p in points):
        yield "some trials held out too few patients to tell positive from negative ones: more rows would help"
    if rehearsal.synthetic:
        if any(a.dataset.size_class > MADE_UP for a in asked):
            yield f"hospitals of more than {MADE_UP} patients are played by that many: expect better of real ones"
    else:
        for name, rows, size in rehearsal.smaller():
            yield f"{name} has about {size} patients and is measured with data of about {rows}"
    if not all(a.known for a in asked):
        yield "what is left of lifetime budgets is not known: name them with budgets=, or plan for a consortium"
    yield FREE.format(rows="made-up rows" if rehearsal.synthetic else "rows that you hold")
