"""The ledger beside what cannot be avoided: each figure is a ratio to a reference measured in the same run.

Run: `python -m tests.benchmarks.ledger [append] [proof] [--entries 100000] [--folder DIR]`. References:
for a batched append, SQLite inserting the same rows with the same durability; for one durable append, write and
fsync of the same bytes to one open file; for an inclusion proof, reading the tiles that hold its path; for an
evidence proof, its bare Ed25519 checks. Ours includes all that the real path does: leaf hashes, tree, signed
checkpoint, commit, tiles, bundles and `checkpoint.pending`. Give `--folder` on the disk that you mean to measure.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger import example, finality
from ledger.checkpoint import Checkpoint, cosign, cosignature_message
from ledger.log import Log
from ledger.merkle import Frontier, inclusion_proof, leaf_hash
from ledger.note import Note, sign_note
from ledger.policy import Group
from ledger.proof import TlogProof, verify_proof
from ledger.records import Tick
from ledger.state import WitnessSet
from ledger.store import Store
from ledger.tiles import Tile, TileNodes

ENTRY_SIZE = 1_200  # bytes: a receipt
BATCH = 1_000  # entries
SINGLE = 500  # durable appends measured
PROOFS = 1_000
_Item = TypeVar("_Item")
WITNESSES = tuple(example.WITNESSES.values())


def report(what: str, ours: float, reference: float, unit: str, against: str) -> None:
    """Print one line: our figure, the reference, and the ratio."""
    print(
        f"{what:<42} {ours:>10.3f} {unit:<5} {reference:>10.3f} {against:<34} ratio {ours / reference:5.2f}"
    )


def median(action: Callable[[_Item], object], items: Iterable[_Item]) -> float:
    """Return the median wall time of an action over items, in milliseconds."""
    times = []
    for item in items:
        begun = time.perf_counter()
        action(item)
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def contents(count: int) -> list[bytes]:
    """Return entries of ENTRY_SIZE bytes."""
    rng = random.Random(1)
    return [rng.randbytes(ENTRY_SIZE) for _ in range(count)]


def add(store: Store, entries: Sequence[bytes]) -> None:
    """Append entries that are judged already: hash, sign, commit, publish."""
    leaves = [leaf_hash(entry) for entry in entries]
    tree = store.tree.extend(leaves)
    head = Checkpoint(origin=example.ORIGIN, size=tree.size, root=tree.root())
    note = sign_note(head.to_text(), example.LOG_KEY).to_bytes()
    store.append(entries, leaves, before=(store.size, store.root), note=note)


def bare_database(path: Path) -> sqlite3.Connection:
    """Open a database with one table and the ledger's durability."""
    database = sqlite3.connect(path, isolation_level=None)
    for statement in (
        "PRAGMA locking_mode = EXCLUSIVE",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE entries (position INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    ):
        database.execute(statement)
    return database


def insert(database: sqlite3.Connection, start: int, entries: Sequence[bytes]) -> None:
    """Insert entries in one transaction."""
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT INTO entries VALUES (?, ?)", enumerate(entries, start))
    database.execute("COMMIT")


class TimedStore(Store):
    """A store that notes how long its commits take."""

    commits: list[float]

    def _commit_entries(
        self,
        head: bytes | None,
        entries: Sequence[bytes],
        sizes: tuple[int, int],
        note: bytes,
        snapshot: bytes | None,
        facts: Mapping[str, bytes],
    ) -> None:
        begun = time.perf_counter()
        super()._commit_entries(head, entries, sizes, note, snapshot, facts)
        self.commits.append(time.perf_counter() - begun)


def benchmark_batches(folder: Path, entries: Sequence[bytes]) -> None:
    """Append in batches, turn by turn with the reference so that both meet the same machine."""
    ours = bare = 0.0
    database = bare_database(folder / "bare.sqlite")
    with Store.create(folder / "batches") as store:
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            begun = time.perf_counter()
            insert(database, start, batch)
            middle = time.perf_counter()
            add(store, batch)
            bare, ours = bare + middle - begun, ours + time.perf_counter() - middle
    database.close()
    report(f"batches of {BATCH:,}, a thousand entries", ours / len(entries) * 1e6, bare / len(entries) * 1e6,
           "ms", "ms SQLite insert of the same rows")  # fmt: skip
    print(f"{'':<42} {len(entries) / ours:>10,.0f} entries/s, SQLite alone {len(entries) / bare:,.0f}")


def benchmark_single(folder: Path) -> None:
    """Append ticks one by one."""
    ticks = [example.signed(Tick(origin=example.ORIGIN, time=example.FOUNDED + i + 1)) for i in range(SINGLE)]
    bare = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(data: bytes) -> None:
        os.write(bare, data)
        os.fsync(bare)

    charter = example.signed(example.charter())
    log = Log.create(folder / "log", charter, [example.LOG_KEY], example.FOUNDED)
    TimedStore.commits = []
    store = TimedStore.create(folder / "single")
    times: tuple[list[float], list[float], list[float]] = ([], [], [])
    with log, store:
        for tick in ticks:
            begun = time.perf_counter()
            write(tick)
            written = time.perf_counter()
            add(store, [tick])
            added = time.perf_counter()
            log.append([tick], log.view.state.time)
            now = time.perf_counter()
            for spent, seconds in zip(times, (written - begun, added - written, now - added), strict=True):
                spent.append(seconds)
    os.close(bare)
    reference, published, judged = (statistics.median(t) * 1e3 for t in times)
    against = f"ms write+fsync of {len(ticks[0])} bytes"
    report("durable append: commit", statistics.median(store.commits) * 1e3, reference, "ms", against)
    report("durable append: sign, commit, publish", published, reference, "ms", against)
    report("durable append: judged by the rules too", judged, reference, "ms", against)


def benchmark_append(folder: Path, count: int) -> None:
    """Measure batched and single appends."""
    benchmark_batches(folder, contents(count))
    benchmark_single(folder)


def benchmark_proof(folder: Path, count: int) -> None:
    """Measure making an inclusion proof from tiles on disk, and checking an evidence file."""
    entries = [b"%d" % index for index in range(count)]
    leaves = [leaf_hash(entry) for entry in entries]
    head = Checkpoint(origin=example.ORIGIN, size=count, root=Frontier().extend(leaves).root())
    note = sign_note(head.to_text(), example.LOG_KEY)
    note = note.with_signatures(*(cosign(note.text, key, example.FOUNDED) for key in WITNESSES))
    chosen = random.Random(1).sample(range(count), min(PROOFS, count))
    with Store.create(folder / "proof") as store:
        store.append(entries, leaves, before=(0, store.root), note=note.to_bytes())

        def prove(index: int) -> tuple[bytes, ...]:
            return inclusion_proof(index, count, TileNodes(store.read, count))

        def read(index: int) -> None:
            for level in range(3):
                position, total = index >> 8 * level + 8, count >> 8 * level
                if total:
                    width = min(256, total - 256 * position)
                    store.read(Tile(level=level, index=position, width=width).path)

        prove(0)
        made = median(prove, chosen)
        reference = median(read, chosen)
        report(f"inclusion proof from tiles, {count:,}", made, reference, "ms", "ms reading its tiles")
        nodes = TileNodes(store.read, count)
        kept = median(lambda index: inclusion_proof(index, count, nodes), chosen)
        report("inclusion proof, one reader for all", kept, reference, "ms", "ms reading its tiles")
        proofs = [TlogProof(index=i, hashes=prove(i), note=note) for i in chosen]
    benchmark_evidence([(proof, leaves[proof.index]) for proof in proofs], note)


def benchmark_evidence(proofs: Sequence[tuple[TlogProof, bytes]], note: Note) -> None:
    """Check evidence under a policy that needs all five witnesses."""
    policy = finality.trust_policy(example_witnesses())
    group = Group(name=policy.quorum, threshold=len(WITNESSES), members=policy.groups[0].members)
    policy = type(policy)(logs=policy.logs, witnesses=policy.witnesses, groups=(group,), quorum=policy.quorum)
    text = note.text.encode()
    signed = [(example.LOG_KEY.verifier.public, note.signatures[0].value, text)]
    signed += [
        (key.verifier.public, line.value[8:], cosignature_message(note.text, example.FOUNDED))
        for key, line in zip(WITNESSES, note.signatures[1:], strict=True)
    ]

    def bare(_: object) -> None:
        for public, signature, message in signed:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)

    def check(item: tuple[TlogProof, bytes]) -> None:
        verify_proof(item[0], item[1], policy)

    def parse_and_check(item: tuple[bytes, bytes]) -> None:
        verify_proof(TlogProof.from_bytes(item[0]), item[1], policy)

    reference, ours = median(bare, proofs), median(check, proofs)
    parsed = median(parse_and_check, [(proof.to_bytes(), leaf) for proof, leaf in proofs])
    against = f"ms its {len(signed)} Ed25519 checks"
    report("evidence proof checked", ours, reference, "ms", against)
    report("evidence proof parsed and checked", parsed, reference, "ms", against)


def example_witnesses() -> WitnessSet:
    """Return the example's witness set."""
    terms = example.charter().terms
    return WitnessSet(
        since=0,
        log=terms.log,
        witnesses=tuple(sorted(key.verifier.to_text() for key in WITNESSES)),
        max_dishonest=terms.max_dishonest,
        quorum=terms.quorum,
    )


PARTS: dict[str, Callable[[Path, int], None]] = {"append": benchmark_append, "proof": benchmark_proof}


def main() -> None:
    """Run the parts named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write; default: a temporary directory"
    )
    arguments = parser.parse_args()
    for part in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            PARTS[part](Path(folder), arguments.entries)


if __name__ == "__main__":
    main()
