"""A log's folder for the tests: what a consortium's entries look like to whoever reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ledger import example
from ledger.checkpoint import Checkpoint, cosign
from ledger.merkle import leaf_hash, root_hash
from ledger.note import Note, sign_note
from ledger.signature import SigningKey
from ledger.source import Read, open_source
from ledger.store import Store
from ledger.view import View
from tests.ledger.consortium import Consortium

WITNESSES = tuple(example.WITNESSES.values())


class LogFolder:
    """Publishes entries as the coordinator would, or as a dishonest one might: nothing is judged here."""

    def __init__(self, path: Path, keys: Sequence[SigningKey] = (example.LOG_KEY,)) -> None:
        self.path = path
        self.store = Store.create(path)
        self.keys = tuple(keys)

    @property
    def read(self) -> Read:
        """What others read."""
        return open_source(str(self.path))

    def publish(
        self, consortium: Consortium, *, time: int | None = None, witnesses: Iterable[SigningKey] = WITNESSES
    ) -> bytes:
        """Sign all the consortium's entries; cosigned by `witnesses`, none of them leaves it pending."""
        return self.publish_entries(
            [e.data for e in consortium.entries], time or consortium.state.time, witnesses
        )

    def publish_entries(
        self, entries: Sequence[bytes], time: int = example.FOUNDED, witnesses: Iterable[SigningKey] = ()
    ) -> bytes:
        """Sign these entries, of which the folder has the first ones already."""
        new = entries[self.store.size :]
        note = self.note(entries)
        before = (self.store.size, self.store.root)
        self.store.append(new, [leaf_hash(e) for e in new], before=before, note=note.to_bytes())
        if lines := [cosign(note.text, key, time) for key in witnesses]:
            self.store.finalise(len(entries), note.with_signatures(*lines).to_bytes())
        return note.to_bytes()

    def note(self, entries: Sequence[bytes]) -> Note:
        """The signed checkpoint of entries."""
        root = root_hash([leaf_hash(e) for e in entries])
        return self.sign(Checkpoint(origin=self.keys[0].name, size=len(entries), root=root).to_text())

    def head(self, view: View) -> Checkpoint:
        """The checkpoint of a view."""
        return Checkpoint(origin=self.keys[0].name, size=view.size, root=view.root)

    def sign(self, text: str) -> Note:
        """Sign with the log's keys."""
        return sign_note(text, *self.keys)


def running() -> tuple[Consortium, str]:
    """A consortium with a job under way, one round played."""
    consortium = Consortium.founded()
    consortium.offer("alpha", "bravo")
    job = consortium.run("alpha", "bravo")
    consortium.play(job)
    return consortium, job
