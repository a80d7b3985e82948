"""The restart decision: who must have reported, and what a witness that is ahead means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger import example
from ledger.checkpoint import Checkpoint, cosign
from ledger.merkle import leaf_hash, node_reader, root_hash
from ledger.note import Note, sign_note
from ledger.restart import MissingTail, Report, Succession, Verdict, Waiting, Writable, judge
from ledger.signature import KeyType, SigningKey
from ledger.state import WitnessSet

KEYS = list(example.WITNESSES.values())
SET = WitnessSet(
    since=0,
    log=example.LOG_KEY.verifier.to_text(),
    witnesses=tuple(sorted(key.verifier.to_text() for key in KEYS)),
    max_dishonest=1,
    quorum=4,
)
LEAVES = [leaf_hash(b"%d" % index) for index in range(20)]
FORK = [*LEAVES[:5], *(leaf_hash(b"other %d" % index) for index in range(15))]
OWN = 10


def note(
    size: int, witness: SigningKey | None, leaves: list[bytes] = LEAVES, log: SigningKey = example.LOG_KEY
) -> Note:
    checkpoint = Checkpoint(origin=example.ORIGIN, size=size, root=root_hash(leaves[:size]))
    signed = sign_note(checkpoint.to_text(), log)
    return signed if witness is None else signed.with_signatures(cosign(signed.text, witness, 1))


def saw(witness: int, size: int, leaves: list[bytes] = LEAVES) -> Report:
    key = KEYS[witness]
    return Report(witness=key.verifier, note=note(size, key, leaves) if size else None)


def judged(*reports: Report) -> Verdict:
    return judge(OWN, node_reader(LEAVES[:OWN]), [example.LOG_KEY.verifier], reports, SET)


def test_writable_once_a_quorum_has_reported_nothing_new() -> None:
    assert judged(saw(0, 10), saw(1, 3), saw(2, 0), saw(3, 10)) == Writable()


@pytest.mark.parametrize("count", range(4))
def test_below_the_quorum_it_waits(count: int) -> None:
    assert judged(*(saw(i, 10) for i in range(count))) == Waiting(more=4 - count, refused=())


def test_one_witness_reporting_five_times_is_one() -> None:
    assert judged(*(saw(0, size) for size in (1, 2, 3, 4, 0))) == Waiting(more=3, refused=())


@pytest.mark.parametrize("others", [0, 3])
def test_old_backup_one_witness_ahead_is_enough(others: int) -> None:
    verdict = judged(saw(0, 12), saw(1, 17), *(saw(i, 10) for i in range(2, 2 + others)))
    assert verdict == MissingTail(size=17, note=note(17, KEYS[1]))


def test_fork_below_the_own_size_is_a_succession() -> None:
    verdict = judged(saw(0, 7, FORK), *(saw(i, 10) for i in range(1, 5)))
    assert isinstance(verdict, Succession)
    assert verdict.evidence == (note(7, KEYS[0], FORK),)
    assert "another history of 7 entries" in verdict.reason


def test_fork_between_two_witnesses_ahead_is_a_succession() -> None:
    verdict = judged(saw(0, 15), saw(1, 15, FORK))
    assert isinstance(verdict, Succession)
    assert verdict.evidence == (note(15, KEYS[0]), note(15, KEYS[1], FORK))


def test_a_common_prefix_of_a_fork_is_no_conflict() -> None:
    assert judged(saw(0, 5, FORK), saw(1, 10), saw(2, 10), saw(3, 10)) == Writable()


def test_forged_reports_neither_count_nor_stop_the_log() -> None:
    stranger = example.key("stranger", "stranger.example", KeyType.COSIGNATURE)
    foreign_log = example.key("foreign log", example.ORIGIN)
    forged = (
        Report(witness=stranger.verifier, note=note(15, stranger)),
        Report(witness=stranger.verifier, note=None),
        Report(witness=KEYS[0].verifier, note=note(15, None)),  # not cosigned
        Report(witness=KEYS[0].verifier, note=note(15, KEYS[1])),  # by another
        Report(witness=KEYS[0].verifier, note=note(15, KEYS[0], FORK, foreign_log)),
    )
    verdict = judged(*forged, saw(1, 10), saw(2, 10))
    assert isinstance(verdict, Waiting)
    assert verdict.more == 2
    assert len(verdict.refused) == len(forged)
    assert judged(*forged, *(saw(i, 10) for i in range(1, 5))) == Writable()


def test_another_log_of_the_same_keys_is_no_report() -> None:
    other = Checkpoint(origin="ledger.example/other", size=15, root=root_hash(LEAVES[:15]))
    signed = sign_note(other.to_text(), example.LOG_KEY)
    report = Report(witness=KEYS[0].verifier, note=signed.with_signatures(cosign(signed.text, KEYS[0], 1)))
    verdict = judged(report)
    assert isinstance(verdict, Waiting)
    assert verdict.more == 4


def test_a_checkpoint_under_a_newer_log_key_counts_when_the_log_holds_it() -> None:
    new = example.key("new log key", example.ORIGIN)
    report = Report(witness=KEYS[0].verifier, note=note(15, KEYS[0], LEAVES, new))
    keys = [example.LOG_KEY.verifier, new.verifier]
    verdict = judge(OWN, node_reader(LEAVES[:OWN]), keys, [report], replace(SET, quorum=1))
    assert isinstance(verdict, MissingTail)


def test_a_log_without_entries_asks_its_witnesses_too() -> None:
    verdict = judge(0, node_reader([]), [example.LOG_KEY.verifier], [saw(0, 0)], replace(SET, quorum=1))
    assert verdict == Writable()
