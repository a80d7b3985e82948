"""A run in MLflow: the numbers of `scalars` as metrics of one MLflow run, found again by the digest of the job.

Needs mlflow (`wardround[mlflow]`). Nothing but figures goes to the tracking server, which the user names. MLflow by
itself reports its use to its makers, unless MLFLOW_DISABLE_TELEMETRY=true is set before it is imported.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from client.errors import TrackingError
from client.job_story import ENDS
from client.notebook import scalars
from client.notebook.extras import needed
from client.notebook.figures import Figures

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

JOB = "wardround.job"  # the tag by which a run is found again
_BATCH = 500  # metrics in a request; MLflow allows 1000
_STATUS = {"finished": "FINISHED", "cancelled": "KILLED"}  # of a job that ended otherwise: FAILED


class MLflowTracker:
    """Logs runs to MLflow: into the run that is active when this is made, else into one of its own for each job."""

    def __init__(
        self,
        experiment: str = "wardround",
        *,
        run_id: str = "",
        tracking_uri: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Talk to no server yet.

        Args:
            experiment: In which runs of its own are made; it is made itself if it is not there.
            run_id: Of the MLflow run to log into, instead; it is left open at the end.
            tracking_uri: Where; None for where MLflow itself looks.
            now: Unix seconds, for the metrics' time.

        Raises:
            MissingExtraError: mlflow is not installed.
        """
        self._mlflow = needed("mlflow", "mlflow", "runs are logged to MLflow")
        active = self._mlflow.active_run() if tracking_uri is None else None
        self._given = run_id or (active.info.run_id if active is not None else "")
        self._experiment = experiment
        self._uri = tracking_uri
        self._now = now
        self._client: MlflowClient | None = None
        self._run = ""
        self._resumed = False
        self._logged: defaultdict[str, set[tuple[int, float]]] = defaultdict(set)  # metric -> (step, value)

    def start(self, figures: Figures) -> None:
        """Make an MLflow run for the job, or find the one that an earlier follower has made of the same run."""
        client = self._client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        self._logged.clear()
        found = client.get_run(self._given) if self._given else self._earlier(client, figures)
        self._resumed = found is not None
        if found is None:
            found = client.create_run(self._place(client), run_name=figures.name, tags={JOB: figures.digest})
        elif not self._given:
            client.update_run(found.info.run_id, status="RUNNING")
        self._run = found.info.run_id
        tags = {JOB: figures.digest, "wardround.name": figures.name, "wardround.rounds": figures.rounds}
        for name, value in tags.items():
            client.set_tag(self._run, name, value)

    def round(self, figures: Figures, number: int) -> None:
        """Log the numbers of a round that MLflow does not have yet."""
        client = self._started()
        stamp = int(self._now() * 1000)
        metrics: list[Metric] = []
        for scalar in scalars.of_round(figures, number):
            there = self._there(client, scalar.name)
            if (scalar.step, scalar.value) not in there:
                there.add((scalar.step, scalar.value))
                metric = self._mlflow.entities.Metric(scalar.name, scalar.value, stamp, scalar.step)
                metrics.append(metric)
        for begin in range(0, len(metrics), _BATCH):
            client.log_batch(self._run, metrics=metrics[begin : begin + _BATCH])

    def end(self, figures: Figures) -> None:
        """Close the MLflow run if the job has ended; leave it open for a later follower if not."""
        client = self._started()
        client.set_tag(self._run, "wardround.status", figures.status)
        if not self._given and figures.status in ENDS:
            client.set_terminated(self._run, status=_STATUS.get(figures.status, "FAILED"))

    def _started(self) -> MlflowClient:
        if self._client is None:
            raise TrackingError("an MLflowTracker was told of a round before it was told of the start")
        return self._client

    def _place(self, client: MlflowClient) -> str:
        """Return the id of the experiment."""
        found = client.get_experiment_by_name(self._experiment)
        return found.experiment_id if found is not None else client.create_experiment(self._experiment)

    def _earlier(self, client: MlflowClient, figures: Figures) -> Run | None:
        """Return the newest MLflow run of this very run: of the same job, and with none but its numbers."""
        runs = client.search_runs([self._place(client)], f"tags.`{JOB}` = '{figures.digest}'", max_results=20)
        values: defaultdict[str, set[float]] = defaultdict(set)
        for scalar in scalars.of_run(figures):
            values[scalar.name].add(scalar.value)
        same = (run for run in runs if all(value in values[name] for name, value in run.data.metrics.items()))
        return next(same, None)

    def _there(self, client: MlflowClient, name: str) -> set[tuple[int, float]]:
        """Return the steps and values of a metric that MLflow has."""
        if self._resumed and name not in self._logged:
            history = client.get_metric_history(self._run, name)
            self._logged[name] = {(metric.step, metric.value) for metric in history}
        return self._logged[name]
