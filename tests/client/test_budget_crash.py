"""An agent killed at random moments: nothing released is missing from the account, nothing is charged twice.

A child process charges, "trains", stores and "sends" round after round. What it sends it first appends to a
witness file, synced, after the account's call returned, as a reply leaves a hospital. It is killed at random
moments, started again, and the account is compared with the witness. `WARDROUND_KILLS` sets how often.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from client import accounting
from client.accounting import Event
from client.budget import Account

KILLS = int(os.environ.get("WARDROUND_KILLS", "25"))
DATASET = "st-ives/heart"

AGENT = """
import json, os, sys
from pathlib import Path
from client.accounting import Event
from client.budget import Account

witness = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
os.ftruncate(witness, os.pread(witness, 1 << 30, 0).rfind(b"\\n") + 1)  # a line cut short by a kill never left
def note(**line):
    os.write(witness, json.dumps(line).encode() + b"\\n")
    os.fsync(witness)

print("up", flush=True)
account = Account.open(Path(sys.argv[1]))
account.register("st-ives/heart", 5000.0, 1e-3)
newest = account.newest("st-ives/heart")
number = newest.round if newest else 1  # the round that was perhaps interrupted
event = Event(noise_multiplier=9.0, sample_rate=1.0, count=1)
while True:
    charge = account.charge(dataset="st-ives/heart", job="j", round_number=number, model_digest="m", training=[event],
                            heldout=[event] if number % 5 == 0 else [], delta=1e-3, production=True)
    note(charged=number, epsilon=charge.epsilon_dataset)
    if charge.reply is not None:
        note(sent=number, update=charge.reply.update.hex())
    elif not charge.repeated:
        update = os.urandom(2000)  # a second training would send other bytes
        account.store_reply(charge, update=update, receipt=b"r", metrics=b"", production=True)
        note(sent=number, update=update.hex())
    number += 1
"""


def run_and_kill(path: Path, witness: Path, delay: float) -> None:
    child = subprocess.Popen([sys.executable, "-c", AGENT, path, witness], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL  # it was alive: no error of its own


def lines(witness: Path) -> list[dict[str, str | int]]:
    """The witness's notes; a line cut short by the kill never left, and the next agent removes it."""
    if not witness.exists():
        return []
    return [json.loads(line) for line in witness.read_text().split("\n")[:-1]]


def check(path: Path, witness: Path) -> int:
    account = Account.open(path)
    statements = account.history()
    charges = {c.round: c for c in statements[0].charges} if statements else {}
    assert list(charges) == [c.number for c in charges.values()] == list(range(1, len(charges) + 1))
    sent: dict[int, str] = {}
    for note in lines(witness):
        round_number = int(note.get("charged", note.get("sent", 0)))
        assert round_number in charges  # the account never falls below what was released
        if "sent" in note:
            assert charges[round_number].answered
            assert sent.setdefault(round_number, str(note["update"])) == note["update"]  # one attempt a round
    for side, rounds in (("training", list(charges)), ("heldout", [r for r in charges if r % 5 == 0])):
        charged = account.events(DATASET, side)
        assert sum(e.count for e in charged) == len(rounds)  # nothing half written, nothing charged twice
    if sent:
        released = [Event(noise_multiplier=9.0, sample_rate=1.0, count=len(sent))]
        assert float(account.spent(DATASET)) >= accounting.filter_epsilon(released, 1e-3)
    stated = [float(c.epsilon_dataset) for c in charges.values()]
    assert stated == sorted(stated)
    account.close()
    return len(charges)


def test_killing_the_agent_at_any_moment_never_loses_a_charge(tmp_path: Path) -> None:
    path, witness = tmp_path / "agent" / "account.sqlite", tmp_path / "witness"
    draw = random.Random()
    charged = 0
    for _ in range(KILLS):
        run_and_kill(path, witness, draw.choice([draw.uniform(0, 0.01), draw.uniform(0, 0.08)]))
        if path.exists():
            charged = check(path, witness)
    assert charged > KILLS // 5, "the agent was killed before it did anything: nothing was tested"
    print(f"{KILLS} kills, {charged} charges, {sum('sent' in n for n in lines(witness))} replies sent")


def test_a_kill_between_charge_and_reply_is_found(tmp_path: Path) -> None:
    """The loop above can fail: a charge without a reply is seen as such."""
    path, witness = tmp_path / "account.sqlite", tmp_path / "witness"
    account = Account.open(path)
    account.register(DATASET, 5000.0, 1e-3)
    account.charge(
        dataset=DATASET,
        job="j",
        round_number=1,
        model_digest="m",
        training=[Event(noise_multiplier=9.0, sample_rate=1.0, count=1)],
        heldout=[],
        delta=1e-3,
        production=True,
    )
    account.close()
    run_and_kill(path, witness, 0.5)
    notes = lines(witness)
    assert notes[0]["charged"] == 1
    assert not any(note.get("sent") == 1 for note in notes)
    assert any(note.get("sent") == 2 for note in notes)
    check(path, witness)
