"""A crowd on Ray, by Flower's simulation engine: each of its virtual nodes plays a share of the hospitals.

Flower 1.41 gives every virtual node a message of its own, which costs it some milliseconds whatever is in it, and
hands each to whichever actor is idle. So there are a few nodes for each actor, not one for each hospital: a message
carries the model once for a whole share, and an actor keeps the rows and trainers of hospitals that it has played.

What has to be known about Flower 1.41 here:
- Its backend calls `ray.shutdown()` at the end, also of a Ray that it found running: `_guest` keeps it from that.
- It stops at an interrupt only when its ServerApp ends. So an interrupt is noted, the ServerApp ends after the
  shares in hand, and it is raised when everything is closed.
- It asks whether it may report to its authors when it is imported, and Ray when it starts: both are told not to.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from client.errors import EngineError
from wardround_crowd_players import Answers, Call, call_from_json, call_to_json, joined, players_of
from wardround_crowd_rounds import Play

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.serverapp import Grid

SHARES = 2  # for each actor: so that one that is slower holds the others up less
_POLL = 0.01  # seconds between looks for replies
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_TRAIN = "train"


def run(folder: Path, hospitals: int, processes: int, conduct: Callable[[Play], None]) -> None:
    """Play a crowd on Ray.

    Args:
        folder: The crowd's, which every process of this machine can read.
        hospitals: How many there are in it.
        processes: Actors.
        conduct: Runs the job; it is called in a thread of its own with what asks all hospitals.

    Raises:
        EngineError: Flower or Ray is not installed, does not start, or an actor ended.
        KeyboardInterrupt: after Ray was shut down.
    """
    for package in ("flwr", "ray"):
        if importlib.util.find_spec(package) is None:
            raise EngineError(
                f"{package} is not installed: install it with `pip install 'wardround[ray]'`, or let engine be "
                '"inline"'
            )
    stop = _Stop()
    shares = min(hospitals, SHARES * processes)
    with ExitStack() as stack:
        stack.enter_context(_environment(_QUIET))
        stack.enter_context(_silence())
        stack.enter_context(_interrupts(stop))
        _simulate(folder, hospitals, shares, processes, conduct, stop)
    if stop.interrupted:
        raise KeyboardInterrupt


class _Stop:
    """Says that nobody waits for answers any more, and whether that was a person's wish."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.interrupted = False


def _simulate(
    folder: Path,
    hospitals: int,
    shares: int,
    processes: int,
    conduct: Callable[[Play], None],
    stop: _Stop,
) -> None:
    import flwr.supercore.telemetry as telemetry
    import ray
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # it may have been imported before
    server, client = ServerApp(), ClientApp()
    client.train()(play)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            conduct(_Asking(grid, folder, hospitals, shares, stop.event))
        except _StoppedError:
            return

    with _guest(ray):
        try:
            run_simulation(
                server_app=server,
                client_app=client,
                num_supernodes=shares,
                backend_config={
                    "init_args": {
                        "num_cpus": processes,
                        "logging_level": "ERROR",
                        "log_to_driver": False,
                        "configure_logging": False,
                        "include_dashboard": False,
                    },
                    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                },
            )
        except RuntimeError as error:
            if error.__cause__ is None:  # not Flower's own, which all have one
                raise
            reason = " ".join(str(error.__cause__.__cause__ or error.__cause__).split())[:300]
            raise EngineError(f'Ray did not run the simulation ({reason}): let engine be "inline"') from None
        finally:
            stop.event.set()  # where Flower failed, its ServerApp's thread would wait for ever


class _StoppedError(Exception):
    """Nobody waits for answers any more."""


class _Asking:
    """Asks every share, and waits for all of them."""

    def __init__(self, grid: Grid, folder: Path, hospitals: int, shares: int, stop: threading.Event) -> None:
        self._grid, self._folder, self._stop = grid, folder, stop
        while (
            len(nodes := sorted(grid.get_node_ids())) < shares
        ):  # they are registered while this thread starts
            self._pause()
        bounds = np.linspace(0, hospitals, len(nodes) + 1).astype(int).tolist()
        self._shares = list(zip(nodes, bounds[:-1], bounds[1:], strict=True))

    def __call__(self, call: Call) -> Answers:
        """Return what all hospitals answer, in their order."""
        from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

        model = ArrayRecord({"model": Array(np.frombuffer(call.model, dtype="<f4"))})
        places: dict[str, int] = {}
        make = cast(Callable[..., Message], Message)
        for place, (node, first, last) in enumerate(self._shares):
            told = {"folder": str(self._folder), "call": call_to_json(call), "first": first, "last": last}
            content = RecordDict({"model": model, "ask": ConfigRecord(cast(Any, told))})
            (sent,) = self._grid.push_messages(
                [make(content=content, dst_node_id=node, message_type=_TRAIN, group_id=str(call.round))]
            )
            places[sent] = place
        answers: dict[int, Answers] = {}
        while places:
            for reply in self._grid.pull_messages(list(places)):
                answers[places.pop(reply.metadata.reply_to_message_id)] = _answers(reply)
            self._pause()
        return joined([answers[place] for place in range(len(self._shares))])

    def _pause(self) -> None:
        if self._stop.wait(_POLL):
            raise _StoppedError


def _answers(reply: Message) -> Answers:
    """Read one share's reply. Raises EngineError where there is none."""
    if reply.has_error():
        reason = " ".join((reply.error.reason or "no reason given").split())[:300]
        raise EngineError(f'a process of Ray could not play its hospitals ({reason}): let engine be "inline"')
    arrays = reply.content.array_records["answers"]
    return Answers(updates=arrays["updates"].numpy(), counts=arrays["counts"].numpy())


def play(message: Message, context: Context) -> Message:
    """Play one share of the hospitals: what Flower's ClientApp does in an actor."""
    from flwr.app import Array, ArrayRecord, Message, RecordDict

    told = cast(Mapping[str, Any], message.content.config_records["ask"])
    model = message.content.array_records["model"]["model"].numpy().astype("<f4").tobytes()
    call = call_from_json(told["call"], model)
    answers = players_of(told["folder"]).answer(call, told["first"], told["last"])
    arrays = ArrayRecord({"updates": Array(answers.updates), "counts": Array(answers.counts)})
    return Message(RecordDict({"answers": arrays}), reply_to=message)


@contextmanager
def _guest(ray: Any) -> Iterator[None]:
    """Leave a Ray that was running before as it is; shut down one that was not."""
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

    if not ray.is_initialized():
        try:
            yield
        finally:
            ray.shutdown()
        return
    original = RayBackend.terminate

    def terminate(backend: RayBackend) -> None:
        if backend.pool is not None:
            backend.pool.terminate_all_actors()

    type.__setattr__(RayBackend, "terminate", terminate)
    try:
        yield
    finally:
        type.__setattr__(RayBackend, "terminate", original)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for this while; Flower changes PYTHONPATH, which is put back too."""
    before = {name: os.environ.get(name) for name in (*changes, "PYTHONPATH")}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silence() -> Iterator[None]:
    """Keep Flower's and Ray's own log from the screen: what matters of it is raised."""
    loggers = [logging.getLogger(name) for name in ("flwr", "ray")]
    before = [log.disabled for log in loggers]  # Flower sets levels of its own
    for log in loggers:
        log.disabled = True
    try:
        yield
    finally:
        for log, disabled in zip(loggers, before, strict=True):
            log.disabled = disabled


@contextmanager
def _interrupts(stop: _Stop) -> Iterator[None]:
    """Note an interrupt in place of raising it; only the main thread can, and gets any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        stop.interrupted = True
        stop.event.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
