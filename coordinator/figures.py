"""Figures for an operator's monitoring, in the text format of Prometheus: GET /metrics, for holders of a token.

Nothing of a patient, a member or a key is here: sizes, counts and seconds of the service itself.
"""

from __future__ import annotations

import secrets
import shutil
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0, generate_latest
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from coordinator.errors import ConfigError
from coordinator.routing import Call, Handler
from coordinator.sequencer import Sequencer
from ledger.durable import write_private

TOKEN = "metrics.token"  # noqa: S105 - a file's name, below keys/


class Figures:
    """Counts requests and shows figures; `handlers` by their names in the table of endpoints."""

    def __init__(
        self,
        sequencer: Sequencer,
        folder: Path,
        phases: Callable[[], Mapping[str, float]],
        online: Callable[[], int | None],
    ) -> None:
        """Show the figures of one service.

        Args:
            sequencer: Owner of the log.
            folder: The coordinator's; its disk is looked at.
            phases: Seconds by phase.
            online: How many hospitals' nodes are connected; None while that is not known.
        """
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "wardround_requests",
            "Answers by endpoint and status.",
            ["endpoint", "status"],
            registry=self._registry,
        )
        self._registry.register(_Standing(sequencer, folder, phases, online))
        ProcessCollector(registry=self._registry)
        self.handlers: dict[str, Handler] = {"metrics": self._show}

    def count(self, endpoint: str, status: int) -> None:
        """Count an answer."""
        self._requests.labels(endpoint, str(status)).inc()

    async def _show(self, call: Call) -> Response:
        text = await run_in_threadpool(generate_latest, self._registry)
        return Response(text, headers={"content-type": CONTENT_TYPE_PLAIN_1_0_0, "cache-control": "no-store"})


class _Standing(Collector):
    """Reads the figures when they are asked for."""

    def __init__(
        self,
        sequencer: Sequencer,
        folder: Path,
        phases: Callable[[], Mapping[str, float]],
        online: Callable[[], int | None],
    ) -> None:
        self._sequencer = sequencer
        self._folder = folder
        self._phases = phases
        self._online = online

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand: the registry would ask for all of it."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of this moment."""
        standing = self._sequencer.standing
        plain = {
            "log_size": ("Entries on the log.", standing.view.size),
            "log_final_size": ("Entries that a quorum of witnesses cosigned.", standing.final_size),
            "log_cosignatures": ("Cosignatures of the newest checkpoint.", standing.cosignatures),
            "log_quorum": (
                "Cosignatures that make a checkpoint final.",
                standing.state.witness_sets[-1].quorum,
            ),
            "log_writable": ("Whether records can be written.", int(standing.writable)),
            "disk_free_bytes": (
                "Free space of the coordinator's disk.",
                shutil.disk_usage(self._folder).free,
            ),
        }
        if (online := self._online()) is not None:
            plain["nodes_online"] = ("Hospitals' nodes that are connected.", online)
        for name, (words, value) in plain.items():
            yield GaugeMetricFamily(f"wardround_{name}", words, value=value)
        jobs = GaugeMetricFamily("wardround_jobs", "Jobs by status.", labels=["status"])
        for status, count in sorted(Tally(job.status for job in standing.state.jobs.values()).items()):
            jobs.add_metric([status], count)
        yield jobs
        rounds = sum(len(history.closed) for history in standing.jobs.values())
        yield CounterMetricFamily("wardround_rounds", "Exchanges closed, of all jobs.", value=rounds)
        seconds = CounterMetricFamily("wardround_phase_seconds", "Seconds by phase.", labels=["phase"])
        for phase, spent in sorted(self._phases().items()):
            seconds.add_metric([phase], spent)
        yield seconds


def read_token(path: Path) -> bytes:
    """Return the token that monitoring must send, made where it is absent.

    Raises:
        ConfigError: it cannot be read, others may read it, or it is none.
        CoordinatorError: it cannot be written.
    """
    try:
        if not path.exists():
            write_private(path, secrets.token_hex(32).encode() + b"\n")
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others may read this token; delete it, and start again for a new one")
        token = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"cannot read the token {path}: {error.strerror}") from None
    if len(token) < 32 or not token.isalnum():
        raise ConfigError(
            f"{path} must hold at least 32 letters and digits: delete it, and start again for a new one"
        )
    return token
