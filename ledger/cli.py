"""`wardround ledger`: verify, read and write a log by hand. Parses, calls one function, prints."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ledger import audit, canonical, desk, envelope, report
from ledger.errors import VerificationError
from ledger.merkle import leaf_hash
from ledger.policy import Policy
from ledger.proof import MAX_PROOF_SIZE, TlogProof, verify_proof
from ledger.source import open_source
from ledger.view import View

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Verify, read and write the consortium's log. Everything here works offline. "
    "Example: wardround ledger verify run/log --policy run/log/trust.policy",
)

Where = Annotated[
    str, typer.Argument(metavar="DIR|URL", help="A copy of the log, or the address that serves it.")
]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The log's own directory.")]
PolicyFile = Annotated[
    Path, typer.Option("--policy", help="Trust file (tlog-policy), as `policy` writes it.")
]
KeyFile = Annotated[Path, typer.Option("--key", help="Private key file, as `keygen` writes it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="File to write.")]


@app.command()
def verify(
    where: Where,
    policy: PolicyFile,
    charter: Annotated[str, typer.Option(help="Charter digest that you compared by telephone.")] = "",
    predecessor: Annotated[str, typer.Option(help="A copy of the log that this one follows.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check every entry, hash, signature, quorum and rule, and say what that establishes.

    Example: wardround ledger verify run/log --policy run/log/trust.policy
    """
    trusted = Policy.from_bytes(desk.read_input(policy))
    before = _predecessor(where, predecessor) if predecessor else None
    result = audit.audit(
        open_source(where), policy=trusted, charter=charter, predecessor=before, progress=_Progress("entries")
    )
    shown, unknown = list(report.established(result)), list(report.not_established(result))
    if as_json:
        _json(
            {
                "origin": result.checkpoint.origin,
                "size": result.checkpoint.size,
                "root": result.checkpoint.root.hex(),
                "charter": result.charter,
                "signatures": result.signatures,
                "witnesses": result.times,
                "established": shown,
                "not_established": unknown,
            }
        )
        return
    for line in report.verdict(shown, unknown):
        typer.echo(line)


@app.command()
def show(
    where: Where,
    job: Annotated[
        str, typer.Option(help="Only records of the job with this digest, or its beginning.")
    ] = "",
    hospital: Annotated[str, typer.Option(help="Only records of this hospital.")] = "",
    kind: Annotated[str, typer.Option("--type", help="Only records of this type, such as receipt.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the records, unverified.

    Example: wardround ledger show run/log --type round
    """
    chosen = desk.select(open_source(where), job=job, hospital=hospital, kind=kind)
    if as_json:
        _json([report.as_json(index, entry) for index, entry in chosen])
        return
    for line in report.table(chosen):
        typer.echo(line)


@app.command()
def prove(
    index: Annotated[int, typer.Argument(help="Position of the entry, from 0.")], where: Where, out: Out
) -> None:
    """Write the proof that one entry is on the log; it stands alone, with the entry and the trust file.

    Example: wardround ledger prove 12 run/log -o round3.tlog-proof
    """
    leaf, proof = desk.prove(open_source(where), index)
    desk.write_output(out, proof)
    beside = out.with_suffix(".leaf")
    desk.write_output(beside, leaf)
    typer.echo(f"{out} proves entry {index}; the entry itself is {beside}")


@app.command()
def check_proof(
    proof: Annotated[Path, typer.Argument(help="A .tlog-proof file.")],
    leaf: Annotated[Path, typer.Argument(help="The entry that it proves.")],
    policy: PolicyFile,
    as_json: AsJson = False,
) -> None:
    """Check a proof offline, with the entry and the trust file alone.

    Example: wardround ledger check-proof round3.tlog-proof round3.leaf --policy trust.policy
    """
    data = desk.read_input(leaf)
    parsed = TlogProof.from_bytes(desk.read_input(proof, MAX_PROOF_SIZE))
    checkpoint, times = verify_proof(parsed, leaf_hash(data), Policy.from_bytes(desk.read_input(policy)))
    if as_json:
        result = {
            "origin": checkpoint.origin,
            "index": parsed.index,
            "size": checkpoint.size,
            "witnesses": times,
        }
        _json(result)
        return
    names = ", ".join(f"{name} at {report.when(at)}" for name, at in sorted(times.items()))
    typer.echo(f"Entry {parsed.index} of {checkpoint.size} of {checkpoint.origin}; cosigned by {names}")


@app.command()
def policy(
    charter: Annotated[Path, typer.Argument(metavar="CHARTER|DIR", help="A signed charter, or a log.")],
    out: Out,
) -> None:
    """Write the trust file: the log's key, its witnesses and their quorum.

    Example: wardround ledger policy run/log -o trust.policy
    """
    desk.write_output(out, desk.trust_file(charter))
    typer.echo(f"{out} written; whoever holds it can verify the log without asking anybody")


@app.command()
def keygen(
    name: Annotated[str, typer.Argument(help="The member's name, the witness's, or the log's origin.")],
    out: Out,
    witness: Annotated[bool, typer.Option("--witness", help="A key that cosigns checkpoints.")] = False,
) -> None:
    """Make a private key, readable by you alone, and print its public half.

    Example: wardround ledger keygen alpha -o alpha.key
    """
    key = desk.new_key(name, out, witness=witness)
    typer.echo(f"verifier key: {key.verifier.to_text()}")
    if not witness:
        typer.echo(f"record key:   {envelope.public_hex(key)}")


@app.command()
def sign(
    record: Annotated[
        Path, typer.Argument(help="JSON of a record (with its type), or an entry to sign as well.")
    ],
    key: KeyFile,
    out: Out,
) -> None:
    """Sign a record, or add a signature to one that others have signed.

    Example: wardround ledger sign charter.json --key alpha.key -o charter.alpha
    """
    desk.write_output(out, desk.sign(desk.read_input(record), desk.read_key(key)))
    typer.echo(f"{out} written")


@app.command()
def init(
    directory: Directory,
    charter: Annotated[Path, typer.Option(help="The charter, signed by every founding member.")],
    key: KeyFile,
) -> None:
    """Begin a log with its charter.

    Example: wardround ledger init run/log --charter charter.entry --key log.key
    """
    desk.init(directory, desk.read_input(charter), desk.read_key(key), int(time.time()))
    typer.echo(f"{directory} holds the charter; witnesses may now cosign {directory / 'checkpoint.pending'}")


@app.command()
def append(
    directory: Directory,
    entries: Annotated[list[Path], typer.Argument(help="Signed records, in order; they are one batch.")],
    key: Annotated[list[Path], typer.Option("--key", help="The log's key; the new one too when it changes.")],
    report_: Annotated[
        list[Path], typer.Option("--report", help="What a witness cosigned last, as `cosign -o` writes it.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Append signed records as one batch, if the rules allow them; all or nothing.

    A log that was closed asks its witnesses before it writes: they are its memory if it was restored from a backup.

    Example: wardround ledger append run/log dataset.entry --key log.key --report alpha.report --report bravo.report
    """
    batch, reports = ([desk.read_input(p) for p in paths] for paths in (entries, report_))
    size = desk.append(directory, batch, [desk.read_key(k) for k in key], reports, int(time.time()))
    typer.echo(f"{directory} has {size} entries; it waits for its witnesses' cosignatures")


@app.command()
def cosign(directory: Directory, key: KeyFile, out: Out) -> None:
    """Cosign the pending checkpoint as a witness, after replaying the whole log.

    Example: wardround ledger cosign run/log --key alpha-witness.key -o alpha.report
    """
    cosigned, final = desk.cosign(directory, desk.read_key(key), int(time.time()))
    desk.write_output(out, cosigned)
    state = "the checkpoint is final" if final else "the quorum is not reached yet"
    typer.echo(f"{out} written; {state}")


@app.command()
def example(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that does not exist yet.")],
) -> None:
    """Write a small but complete consortium's log with fixed keys and times: the same bytes every time.

    Example: wardround ledger example example-log
    """
    desk.write_example(directory)
    typer.echo(f"{directory} holds a log to try every other command on; its keys are public, never use them")


def _predecessor(where: str, predecessor: str) -> View:
    first = next(audit.entries(open_source(where), 1))
    previous = canonical.plain(envelope.parse_entry(first).record).get("previous")
    if previous is None:
        raise VerificationError(
            "this log begins with a charter: it follows no other, leave out --predecessor"
        )
    return audit.replay(open_source(predecessor), previous["size"])


def _json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


class _Progress:
    """Counts on standard error: in place on a terminal, every few seconds elsewhere; silent when it is quick."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + 1.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        live = sys.stderr.isatty()
        self._next = now + (0.2 if live else 5.0)
        print(f"{done:,} of {total:,} {self._what}", end="\r" if live else "\n", file=sys.stderr, flush=True)
