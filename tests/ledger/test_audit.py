"""The audit of a whole log: what it establishes, and that nothing altered passes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import example, finality
from ledger.audit import Audit, audit, replay
from ledger.errors import LedgerError, RuleError, StorageError, VerificationError
from ledger.policy import Group, Log, Policy
from ledger.report import established, not_established
from ledger.signature import KeyType
from ledger.source import open_source
from tests.ledger.consortium import Consortium
from tests.ledger.log_folder import WITNESSES, LogFolder, running


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Consortium]:
    """A log with a finished job and one kept checkpoint a batch."""
    folder = LogFolder(tmp_path_factory.mktemp("audit") / "log")
    consortium, job = running()
    folder.publish(consortium)
    consortium.finish(job)
    folder.publish(consortium)
    consortium.append(consortium.release(job))
    consortium.append(consortium.ended(job))
    folder.publish(consortium)
    folder.store.close()
    copy = folder.path.parent / "copy"
    shutil.copytree(folder.path, copy, ignore=shutil.ignore_patterns("log.sqlite*", "*lock*"))
    return copy, consortium


def audited(path: Path) -> Audit:
    return audit(open_source(str(path)))


def test_a_finished_log(finished: tuple[Path, Consortium]) -> None:
    path, consortium = finished
    policy = finality.trust_policy(consortium.state.witness_sets[-1])
    seen = list[tuple[int, int]]()
    charter = example.charter().digest()
    result = audit(
        open_source(str(path)), policy=policy, charter=charter, progress=lambda a, b: seen.append((a, b))
    )
    assert result.view == consortium.view
    assert seen[-1] == (consortium.view.size, consortium.view.size)
    assert result.signatures == sum(len(e.signatures) for e in consortium.entries)
    assert len(result.times) == 5
    said = " ".join(established(result))
    assert charter in said
    assert "finished" in said
    assert "5 witnesses" in said
    assert "add/remove one patient" in said
    assert not any("telephone" in line for line in not_established(result))
    assert any("telephone" in line for line in not_established(audited(path)))


def test_any_flipped_bit_of_any_file_is_found(finished: tuple[Path, Consortium]) -> None:
    path, _ = finished
    files = sorted(
        p
        for p in path.rglob("*")
        # of partial tiles only those of the final size are the log's: older ones are left-overs of a cache
        if p.is_file()
        and p.name != "checkpoint.pending"
        and (".p" not in str(p) or p.name == str(size_of(path)))
    )
    assert len(files) >= 6

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(files), st.integers(0), st.integers(0, 7))
    def flip(file: Path, position: int, bit: int) -> None:
        original = file.read_bytes()
        altered = bytearray(original)
        altered[position % len(original)] ^= 1 << bit
        file.write_bytes(altered)
        try:
            with pytest.raises(LedgerError) as caught:
                audited(path)
            assert "\n" not in str(caught.value)
        finally:
            file.write_bytes(original)

    flip()
    audited(path)


def size_of(path: Path) -> int:
    return int((path / "checkpoint").read_text().split("\n")[1])


@pytest.mark.parametrize("name", ["checkpoint", "tile/entries", "tile/0"])
def test_missing_and_truncated_files(finished: tuple[Path, Consortium], tmp_path: Path, name: str) -> None:
    path = tmp_path / "copy"
    shutil.copytree(finished[0], path)
    target = path / name
    file = target if target.is_file() else target / "000.p" / str(size_of(path))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(LedgerError):
        audited(path)
    file.unlink()
    with pytest.raises(VerificationError, match="missing"):
        audited(path)


def test_another_consortiums_charter(finished: tuple[Path, Consortium]) -> None:
    with pytest.raises(VerificationError, match="another consortium"):
        audit(open_source(str(finished[0])), charter="0" * 64)


def test_a_policy_that_this_log_does_not_satisfy(finished: tuple[Path, Consortium]) -> None:
    path, consortium = finished
    policy = finality.trust_policy(consortium.state.witness_sets[-1])
    foreign = Policy(
        logs=(Log(key=example.key("thief", example.ORIGIN).verifier),),
        witnesses=policy.witnesses,
        groups=policy.groups,
        quorum=policy.quorum,
    )
    with pytest.raises(VerificationError, match="not signed"):
        audit(open_source(str(path)), policy=foreign)
    strangers = tuple(
        type(w)(name=w.name, key=type(w.key)(name=w.key.name, type=w.key.type, public=bytes([i]) * 32))
        for i, w in enumerate(policy.witnesses)
    )
    group = Group(name="all", threshold=5, members=tuple(w.name for w in strangers))
    unmet = Policy(logs=policy.logs, witnesses=strangers, groups=(group,), quorum="all")
    with pytest.raises(VerificationError, match="quorum"):
        audit(open_source(str(path)), policy=unmet)


def test_a_quorum_that_was_never_reached(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path / "log")
    consortium, _ = running()
    folder.publish(consortium, witnesses=WITNESSES[:3])
    with pytest.raises(VerificationError, match="quorum"):
        audit(folder.read)
    folder.store.close()


def test_a_rule_broken_in_the_middle_names_the_entry(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path / "log")
    consortium, job = running()
    entries = [e.data for e in consortium.entries]
    forged = consortium.entry(consortium.abort(job, round=7))
    folder.publish_entries([*entries, forged.data], witnesses=WITNESSES)
    with pytest.raises(RuleError, match=f"entry {len(entries)}") as caught:
        audit(folder.read)
    assert caught.value.rule == "round.consecutive"
    folder.store.close()


def amended(folder: LogFolder, *, witnessed_by_both: bool) -> Consortium:
    """A log on which one hospital left and another joined; only the new witnesses sign later on."""
    consortium = Consortium.founded()
    folder.publish(consortium)
    joined = consortium.member("foxtrot")
    change = consortium.amendment(add=(joined,), remove=("echo",))
    consortium.append(change)
    fresh = example.key(f"foxtrot witness {7 + 1} 1", "foxtrot.example/witness", KeyType.COSIGNATURE)
    assert fresh.verifier.to_text() == joined.witness
    remaining = [key for name, key in example.WITNESSES.items() if name != "echo"]
    old = WITNESSES if witnessed_by_both else remaining[:3]
    folder.publish(consortium, witnesses=[*old, fresh])
    consortium.append(consortium.tick())
    folder.publish(consortium, witnesses=[*remaining, fresh])
    return consortium


def test_an_amendment_is_followed_through_the_kept_checkpoints(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path / "log")
    consortium = amended(folder, witnessed_by_both=True)
    result = audit(folder.read)
    assert result.view == consortium.view
    assert "foxtrot.example/witness" in result.times
    folder.store.close()


def test_an_amendment_without_the_old_quorum(tmp_path: Path) -> None:
    """A stolen log key and a majority of new witnesses must not be able to take the consortium over."""
    folder = LogFolder(tmp_path / "log")
    amended(folder, witnessed_by_both=False)
    with pytest.raises(VerificationError, match="quorum"):
        audit(folder.read)
    folder.store.close()


def test_a_succession_is_audited_with_its_predecessor(tmp_path: Path) -> None:
    old = LogFolder(tmp_path / "old")
    consortium, _ = running()
    early = consortium.view.size - 3
    old.publish_entries([e.data for e in consortium.entries[:early]])
    old.publish(consortium)
    record = consortium.succession()
    after = consortium.succeed(record)
    key = example.key(f"log of {record.origin}", record.origin)
    new = LogFolder(tmp_path / "new", [key])
    new.publish(after)
    with pytest.raises(VerificationError, match="--predecessor"):
        audit(new.read)
    predecessor = replay(old.read, consortium.view.size)
    assert audit(new.read, predecessor=predecessor).predecessor == example.ORIGIN
    with pytest.raises(RuleError, match=r"succession\.previous"):
        audit(new.read, predecessor=replay(old.read, early))
    old.store.close()
    new.store.close()


def test_an_empty_place(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no directory"):
        open_source(str(tmp_path / "nowhere"))
    with pytest.raises(VerificationError, match="checkpoint is missing"):
        audited(tmp_path)
