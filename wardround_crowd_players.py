"""Who plays the hospitals of a crowd: their prepared rows in files that every process maps, and a real trainer each.

A folder holds the rows of all hospitals one after the other, scaled, and beside them what each hospital's approval
says. A process opens it once (`players_of`) and makes a hospital's `client.trainer.Trainer` when it is first asked:
any process may play any hospital in any round. So every stream of noise is either the operating system's or, where a
seed was given, named by hospital and round: no two messages ever share their noise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.data import Snapshot
from client.histograms import BINS
from client.job_spec import JobSpec
from client.randomness import Randomness, SeededRandomness, system_randomness
from client.trainer import Trainer

_ROSTER = "roster.json"
_GRAPH = "graph"
_PARTS = ("features", "labels", "held_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """One hospital as its approval fixed it."""

    hospital: str
    spec: JobSpec
    evaluation: tuple[str, ...]  # noise multiplier of each of the job's evaluations


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What all hospitals are asked in one exchange."""

    round: int
    model: bytes  # packed float32
    trains: bool
    place: int | None  # which of the job's evaluations is due; None: none
    edges: tuple[float, ...] = ()  # of its histogram


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What hospitals answer, in the order of the roster."""

    updates: NDArray[
        Any
    ]  # (hospitals, parameters), int64 or float32; (hospitals, 0) where nothing is trained
    counts: NDArray[np.int64]  # (hospitals, 2, BINS); (0, 2, BINS) where nothing is measured


def write(
    folder: Path,
    players: Iterable[tuple[Player, Snapshot]],
    *,
    graph: bytes = b"",
    seed: int | None = None,
) -> None:
    """Write a crowd's folder.

    Args:
        folder: An empty one; rows lie in it, so it must be private.
        players: Each hospital with its rows.
        graph: What the builder made of the job's own model.py.
        seed: Makes a simulation repeatable; None: the operating system's randomness, as a hospital has it.
    """
    pairs = list(players)
    for part in _PARTS:
        np.save(folder / f"{part}.npy", np.concatenate([getattr(rows, part) for _, rows in pairs]))
    (folder / _GRAPH).write_bytes(graph)
    told = [
        {"hospital": p.hospital, "spec": p.spec.to_json(), "evaluation": p.evaluation, "rows": len(s.labels)}
        for p, s in pairs
    ]
    (folder / _ROSTER).write_text(json.dumps({"seed": seed, "players": told}))


class Players:
    """The hospitals of a folder, as one process plays them."""

    def __init__(self, folder: Path) -> None:
        """Map the rows; nothing is copied until a hospital is asked."""
        found = json.loads((folder / _ROSTER).read_text())
        self._seed: int | None = found["seed"]
        self._graph = (folder / _GRAPH).read_bytes()
        # Copy on write: torch takes no array that cannot be written to.
        self._parts = {part: np.load(folder / f"{part}.npy", mmap_mode="c") for part in _PARTS}
        self._players = [
            Player(
                hospital=one["hospital"],
                spec=JobSpec.from_json(one["spec"]),
                evaluation=tuple(one["evaluation"]),
            )
            for one in found["players"]
        ]
        self._ends = np.cumsum([0, *(one["rows"] for one in found["players"])])
        self._system = system_randomness()
        self._trainers: dict[int, tuple[Trainer, _Stream | None]] = {}

    def __len__(self) -> int:
        return len(self._players)

    def answer(self, call: Call, first: int, last: int) -> Answers:
        """Play the hospitals from `first` up to, not including, `last`.

        Raises:
            TrainingRefusedError: the model is not the one that the job names.
        """
        model = np.frombuffer(call.model, dtype="<f4")
        updates: list[NDArray[Any]] = []
        counts: list[NDArray[np.int64]] = []
        for place in range(first, last):
            trainer = self._trainer(place, call.round)
            if call.trains:
                updates.append(trainer.train(model)[0])
            if call.place is not None:
                noise = self._players[place].evaluation[call.place]
                counts.append(trainer.histogram(model, list(call.edges), noise)[0])
        return Answers(
            updates=np.stack(updates) if updates else np.empty((last - first, 0), dtype=np.int64),
            counts=np.stack(counts) if counts else np.empty((0, 2, BINS), dtype=np.int64),
        )

    def _trainer(self, place: int, number: int) -> Trainer:
        player = self._players[place]
        if place not in self._trainers:
            part = slice(self._ends[place], self._ends[place + 1])
            rows = Snapshot(**{name: array[part] for name, array in self._parts.items()}, patients=())
            stream = None if self._seed is None else _Stream(self._seed, player.hospital)
            made = Trainer(
                player.spec, rows, check=False, graph=self._graph, randomness=stream or self._system
            )
            self._trainers[place] = made, stream
        trainer, stream = self._trainers[place]
        if stream is not None:
            stream.begin(number)
        return trainer


class _Stream(SeededRandomness):
    """A hospital's repeatable stream, another one in each round: protects nobody."""

    def __init__(self, seed: int, hospital: str) -> None:
        self._name = f"wardround/crowd/v1/{seed}/{hospital}"
        self.begin(0)

    def begin(self, number: int) -> None:
        """Go on with the stream of a round, from its start."""
        Randomness.__init__(self, hashlib.sha256(f"{self._name}/{number}".encode()).digest())


@lru_cache(maxsize=1)
def players_of(folder: str) -> Players:
    """Return a folder's players; a process that is asked again keeps what it has made."""
    return Players(Path(folder))


def joined(answers: Sequence[Answers]) -> Answers:
    """Return the answers of consecutive shares of the roster as one."""
    return Answers(
        updates=np.concatenate([a.updates for a in answers]),
        counts=np.concatenate([a.counts for a in answers]),
    )


def call_to_json(call: Call) -> str:
    """Return all of a call but its model."""
    return json.dumps({name: value for name, value in asdict(call).items() if name != "model"})


def call_from_json(text: str, model: bytes) -> Call:
    """Read what `call_to_json` wrote."""
    value = json.loads(text)
    return Call(**{**value, "edges": tuple(value["edges"])}, model=model)
