"""`wardround demo`: a whole consortium on one machine, as separate processes over TLS, from founding to verification.

The processes are started by the commands that a coordinator's and a hospital's people would type; from then on this
module is the researcher, and a spectator: what it shows comes from the coordinator's status and the log's own files.
"""

from __future__ import annotations

import json
import random
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

import wardround_display
import wardround_processes
from client.demo_data import DEMOS
from coordinator import evidence_check
from coordinator.errors import CoordinatorError
from coordinator.status_page import signing
from ledger import audit, envelope
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.note import Note
from ledger.record import Record
from ledger.records import Dataset
from ledger.source import open_source
from wardround_demo_setup import DemoError, Setup, agreement, job, prepare

READY_SECONDS = 240  # how long a process may take until it does what it was started for
RUN_SECONDS = 900
STOP_SECONDS = 10
POLL_SECONDS = 0.2

app = typer.Typer(pretty_exceptions_enable=False)  # the help is that of `demo`


@app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    data: Annotated[str, typer.Option(help=f"Which patients: {' or '.join(DEMOS)}.")] = "breast-cancer",
    source: Annotated[Path | None, typer.Option(help="Folder of the UCI files, for heart-disease.")] = None,
    directory: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("demo-run"),
    port: Annotated[int, typer.Option(help="The coordinator's port; 0 takes a free one.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the final status as JSON.")] = False,
) -> None:
    """Run the main job: one coordinator, four hospitals, 30 rounds under differential privacy, every one on record.

    Example: wardround demo --data heart-disease --source heart_disease
    """
    if context.invoked_subcommand is not None:
        return
    if data not in DEMOS:
        raise typer.BadParameter(f"choose {' or '.join(DEMOS)}", param_hint="--data")
    began = time.monotonic()
    setup = prepare(directory, DEMOS[data], source, port or wardround_processes.free_port())
    with _processes(setup) as check:
        found = _run(setup, check, wardround_display.Display(quiet=as_json), began)
    run, before_audit = setup.coordinator / "runs" / found["job"]["digest"], time.monotonic()
    verified = evidence_check.verify(run / "evidence", charter=setup.charter.digest())
    done = time.monotonic()
    phases = {**found["phases"], "verification": done - before_audit, "in all": done - began}
    if as_json:
        typer.echo(json.dumps({**found, "phases": phases, "run": str(run)}, indent=2))
        return
    _show_end(setup, run, verified, phases)


def _show_end(setup: Setup, run: Path, verified: evidence_check.Verified, phases: dict[str, float]) -> None:
    typer.echo("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.items()))
    evidence = run / "evidence"
    verify = ["ledger", "verify", f"{evidence}/log", "--policy", f"{evidence}/trust.policy"]
    verify += ["--charter", setup.charter.digest()]
    typer.echo(f"\n$ wardround {' '.join(verify)}")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "wardround", *verify], check=True)
    typer.echo(f"\n$ wardround evidence verify {evidence}  (beyond the above)")
    for line in verified.established():
        if "computed again" in line or "limits" in line or "metrics" in line or "released file" in line:
            typer.echo(f"  + {line}")
    hospital = setup.hospital(setup.settings.hospitals[0])
    typer.echo(f"""
The released model, its card and the evidence are in {run}
Next, try
  wardround ledger show {evidence}/log --type round          every round on the record
  wardround demo tamper {evidence}    flip one bit in a copy, and watch the verification fail
  wardround predict {run}/model.safetensors {hospital}/patients.csv
  wardround hospital budget {hospital}                   what one hospital has spent, and on what
  less {run}/card.md                                     the model card""")


@app.command()
def tamper(
    directory: Annotated[Path, typer.Argument(help="An evidence folder.")],
) -> None:
    """Flip one bit in a copy of the evidence, and watch the verification fail.

    Example: wardround demo tamper demo-run/coordinator/runs/*/evidence
    """
    copy = directory.with_name(f"{directory.name}-tampered")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy)
    bundles = [p for p in (copy / "log" / "tile" / "entries").rglob("*") if p.is_file()]
    victim = max(bundles, key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    place = random.SystemRandom().randrange(len(content))
    content[place] ^= 1
    victim.write_bytes(content)
    typer.echo(f"flipped one bit of byte {place} in {victim}; verifying that copy:")
    try:
        evidence_check.verify(copy)
    except (CoordinatorError, LedgerError) as error:
        typer.echo(f"error: {error}")
        return
    raise DemoError("the altered evidence passed: please report this")


def _run(
    setup: Setup, check: Callable[[], None], display: wardround_display.Display, began: float
) -> dict[str, Any]:
    """Play the researcher: agree, propose, watch until the model is released; return the job's last status."""
    with ExitStack() as stack:
        context = ssl.create_default_context(cafile=setup.coordinator / "tls" / "ca.pem")
        http = stack.enter_context(
            httpx.Client(
                base_url=setup.url,
                verify=context,
                timeout=10,
                trust_env=False,
                auth=signing(setup.keys["researcher"]),
            )
        )
        stack.enter_context(display)
        display.say("a coordinator and four hospitals start; each hospital offers its dataset")
        wanted = len(setup.settings.hospitals)
        datasets = _wait(check, READY_SECONDS, lambda: _datasets(setup, wanted), "the hospitals' offers")
        agreed = agreement(setup, datasets)
        _post(http, envelope.sign(agreed, *(setup.keys[name] for name in agreed.parties)))
        proposed = job(setup, agreed)
        _post(http, envelope.sign(proposed, setup.keys["researcher"]))
        display.say("the researcher proposes the job; each hospital's policy decides")
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            check()
            if (status := _status(http)) is not None:
                display.update(status, time.monotonic() - began)
                own = next((j for j in status["jobs"] if j["digest"] == proposed.digest()), None)
                if own is not None and own["status"] in ("cancelled", "expired", "below-minimum"):
                    raise DemoError(f"the job ended: {own['status']}; see output.log below {setup.directory}")
                if (
                    own is not None
                    and own["status"] == "finished"
                    and _settled(setup, proposed.digest(), status)
                ):
                    return {"job": own, "log": status["log"], "phases": status["phases"]}
            time.sleep(POLL_SECONDS)
    raise DemoError(f"the job did not finish within {RUN_SECONDS} s; see output.log below {setup.directory}")


def _settled(setup: Setup, job: str, status: dict[str, Any]) -> bool:
    done = (setup.coordinator / "runs" / job / "evidence").is_dir()
    return done and bool(status["log"]["final_size"] == status["log"]["size"])


def _processes(setup: Setup) -> AbstractContextManager[Callable[[], None]]:
    hospitals = {name: setup.hospital(name) for name in setup.settings.hospitals}
    return wardround_processes.running(setup.coordinator, hospitals)


def _wait(
    check: Callable[[], None], seconds: float, ask: Callable[[], list[Record] | None], what: str
) -> list[Record]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check()
        if (found := ask()) is not None:
            return found
        time.sleep(POLL_SECONDS)
    raise DemoError(f"{what} did not come within {seconds:.0f} s")


def _datasets(setup: Setup, wanted: int) -> list[Record] | None:
    """Return the dataset records once all are on the log."""
    read = open_source(str(setup.coordinator / "log"))
    size = Checkpoint.from_text(Note.from_bytes(read("checkpoint.pending")).text).size
    found = [envelope.parse_entry(data).record for data in audit.entries(read, size)]
    offers: list[Record] = [r for r in found if isinstance(r, Dataset)]
    return offers if len(offers) == wanted else None


def _post(http: httpx.Client, entry: bytes) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        with suppress(httpx.TransportError):
            answer = http.post("/api/records", content=entry)
            if answer.is_success:
                return
            if answer.status_code not in (429, 503) or time.monotonic() > deadline:
                raise DemoError(f"the coordinator refused a record: {answer.text[:300]}")
        if time.monotonic() > deadline:
            raise DemoError("the coordinator does not answer")
        time.sleep(POLL_SECONDS)


def _status(http: httpx.Client) -> dict[str, Any] | None:
    try:
        answer = http.get("/api/status")
    except httpx.TransportError:
        return None
    return answer.json() if answer.is_success else None
