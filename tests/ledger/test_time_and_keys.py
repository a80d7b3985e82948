"""The moments that PROTOCOL.md names: which key, membership, agreement and time counts when."""

from __future__ import annotations

from ledger import envelope
from tests.ledger.consortium import DAY, Consortium


def rotate(c: Consortium, name: str, *, stolen: bool = False) -> None:
    old = envelope.public_hex(c.key_of(name))
    c.append(c.amendment(rotate=(c.rotation(name),), revoke=(old,) if stolen else ()))


def test_key_rotated_during_a_round_the_old_key_signs_its_receipt(running: tuple[Consortium, str]) -> None:
    c, job = running
    old = c.key_of("alpha")
    rotate(c, "alpha")
    assert c.refuses(c.receipt("alpha", job)) == "record.signers"  # the new key counts from the next round
    c.append(c.receipt("alpha", job), old)
    c.receive(job, ["bravo", "charlie"])
    c.append(c.round_(job))
    assert c.refuses(c.receipt("alpha", job), old) == "record.signers"
    c.play(job)


def test_key_rotated_during_a_round_other_records_need_the_new_key(running: tuple[Consortium, str]) -> None:
    c, job = running
    old = c.key_of("alpha")
    rotate(c, "alpha")
    assert c.refuses(c.skip("alpha", job), old) == "record.signers"
    c.append(c.skip("alpha", job))


def test_key_revoked_during_a_round_its_receipt_is_left_out_as_revoked(
    running: tuple[Consortium, str],
) -> None:
    c, job = running
    stolen = c.key_of("alpha")
    rotate(c, "alpha", stolen=True)
    assert c.refuses(c.receipt("alpha", job), stolen) == "record.signers"
    assert c.refuses(c.receipt("alpha", job)) == "record.signers"
    c.receive(job, ["bravo", "charlie"])
    for code in ("late", "unreachable", "withdrawn", "removed", "expired", "skipped"):
        assert c.refuses(c.round_(job, {"alpha": code})) == "round.reasons"
    c.append(c.round_(job, {"alpha": "revoked"}))
    c.play(job)  # with its new key the hospital is back


def test_key_revoked_before_the_round_does_not_excuse(running: tuple[Consortium, str]) -> None:
    c, job = running
    rotate(c, "alpha", stolen=True)
    c.receive(job, ["bravo", "charlie"])
    c.append(c.round_(job, {"alpha": "revoked"}))
    c.receive(job, ["bravo", "charlie"])
    assert c.refuses(c.round_(job, {"alpha": "revoked"})) == "round.reasons"
    c.append(c.round_(job, {"alpha": "late"}))


def test_key_rotated_and_the_new_one_revoked_within_a_round(running: tuple[Consortium, str]) -> None:
    c, job = running
    first = c.key_of("alpha")
    rotate(c, "alpha")
    rotate(c, "alpha", stolen=True)
    c.append(c.receipt("alpha", job), first)  # the stolen key is not the one that the round knows
    c.receive(job, ["bravo", "charlie"])
    c.append(c.round_(job))


def test_withdrawal_counts_at_once(running: tuple[Consortium, str]) -> None:
    c, job = running
    receipt = c.entry(c.receipt("alpha", job))
    c.append(c.withdrawal("alpha", job))
    assert c.refuses(receipt) == "receipt.participant"
    c.receive(job, ["bravo", "charlie"])
    assert c.refuses(c.round_(job, {"alpha": "late"})) == "round.reasons"
    c.append(c.round_(job, {"alpha": "withdrawn"}))
    c.receive(job, ["bravo", "charlie"])
    c.append(c.round_(job, {"alpha": "withdrawn"}))


def test_member_removed_during_a_round_still_gives_its_receipt(running: tuple[Consortium, str]) -> None:
    c, job = running
    c.append(c.amendment(remove=("alpha",)))
    c.append(c.receipt("alpha", job))
    c.receive(job, ["bravo", "charlie"])
    c.append(c.round_(job))
    assert c.refuses(c.receipt("alpha", job)) == "record.signers"
    assert c.refuses(c.skip("alpha", job)) == "record.signer-is-member"
    c.receive(job, ["bravo", "charlie"])
    assert c.refuses(c.round_(job, {"alpha": "late"})) == "round.reasons"
    c.append(c.round_(job, {"alpha": "removed"}))


def test_member_removed_during_a_round_and_silent_is_not_yet_removed(running: tuple[Consortium, str]) -> None:
    c, job = running
    c.append(c.amendment(remove=("alpha",)))
    c.receive(job, ["bravo", "charlie"])
    assert c.refuses(c.round_(job, {"alpha": "removed"})) == "round.reasons"
    c.append(c.round_(job, {"alpha": "unreachable"}))


def test_member_removed_with_its_key_revoked(running: tuple[Consortium, str]) -> None:
    c, job = running
    key = envelope.public_hex(c.key_of("alpha"))
    c.append(c.amendment(remove=("alpha",), revoke=(key,)))
    assert c.refuses(c.receipt("alpha", job)) == "record.signers"
    c.receive(job, ["bravo", "charlie"])
    c.append(c.round_(job, {"alpha": "revoked"}))
    c.receive(job, ["bravo", "charlie"])
    c.append(c.round_(job, {"alpha": "removed"}))


def expiring(seconds: int, minimum: int = 2) -> tuple[Consortium, str, int]:
    """A running job in which alpha's agreement expires before the others'."""
    c = Consortium.founded()
    c.offer("alpha", "bravo", "charlie")
    ends = c.state.time + seconds
    long = next(iter(c.state.agreements))
    c.append(c.agreement("bravo", "charlie"))
    short = c.append(c.agreement("alpha", "bravo", "charlie", expires_at=ends)).digest
    agreements = tuple(sorted(set(c.state.agreements) - {long} | {short}))
    return c, c.run("alpha", "bravo", "charlie", agreements=agreements, min_participants=minimum), ends


def test_agreement_that_expires_during_a_round_takes_effect_at_the_next() -> None:
    c, job, ends = expiring(DAY)
    c.append(c.tick(2 * DAY))
    assert c.state.time > ends
    c.play(job)  # judged as of the start
    assert c.refuses(c.receipt("alpha", job)) == "receipt.in-time"
    c.receive(job, ["bravo", "charlie"])
    assert c.refuses(c.round_(job, {"alpha": "late"})) == "round.reasons"
    c.append(c.round_(job, {"alpha": "expired"}))


def test_below_the_minimum_the_job_ends() -> None:
    c, job, _ = expiring(DAY, minimum=3)
    assert c.refuses(c.ended(job, "below-minimum")) == "ended.reason"
    c.append(c.tick(2 * DAY))
    c.play(job)
    c.receive(job, ["bravo", "charlie"])
    assert c.refuses(c.round_(job, {"alpha": "expired"})) == "round.minimum"
    c.append(c.abort(job, {"alpha": "expired"}, code="below-minimum"))
    c.append(c.ended(job, "below-minimum"))
    assert c.job_state(job).status == "below-minimum"


def test_below_the_minimum_by_removal(running: tuple[Consortium, str]) -> None:
    c, job = running
    c.append(c.amendment(remove=("alpha",)))
    assert c.refuses(c.ended(job, "below-minimum")) == "ended.reason"
    c.append(c.withdrawal("bravo", job))
    c.append(c.ended(job, "below-minimum"))


def test_an_expired_job_takes_no_receipt_and_ends() -> None:
    c = Consortium.founded()
    c.offer("alpha", "bravo")
    job = c.run("alpha", "bravo", expires_at=c.state.time + DAY)
    c.append(c.tick(DAY))
    c.play(job)  # judged as of the start, like an agreement
    assert c.refuses(c.receipt("alpha", job)) == "receipt.in-time"
    c.append(c.abort(job, {"alpha": "expired", "bravo": "expired"}))
    c.append(c.ended(job, "expired"))


def test_a_proposed_job_expires_too() -> None:
    c = Consortium.founded()
    c.offer("alpha", "bravo")
    job = c.propose("alpha", "bravo", expires_at=c.state.time + DAY)
    assert c.refuses(c.ended(job, "expired")) == "ended.reason"
    c.append(c.tick(DAY))
    assert c.refuses(c.start(job)) == "start.job"
    c.append(c.ended(job, "expired"))


def test_time_moves_with_the_coordinators_records_only(running: tuple[Consortium, str]) -> None:
    c, job = running
    at = c.state.time
    for record in (c.dataset("delta"), c.incident("alpha"), c.skip("alpha", job)):
        c.append(record)
        assert c.state.time == at
    c.receive(job, ["bravo", "charlie"])
    c.append(c.round_(job, {"alpha": "skipped"}, time=at))  # time may stand still
    c.append(c.tick(1))
    assert c.state.time == at + 1
