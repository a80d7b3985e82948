"""Founding with the real commands over TLS on loopback: invited, joined, compared, signed, running, verified.

`WARDROUND_JOIN_KILLS` says how often a joining is killed at random instead of three times.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from client import config
from client.errors import PostRefusedError
from client.member import load as load_member
from client.proposals import propose
from ledger import canonical, envelope
from ledger.records import Amendment, Charter, Incident
from ledger.signature import SigningKey
from tests.end_to_end.consortium_process import (
    HOSPITALS,
    ORIGIN,
    RESEARCHER,
    Output,
    Place,
    finish,
    start,
    until,
    wardround,
)

KILLS = int(os.environ.get("WARDROUND_JOIN_KILLS", "3"))


@dataclass(frozen=True)
class Founded:
    place: Place
    coordinator: Output
    shown: dict[str, str]  # the digest on each founder's screen


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Founded]:
    place = Place(tmp_path_factory.mktemp("consortium"))
    place.init()
    with place.up() as coordinator:
        shown = place.found()
        coordinator.wait_for("ready for hospitals")
        yield Founded(place, coordinator, shown)


def test_founding_by_invitation_with_the_digest_compared(founded: Founded) -> None:
    place = founded.place
    (digest,) = set(founded.shown.values())  # what people read to each other is the same everywhere
    assert "founded: entry 0" in founded.coordinator.text()
    assert place.records()[0].digest() == digest
    for name in place.invitations:
        assert place.charter_of(name) == digest
        assert not (place.member(name) / "joining.json").exists()
        for path in place.member(name).rglob("*"):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    for name in HOSPITALS:
        assert config.load(place.member(name)).policy.approve == "ask"
    assert (place.member(RESEARCHER) / "member.toml").exists()
    until(lambda: len(list((place.coordinator / "nodes").glob("*.pub"))) == 3, "the nodes' keys")
    again = wardround("hospital", "join", place.member("northgate"), place.invitations["northgate"], status=1)
    assert "has joined already" in again


def decide(place: Place, *voters: str) -> None:
    """Let members sign whatever is open."""
    listed = json.loads(wardround("member", "proposals", place.member(voters[0]), "--json"))
    (digest,) = [p["digest"] for p in listed if not p["ended"]]
    for name in voters:
        shown = wardround("member", "show", place.member(name), digest[:12])
        assert "signatures are needed" in shown
        wardround("member", "sign", place.member(name), digest[:16], "--yes")


def test_a_consortium_changes(founded: Founded, tmp_path: Path) -> None:
    """A hospital joins by vote, keys are replaced, a stolen one is revoked, a member leaves; all of it verified."""
    place, charter = founded.place, founded.shown[RESEARCHER]
    # a later hospital joins by vote
    place.invite("southbank", "hospital")
    assert place.invitation("southbank").charter == charter
    joining = Output(place.join("southbank"))
    joining.wait_for("waiting for the hospitals' votes")
    decide(place, "northgate", "riverside")
    joining.succeed()
    assert place.charter_of("southbank") == charter
    nodes = place.coordinator / "nodes"
    until(lambda: (nodes / "southbank.pub").exists(), "the newcomer's node")
    # its node key is replaced without a vote
    before = (nodes / "southbank.pub").read_text()
    wardround("member", "rotate", place.member("southbank"), "--node")
    assert (nodes / "southbank.pub").read_text() != before
    # a stolen identity key is revoked: what the thief signs is refused
    thief = tmp_path / "thief"
    shutil.copytree(place.member("northgate"), thief)
    rotating = Output(start("member", "rotate", place.member("northgate"), "--stolen"))
    rotating.wait_for("waiting for the votes")
    decide(place, "riverside", "eastfield", "southbank")
    rotating.wait_for("the new keys are in force")
    rotating.succeed()
    assert not list((place.member("northgate") / "keys").glob("*.next"))
    assert "does not take this member's requests" in wardround("member", "proposals", thief, status=1)
    stolen = SigningKey.from_text((thief / "keys" / "identity.key").read_text().strip())
    with closing(load_member(place.member(RESEARCHER)).connect()) as door:
        forged = Incident(origin=ORIGIN, member="northgate", code="forged", evidence="0" * 64)
        with pytest.raises(PostRefusedError, match="expected the signature"):
            door.post_record(envelope.sign(forged, stolen))
        theft = Amendment(
            origin=ORIGIN, replaces=3, add=(), remove=("uni",), rotate=(), revoke=(), max_dishonest=0,
            quorum=3, log="", rules=1,
        )  # fmt: skip
        with pytest.raises(PostRefusedError, match="a member must sign"):
            propose(door, theft, stolen)
    # a member leaves; its own vote counts
    wardround("member", "leave", place.member("eastfield"))
    decide(place, "northgate", "southbank")
    until(lambda: not (nodes / "eastfield.pub").exists(), "the leaver's node")
    assert "does not take" in wardround("member", "proposals", place.member("eastfield"), status=1)
    shown = wardround("coordinator", "members", place.coordinator)
    assert "member eastfield (hospital): has left" in shown
    assert "member southbank (hospital): member; identity key 0 days old" in shown
    assert [record.TYPE for record in place.records()] == ["charter", "amendment", "amendment", "amendment"]
    # verified from outside, by the digest that was compared, once the witnesses have cosigned
    founded.coordinator.end()
    log, policy = place.coordinator / "log", tmp_path / "trust.policy"
    for name in ("northgate", "southbank", "riverside"):
        key, report = place.member(name) / "keys" / "witness.key", tmp_path / f"{name}.report"
        wardround("ledger", "cosign", log, "--key", key, "-o", report)
    wardround("ledger", "policy", log, "-o", policy)
    assert "4 entries" in wardround("ledger", "verify", log, "--policy", policy, "--charter", charter)


def test_joining_that_is_killed_again_and_again_goes_on(tmp_path: Path) -> None:
    """kill -9 at random points: the same command goes on with the same keys, and nothing is left half-written."""
    place = Place(tmp_path)
    place.init(invite={"northgate": "hospital"})
    chance = random.Random(KILLS)
    folder, keys = place.member("northgate"), set()
    with place.up():
        for _ in range(KILLS):
            digest = place.draft()
            process = place.join("northgate", *(("--yes", digest) if digest else ()))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.5, 6.0))
            process.kill()
            process.communicate()
            if (folder / "joining.json").exists():
                state = canonical.loads((folder / "joining.json").read_bytes(), 1 << 20)
                assert isinstance(state, dict)
                keys.add(state["identity"])
        if (folder / "hospital.toml").exists() and not (folder / "joining.json").exists():
            said = "has joined"  # it was over before it was killed
        else:
            if not place.draft():  # never came so far as to deposit
                first = Output(place.join("northgate", typed=""))
                first.wait_for("sixteen groups")
                first.end(signal.SIGKILL)
            said = finish(place.join("northgate", "--yes", place.draft()))
        assert "has joined" in said
        until(lambda: len(place.records()) == 1, "the log")
    key = (folder / "keys" / "identity.key").read_text().strip()
    assert keys <= {key}  # one set of keys, however often it was killed
    (charter,) = place.records()
    assert isinstance(charter, Charter)
    member = next(m for m in charter.terms.members if m.name == "northgate")
    assert member.key == envelope.public_hex(SigningKey.from_text(key))
    assert charter.digest() == place.charter_of("northgate")
    assert not [p for p in folder.rglob("*") if p.name.endswith(".tmp") and p.parent == folder]
