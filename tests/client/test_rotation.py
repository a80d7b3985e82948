"""A member's next keys: which are in force is what the log says, whatever a crash left in the folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from client import rotation
from client.errors import ProposalError
from client.private_file import remove_private, write_private
from client.rotation import Wanted
from ledger import envelope, example, rules
from ledger.envelope import parse_entry
from ledger.signature import VerifierKey
from ledger.state import EMPTY, State
from ledger.values import KeyChange
from tests.client import hospital_folder
from tests.client.fake_coordinator import follow
from tests.client.test_agent import Scene

BOTH = Wanted(identity=True, witness=True, stolen=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hospital_folder.write(tmp_path / "alpha")
    return tmp_path / "alpha"


def founded() -> State:
    return rules.apply(EMPTY, parse_entry(envelope.sign(example.charter(), *example.KEYS.values())))


def voted(state: State, folder: Path, wanted: Wanted) -> State:
    record, signers = rotation.amendment(folder, state, "alpha", wanted)
    voters = [key for name, key in example.KEYS.items() if name in ("bravo", "charlie", "delta", "echo")]
    signed = [*voters, *(k for k in signers if envelope.public_hex(k) not in record.revoke)]
    return rules.apply(state, parse_entry(envelope.sign(record, *signed)))


def test_keys_come_into_force_with_the_log_and_not_before(folder: Path) -> None:
    state = founded()
    old = (folder / "keys" / "identity.key").read_text()
    record, _ = rotation.amendment(folder, state, "alpha", BOTH)
    assert rotation.amendment(folder, state, "alpha", BOTH)[0] == record  # the same keys when asked again
    assert not rotation.settle(folder, state, "alpha")
    assert (folder / "keys" / "identity.key").read_text() == old
    after = voted(state, folder, BOTH)
    assert rotation.settle(folder, after, "alpha")
    member = after.member("alpha")
    assert member is not None
    key = rotation.candidates(folder)[0]
    assert envelope.public_hex(key) == member.key
    assert not rotation.waiting(folder)
    assert not rotation.settle(folder, after, "alpha")


def test_a_crash_between_two_keys_is_put_right(folder: Path) -> None:
    state = founded()
    after = voted(state, folder, BOTH)
    crashed = folder.with_name("crashed")
    shutil.copytree(folder, crashed)
    (crashed / "keys" / "identity.key.next").replace(crashed / "keys" / "identity.key")  # and then it died
    assert rotation.settle(folder, after, "alpha")
    assert rotation.settle(crashed, after, "alpha")
    for name in ("identity.key", "witness.key"):
        assert (crashed / "keys" / name).read_text() == (folder / "keys" / name).read_text()


def test_attack_coordinator_shows_a_rotation_that_never_becomes_final(folder: Path) -> None:
    """The agent goes on with the new keys, and with the old ones again: no lock-out from the log that lives."""
    state, files = founded(), ("identity.key", "witness.key")
    old = [(folder / "keys" / name).read_text() for name in files]
    forked = voted(state, folder, BOTH)
    assert rotation.settle(folder, forked, "alpha")
    new = [(folder / "keys" / name).read_text() for name in files]
    assert set(new).isdisjoint(old)
    assert rotation.settle(folder, state, "alpha")
    assert [(folder / "keys" / name).read_text() for name in files] == old
    assert rotation.waiting(folder)  # the same keys may be voted for again
    assert rotation.settle(folder, forked, "alpha")
    assert [(folder / "keys" / name).read_text() for name in files] == new


@pytest.mark.parametrize("call", range(1, 9))
def test_killed_at_any_write_of_a_key_the_next_look_puts_it_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    after = voted(founded(), folder, BOTH)
    real: tuple[Callable[..., None], ...] = (write_private, remove_private)
    calls = 0

    def dies(number: int, path: Path, *data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        real[number](path, *data)

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(rotation, "write_private", partial(dies, 0))
        patched.setattr(rotation, "remove_private", partial(dies, 1))
        rotation.settle(folder, after, "alpha")
    rotation.settle(folder, after, "alpha")
    member = after.member("alpha")
    assert member is not None
    assert envelope.public_hex(rotation.candidates(folder)[0]) == member.key
    assert not rotation.waiting(folder)


def test_a_stolen_key_is_revoked_by_the_others_alone(folder: Path) -> None:
    state = founded()
    stolen = Wanted(identity=True, witness=False, stolen=True)
    record, signers = rotation.amendment(folder, state, "alpha", stolen)
    assert record.revoke == (envelope.public_hex(example.KEYS["alpha"]),)
    assert signers[0] == example.KEYS["alpha"]  # shows who proposes; it has no vote
    assert voted(state, folder, stolen).keys[record.revoke[0]].revoked


def test_a_restored_folder_does_not_propose_with_keys_of_the_past(folder: Path) -> None:
    other = example.key("alpha's other", "alpha")
    record = replace(
        rotation.departure(founded(), "echo"), remove=(),
        rotate=(KeyChange(member="alpha", key=envelope.public_hex(other), witness=""),), quorum=4,
    )  # fmt: skip
    voters = [key for name, key in example.KEYS.items() if name in ("bravo", "charlie", "delta", "echo")]
    state = founded()
    record = replace(record, quorum=state.witness_sets[-1].quorum)
    after = rules.apply(state, parse_entry(envelope.sign(record, *voters, other)))
    with pytest.raises(ProposalError, match="not this member's key on the log"):
        rotation.amendment(folder, after, "alpha", BOTH)


def test_who_cannot_leave() -> None:
    with pytest.raises(ProposalError, match="coordinator cannot leave"):
        rotation.departure(founded(), "coordinator")
    with pytest.raises(ProposalError, match="no member"):
        rotation.departure(founded(), "nobody")


def test_a_running_agent_goes_on_with_the_new_keys(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    folder = scene.hospital.folder
    with scene.agent() as agent:
        follow(agent)
        sight = agent.sight
        assert sight is not None
        record, (old, new) = rotation.amendment(folder, sight.state, "alpha", BOTH)
        consortium = scene.coordinator.consortium
        consortium.append(record, *consortium.voters(), new)
        scene.coordinator.publish()
        agent.follow_once()
        agent._enrol()  # what its thread does: it returns, because the keys are others now
        assert agent.renewed
    with scene.agent() as again:
        again.follow_once()
        assert again.handle is not None
        assert not again.renewed
    line = scene.coordinator.lines[-1][1]
    member = consortium.state.member("alpha")
    assert member is not None
    assert line.key_id == VerifierKey.from_text(member.witness).key_id
    assert old != new
    scene.coordinator.close()
