"""Following for ever: the long poll, cosignatures, a log that was restarted, and a network that comes and goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.consortium import Consortium, Pending
from client.errors import LocalStateError, UnreachableError
from client.follower import Follower
from client.premises import open_mirror
from ledger import example
from ledger.checkpoint import Checkpoint, verify_cosignature
from ledger.envelope import Entry
from ledger.errors import StorageError
from ledger.note import Note
from ledger.signature import Signature
from tests.client.fake_coordinator import FakeCoordinator
from tests.ledger.consortium import digest

KEY = example.WITNESSES["alpha"]
PATIENCE = 20.0  # seconds; a limit against hanging, not a measurement


class Script(Consortium):
    """A door whose long poll answers as the test says; everything else is the fake coordinator's."""

    def __init__(self, coordinator: FakeCoordinator, stopping: threading.Event) -> None:
        self._client = coordinator.door()._client
        self._key = None  # nothing is signed here
        self._coordinator = coordinator
        self._stopping = stopping
        self.steps: list[Callable[[], str]] = []  # what happens before each answer; returns the nonce
        self.polled: list[tuple[int, float]] = []
        self.reports: list[tuple[str, bytes, list[bytes]]] = []

    def wait_for_pending(self, above: int, seconds: float) -> Pending:
        self.polled.append((above, seconds))
        if not self.steps:
            self._stopping.set()
            raise UnreachableError("over")
        report = self.steps.pop(0)()
        return Pending(note=self._coordinator.note(), report=report)

    def post_report(self, nonce: str, note: bytes, entries: object) -> bool:
        assert isinstance(entries, list)
        self.reports.append((nonce, note, entries))
        return True


class Scene:
    def __init__(self, path: Path) -> None:
        self.coordinator = FakeCoordinator(path / "log")
        self.stopping = threading.Event()
        self.door = Script(self.coordinator, self.stopping)
        self.may_cosign = True
        self.seen: list[Entry] = []
        self.troubles: list[str] = []
        self.path = path
        self.follower = self.make()

    def make(self) -> Follower:
        mirror = open_mirror(self.path / "mirror", example.charter().digest())
        return Follower(
            mirror, self.door, KEY, lambda: self.coordinator.now, may_cosign=lambda: self.may_cosign
        )

    def run(self, *steps: Callable[[], str]) -> None:
        self.door.steps = list(steps)
        self.stopping.clear()
        self.follower.run(self.stopping, self.seen.extend, self.troubles.append)

    def cosigned(self) -> list[int]:
        return [size for size, _ in self.coordinator.lines]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.follower.close()
    made.coordinator.close()


def nothing() -> str:
    return ""


def unreachable() -> str:
    raise UnreachableError("the coordinator cannot be reached")


def test_what_is_new_is_cosigned_and_told(scene: Scene) -> None:
    def tick() -> str:
        scene.coordinator.append(scene.coordinator.consortium.tick())
        return ""

    scene.run(nothing, tick, nothing, tick)
    assert [e.record.TYPE for e in scene.seen] == ["charter", "tick", "tick"]
    assert scene.cosigned() == [1, 2, 3]  # each once
    size, line = scene.coordinator.lines[-1]
    text = Note.from_bytes(scene.coordinator.note()).text
    assert Checkpoint.from_text(text).size == size
    assert verify_cosignature(text, KEY.verifier, line) == scene.coordinator.now
    assert scene.door.polled[2] == (2, 25.0)


def test_a_network_that_fails_is_waited_for(scene: Scene) -> None:
    scene.run(unreachable, unreachable, nothing)
    assert scene.cosigned() == [1]
    assert [bool(trouble) for trouble in scene.troubles[:2]] == [
        True,
        False,
    ]  # told once, and when it was over


def test_a_cosignature_that_did_not_arrive_is_handed_over_at_once(scene: Scene) -> None:
    post = scene.door.post_cosignature
    failures = [UnreachableError("lost")]

    def fails(size: int, line: Signature) -> bool:
        if failures:
            raise failures.pop()
        return post(size, line)

    scene.door.post_cosignature = fails  # type: ignore[method-assign]
    scene.run(nothing, nothing)
    assert scene.cosigned() == [1]
    assert scene.door.polled[1] == (1, 0)  # it does not wait for news first


def test_after_a_restart_the_cosignature_is_given_again(scene: Scene) -> None:
    scene.run(nothing)
    scene.follower.close()
    scene.follower = scene.make()
    scene.run(nothing)
    assert scene.cosigned() == [1, 1]


def test_a_restarted_log_is_told_what_was_signed_last(scene: Scene) -> None:
    scene.run(nothing, lambda: "nonce")
    [(nonce, note, entries)] = scene.door.reports
    assert (nonce, entries) == ("nonce", [])
    opened = Note.from_bytes(note)
    assert opened.text == Note.from_bytes(scene.coordinator.note()).text
    own = [s for s in opened.signatures if s.name == KEY.name]
    assert verify_cosignature(opened.text, KEY.verifier, own[0]) == scene.coordinator.now


def test_a_log_that_lost_its_tail_gets_it_back(scene: Scene) -> None:
    old = scene.coordinator.note()
    scene.coordinator.append(scene.coordinator.consortium.tick())
    scene.run(nothing)
    scene.coordinator.note = lambda: old  # type: ignore[method-assign]  # an older backup of the log
    scene.run(lambda: "nonce")
    [(_, note, entries)] = scene.door.reports
    assert entries == [scene.coordinator.consortium.entries[-1].data]
    assert Checkpoint.from_text(Note.from_bytes(note).text).size == 2


def test_nothing_is_signed_while_a_person_has_to_look(scene: Scene) -> None:
    scene.may_cosign = False
    scene.run(nothing, lambda: "nonce")
    assert scene.cosigned() == []
    assert scene.door.reports == []
    assert scene.follower.sight() is not None  # but it follows


def test_two_threads_hand_one_cosignature_over_once(scene: Scene) -> None:
    scene.follower.pull()
    threads = [threading.Thread(target=scene.follower.cosign) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert scene.cosigned() == [1]


def test_a_disk_that_fails_ends_the_following(scene: Scene) -> None:
    def broken() -> str:
        scene.follower._mirror._store.close()
        raise StorageError("stands for a failed write")

    with pytest.raises(StorageError):
        scene.run(nothing, broken)


def test_a_mirror_of_another_consortium_is_refused(scene: Scene) -> None:
    scene.run(nothing)
    scene.follower.close()
    with pytest.raises(LocalStateError, match="another charter"):
        open_mirror(scene.path / "mirror", digest("another charter"))
    scene.follower = scene.make()
