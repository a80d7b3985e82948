"""What the `wardround ledger` commands do: files in, files out, one function a command."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ledger import audit, canonical, envelope, example, finality, records
from ledger.checkpoint import Checkpoint
from ledger.checkpoint import cosign as cosign_checkpoint
from ledger.envelope import Entry
from ledger.errors import MalformedError, ReadOnlyError, StorageError, VerificationError
from ledger.log import Log
from ledger.merkle import inclusion_proof, leaf_hash, verify_inclusion
from ledger.note import Note
from ledger.proof import TlogProof
from ledger.restart import MissingTail, Report, Succession, Writable
from ledger.signature import KeyType, SigningKey, VerifierKey
from ledger.source import Read, open_source, read_file
from ledger.store import CHECKPOINT, CHECKPOINTS, PENDING
from ledger.tiles import TileNodes
from ledger.view import NOTHING

MAX_INPUT_SIZE = 4_000_000  # bytes of a policy, the largest file that a command reads
TRUST_FILE = "trust.policy"
_EXAMPLE_PROOF = "example.tlog-proof"
_EXAMPLE_LEAF = "example.leaf"
_EXAMPLE_INDEX = 9  # alpha's receipt of round 1


def read_input(path: Path, max_size: int = MAX_INPUT_SIZE) -> bytes:
    """Return a file that a person named.

    Raises:
        StorageError: it is missing or unreadable.
        MalformedError: it is far too large to be what it should be.
    """
    try:
        return read_file(path, max_size)
    except FileNotFoundError:
        raise StorageError(f"there is no file {path}") from None


def write_output(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, never over another one that is not the same.

    Raises:
        StorageError: something else is there, or it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if path.exists():
            if path.read_bytes() == data:
                return
            raise StorageError(f"{path} exists: remove it, or choose another name")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror}") from None


def select(read: Read, *, job: str = "", hospital: str = "", kind: str = "") -> Iterator[tuple[int, Entry]]:
    """Return the entries of a log that a person asked for, unverified, with their positions.

    Raises:
        LedgerError: the copy cannot be read, at once or on the way.
    """
    if kind and kind not in {cls.TYPE for cls in records.RECORDS}:
        known = ", ".join(sorted(cls.TYPE for cls in records.RECORDS))
        raise MalformedError(f"there is no record type {kind!r}: choose one of {known}")
    everything = map(envelope.parse_entry, audit.entries(read, _head(read).size))
    return (
        (index, entry)
        for index, entry in enumerate(everything)
        if _job(entry).startswith(job)
        and kind in ("", entry.record.TYPE)
        and hospital in ("", getattr(entry.record, "hospital", ""))
    )


def prove(read: Read, index: int) -> tuple[bytes, bytes]:
    """Return an entry and the tlog-proof of it under the log's final checkpoint.

    Raises:
        LedgerError: there is no such entry, or the copy is damaged.
    """
    head = _head(read)
    if not 0 <= index < head.size:
        raise VerificationError(f"the log has the entries 0 to {head.size - 1}, no {index}")
    leaf = next(audit.entries(read, head.size, index))
    hashes = inclusion_proof(index, head.size, TileNodes(read, head.size, head.root))
    verify_inclusion(index, head.size, leaf_hash(leaf), hashes, head.root)
    note = Note.from_bytes(read(CHECKPOINT))
    return leaf, TlogProof(index=index, hashes=hashes, note=note).to_bytes()


def trust_file(charter: Path) -> bytes:
    """Return the policy of a signed charter, or of a log's newest charter version after replaying it.

    Raises:
        LedgerError: neither, or not valid.
    """
    if charter.is_dir():
        read = open_source(str(charter))
        state = audit.replay(read, _head(read).size).state
    else:
        state = NOTHING.extend([envelope.open_entry(read_input(charter))]).state
    return finality.trust_policy(state.witness_sets[-1]).to_bytes()


def new_key(name: str, path: Path, *, witness: bool) -> SigningKey:
    """Make a key and write it where only its owner reads it.

    Raises:
        LedgerError: the name is no key name, or the file exists.
    """
    kind = KeyType.COSIGNATURE if witness else KeyType.ED25519
    key = SigningKey(name=name, type=kind, seed=secrets.token_bytes(32))
    write_output(path, key.to_text().encode() + b"\n", mode=0o600)
    return key


def read_key(path: Path) -> SigningKey:
    """Read a key that `new_key` wrote. Raises LedgerError, which shows nothing of the file."""
    try:
        return SigningKey.from_text(read_input(path, 10_000).decode("ascii").strip())
    except (UnicodeDecodeError, MalformedError):
        raise MalformedError(f"{path} holds no private key that `wardround ledger keygen` made") from None


def sign(data: bytes, key: SigningKey) -> bytes:
    """Sign a record's JSON, in any layout, or add a signature to an entry.

    Raises:
        LedgerError: neither, an earlier signature is wrong, or the key signs something else.
    """
    if key.type is not KeyType.ED25519:
        raise MalformedError(
            "that key cosigns checkpoints: records need one that keygen made without --witness"
        )
    value = canonical.loads(data, records.MAX_RECORD_SIZE)
    if isinstance(value, dict) and "payload" in value:
        entry = envelope.open_entry(canonical.dumps(value))
        own = envelope.parse_entry(envelope.sign(entry.record, key))
        return envelope.assemble(entry.record, {**entry.signatures, **own.signatures})
    return envelope.sign(records.parse(canonical.dumps(value)), key)


def init(directory: Path, charter: bytes, key: SigningKey, now: int) -> None:
    """Begin a log. Raises LedgerError; then nothing is there."""
    with Log.create(directory, charter, [key], now) as log:
        write_output(
            directory / TRUST_FILE, finality.trust_policy(log.view.state.witness_sets[-1]).to_bytes()
        )


def append(
    directory: Path, batch: Sequence[bytes], keys: Sequence[SigningKey], reports: Iterable[bytes], now: int
) -> int:
    """Append a batch and return the log's size.

    Args:
        directory: The log's own.
        batch: Entries.
        keys: The log's key; the new one too where an amendment brings it in.
        reports: What witnesses cosigned last, as `cosign` gives it: they are the log's memory.
        now: Unix seconds.

    Raises:
        LedgerError: the log may not write, or the batch may not follow; nothing changed.
    """
    with Log.open(directory, keys) as log:
        verdict = log.resume([r for data in reports for r in _reports(data, log)])
        match verdict:
            case Writable():
                log.append(batch, now)
                return log.view.size
            case MissingTail(size=size):
                raise ReadOnlyError(
                    f"this log signed {size} entries and has {log.view.size}: restore its tail"
                )
            case Succession(reason=reason):
                raise ReadOnlyError(f"{reason}: only a successor can go on")
        more = "; ".join(
            (f"{verdict.more} more witnesses must report what they cosigned last", *verdict.refused)
        )
        raise ReadOnlyError(f"{more} (--report, as `wardround ledger cosign` writes it)")


def cosign(directory: Path, key: SigningKey, now: int) -> tuple[bytes, bool]:
    """Replay a log, cosign its pending checkpoint and keep the cosignature with it.

    Returns:
        The witness's report: the checkpoint with its cosignature; and whether it is final now.

    Raises:
        LedgerError: the log breaks a rule, or the key is no witness's.
    """
    with Log.open(directory) as log:
        note = Note.from_bytes(log.store.pending() or b"")
        head = finality.verify_signed(note, log.view.state.witness_sets[-1:])
        if key.verifier.to_text() not in log.view.state.witness_sets[-1].witnesses:
            raise VerificationError(f"{key.name} is no witness of this log, or has another key now")
        if audit.replay(log.store.read, head.size).root != head.root:
            raise VerificationError("the entries do not lead to the root that the log signed")
        line = cosign_checkpoint(note.text, key, now)
        return note.with_signatures(line).to_bytes(), log.cosign(head.size, [line])


def write_example(directory: Path) -> None:
    """Write the example log: published files only, the same bytes every time.

    Raises:
        StorageError: the directory exists or cannot be written.
    """
    if directory.exists():
        raise StorageError(f"{directory} exists: name a new directory")
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "log"
        _build_example(built)
        leaf, proof = prove(open_source(str(built)), _EXAMPLE_INDEX)
        try:
            directory.mkdir(parents=True)
            for name in (CHECKPOINT, PENDING, TRUST_FILE):
                shutil.copyfile(built / name, directory / name)
            for name in (CHECKPOINTS, "tile"):
                shutil.copytree(built / name, directory / name)
        except OSError as error:
            raise StorageError(f"cannot write {directory}: {error.strerror}") from None
    write_output(directory / _EXAMPLE_LEAF, leaf)
    write_output(directory / _EXAMPLE_PROOF, proof)


def _build_example(directory: Path) -> None:
    (charter, *_), *groups = example.history()
    with Log.create(directory, example.signed(charter), [example.LOG_KEY], example.FOUNDED) as log:
        policy = finality.trust_policy(log.view.state.witness_sets[-1])
        write_output(directory / TRUST_FILE, policy.to_bytes())
        _cosign_example(log)
        for group in (*groups, *example.ROUND_NUMBERS, example.ending()):
            if isinstance(group, int):
                group = example.exchange(group, (log.view.size, log.view.root.hex()))
            now = max(getattr(record, "time", log.view.state.time) for record in group)
            log.append([example.signed(record) for record in group], now)
            _cosign_example(log)


def _cosign_example(log: Log) -> None:
    text, time = Note.from_bytes(log.store.pending() or b"").text, log.view.state.time
    lines = [cosign_checkpoint(text, key, time + i) for i, key in enumerate(example.WITNESSES.values())]
    log.cosign(log.view.size, lines)


def _reports(data: bytes, log: Log) -> list[Report]:
    """Read a witness's report: one for each of the log's witnesses whose line the note bears."""
    note = Note.from_bytes(data)
    keys = [VerifierKey.from_text(text) for text in log.view.state.witness_sets[-1].witnesses]
    signers = {(line.name, line.key_id) for line in note.signatures}
    return [Report(witness=key, note=note) for key in keys if (key.name, key.key_id) in signers]


def _head(read: Read) -> Checkpoint:
    try:
        return Checkpoint.from_text(Note.from_bytes(read(CHECKPOINT)).text)
    except FileNotFoundError:
        raise VerificationError(
            "there is no final checkpoint here: is it a log, and has a quorum cosigned it?"
        ) from None


def _job(entry: Entry) -> str:
    return entry.digest if isinstance(entry.record, records.Job) else getattr(entry.record, "job", "")
