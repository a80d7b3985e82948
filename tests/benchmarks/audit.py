"""A full audit beside its bare signature checks and hashes, both on all cores, in the same run.

Run: `python -m tests.benchmarks.audit [--hospitals 20] [--rounds 1000]`. The log is one job's: receipts of every
hospital and a round record, one checkpoint a round, cosigned by five witnesses. The reference checks the same
signatures (records and checkpoints) and hashes the same entries, and does nothing else.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger import envelope
from ledger.audit import audit
from ledger.checkpoint import cosign, cosignature_message
from ledger.merkle import hash_pairs, leaf_hash
from ledger.note import Note
from ledger.signature import KeyType, VerifierKey
from ledger.state import WitnessSet
from tests.ledger.consortium import Consortium
from tests.ledger.log_folder import WITNESSES, LogFolder

_Check = tuple[bytes, bytes, bytes]  # public key, signature, message


def build(folder: LogFolder, hospitals: int, rounds: int) -> Consortium:
    """Write a log of one long job, a final checkpoint a round."""
    consortium = Consortium.founded()
    names = [f"hospital-{i:03d}" for i in range(hospitals)]
    for start in range(0, hospitals, 20):
        added = tuple(consortium.member(n, witness=False) for n in names[start : start + 20])
        consortium.append(consortium.amendment(add=added))
    consortium.offer(*names)
    job = consortium.run(*names, rounds=rounds, evaluate=(), heldout_epsilon="0", expires_at=2**40)
    publish(folder, consortium)
    for _ in range(rounds):
        consortium.play(job)
        publish(folder, consortium)
    return consortium


def publish(folder: LogFolder, consortium: Consortium) -> None:
    """Append what is new without reading back what is old."""
    start = folder.store.size
    new = [e.data for e in consortium.entries[start:]]
    leaves = [leaf_hash(data) for data in new]
    text = folder.head(consortium.view).to_text()
    note = folder.sign(text)
    folder.store.append(new, leaves, before=(start, folder.store.root), note=note.to_bytes())
    lines = [cosign(text, key, consortium.state.time) for key in WITNESSES]
    folder.store.finalise(consortium.view.size, note.with_signatures(*lines).to_bytes())


def signatures(consortium: Consortium, path: Path) -> list[_Check]:
    """Return every signature that an audit must check."""
    checks = [
        (bytes.fromhex(key), signature, envelope.pae(entry.payload))
        for entry in consortium.entries
        for key, signature in entry.signatures.items()
    ]
    witnesses: WitnessSet = consortium.state.witness_sets[-1]
    keys = {(k.name, k.key_id): k for k in map(VerifierKey.from_text, (witnesses.log, *witnesses.witnesses))}
    for file in (path / "checkpoints").iterdir():
        note = Note.from_bytes(file.read_bytes())
        for line in note.signatures:
            key = keys[line.name, line.key_id]
            if key.type is KeyType.ED25519:
                checks.append((key.public, line.value, note.text.encode()))
            else:
                moment = int.from_bytes(line.value[:8], "big")
                checks.append((key.public, line.value[8:], cosignature_message(note.text, moment)))
    return checks


def bare(checks: list[_Check], entries: list[bytes]) -> None:
    """Check and hash, and nothing else."""

    def verify(part: list[_Check]) -> None:
        for public, signature, message in part:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        done = [pool.submit(verify, checks[i : i + 64]) for i in range(0, len(checks), 64)]
        row = [leaf_hash(data) for data in entries]
        while len(row) > 1:
            row = hash_pairs(row[: len(row) // 2 * 2])
        for each in done:
            each.result()


def main() -> None:
    """Build, then measure turn by turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hospitals", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = LogFolder(Path(scratch) / "log")
        consortium = build(folder, given.hospitals, given.rounds)
        checks = signatures(consortium, folder.path)
        entries = [e.data for e in consortium.entries]
        print(f"{len(entries):,} entries, {len(checks):,} signatures")
        ours, reference = [], []
        for _ in range(3):
            begun = time.perf_counter()
            bare(checks, entries)
            middle = time.perf_counter()
            audit(folder.read)
            reference.append(middle - begun)
            ours.append(time.perf_counter() - middle)
        folder.store.close()
    best, least = min(ours), min(reference)
    print(f"full audit {best:8.2f} s   bare signatures and hashes {least:8.2f} s   ratio {best / least:5.2f}")


if __name__ == "__main__":
    main()
