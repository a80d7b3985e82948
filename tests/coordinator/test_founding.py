"""Founding at the coordinator: what it takes, what it refuses, and what a crash leaves; attacks by their names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from client.joining import Unfinished, new_keys
from coordinator import config, founding, joining_api, setup
from coordinator.errors import CoordinatorError, JoiningError, UninvitedError
from coordinator.joining_desk import JoiningDesk
from coordinator.roll import RollFile
from ledger import envelope, joining
from ledger.encoding import decode_base64
from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.joining import Invitation
from ledger.log import Log
from ledger.records import Charter
from ledger.signature import SigningKey

NOW = 1_800_000_000
PLAN = setup.Plan(
    name="heart-study", origin="w.example/heart", public_name="localhost", port=8443, host="127.0.0.1",
    max_dishonest=0, invite=(("northgate", "hospital"), ("riverside", "hospital"), ("uni", "researcher")),
    recovery=(), days=30,
)  # fmt: skip


class Town:
    """A coordinator before founding, and what the founders would send."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "coordinator"
        self.now = NOW
        self.invitations = {i.name: i for i in setup.init(self.folder, PLAN, NOW)}
        self.keys = {name: new_keys(i, "", b"") for name, i in self.invitations.items()}
        self.settings = config.load(self.folder)
        self.roll = RollFile(self.folder)
        self.desk = self.opened()

    def opened(self) -> JoiningDesk:
        key, log_key = (config.read_key(self.folder / "keys" / f"{n}.key") for n in ("coordinator", "log"))
        return JoiningDesk(self.settings, lambda: self.now, keys=(key, log_key))

    def code(self, name: str) -> str:
        return self.invitations[name].code

    def join(self, *names: str) -> None:
        for name in names or self.keys:
            self.desk.join(self.code(name), deposit_of(self.keys[name]))

    def draft(self) -> Charter:
        found = self.roll.read().frozen
        assert found is not None
        return found

    def sign(self, *names: str) -> None:
        for name in names or self.keys:
            self.desk.sign(self.code(name), envelope.sign(self.draft(), self.keys[name].identity_key))


def deposit_of(state: Unfinished) -> bytes:
    return decode_base64(state.deposit, "deposit")


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def test_a_log_begins_with_exactly_what_everybody_signed(town: Town) -> None:
    town.join("northgate", "uni")
    assert town.desk.standing(town.code("uni"))["missing"] == ["riverside"]
    with pytest.raises(JoiningError, match="nothing waits for signatures"):
        town.desk.sign(
            town.code("uni"), envelope.sign(charter_of_nobody(town), town.keys["uni"].identity_key)
        )
    town.join("riverside")
    draft = town.draft()
    town.sign("northgate", "riverside")
    assert not (town.settings.log / "log.sqlite").exists()
    town.sign("uni")
    assert town.desk.log is not None
    town.desk.log.close()
    with Log.open(town.settings.log) as log:
        assert envelope.parse_entry(log.store.entries(0, 1)[0]).digest == draft.digest()
    assert town.roll.read().founded == draft.digest()


def charter_of_nobody(town: Town) -> Charter:
    key, log_key = (config.read_key(town.folder / "keys" / f"{n}.key") for n in ("coordinator", "log"))
    return founding.draft(town.roll.read(), key, log_key, NOW)


# --- attacks ---


def test_attack_code_used_twice_by_another(town: Town) -> None:
    town.join("northgate")
    thief = new_keys(town.invitations["northgate"], "", b"")
    with pytest.raises(JoiningError, match="was used for other keys"):
        town.desk.join(town.code("northgate"), deposit_of(thief))
    town.join("northgate")  # the very same deposit is answered the same
    invited = town.roll.read().by_name("northgate")
    assert invited is not None
    assert invited.keys == town.keys["northgate"].deposited


def test_attack_expired_code(town: Town) -> None:
    town.join("northgate")
    town.now = NOW + 31 * setup.DAY
    with pytest.raises(UninvitedError, match="expired"):
        town.join("riverside")
    assert town.desk.standing(town.code("northgate"))["joined"] == [
        "northgate"
    ]  # used in time: good for ever


def test_attack_guessed_and_revoked_codes(town: Town) -> None:
    with pytest.raises(UninvitedError, match="unknown here"):
        town.desk.standing("0" * 40)
    before = town.code("uni")
    town.invitations["uni"] = setup.invite(town.folder, "uni", "researcher", 30, NOW)
    with pytest.raises(UninvitedError, match="replaced"):
        town.desk.standing(before)
    assert town.code("uni") not in (town.folder / "roll.json").read_text()


def test_guesses_from_one_address_are_stopped_and_others_are_not() -> None:
    now = [0.0]
    guesses = joining_api.Guesses(lambda: now[0])
    for _ in range(joining_api.MAX_GUESSES):
        assert guesses.allows("192.0.2.1")
        guesses.wrong("192.0.2.1")
    assert not guesses.allows("192.0.2.1")
    assert guesses.allows("192.0.2.2")
    now[0] = joining_api.GUESS_SECONDS + 1
    assert guesses.allows("192.0.2.1")


def test_attack_replayed_deposit_for_another_invitation(town: Town) -> None:
    with pytest.raises(JoiningError, match="another invitation"):
        town.desk.join(town.code("riverside"), deposit_of(town.keys["northgate"]))


def test_attack_founder_with_anothers_key(town: Town) -> None:
    """A key that its holder has not signed with is refused; one that is shared willingly, too."""
    town.join("northgate")
    theirs, mine = town.keys["northgate"], town.keys["riverside"]
    for field in ("key", "witness", "node"):
        claimed = replace(mine.deposited, **{field: getattr(theirs.deposited, field)})
        data = joining.sign_deposit(claimed, mine.identity_key, None, mine.node.encode())
        with pytest.raises((VerificationError, MalformedError)):
            town.desk.join(town.code("riverside"), data)
    shared = replace(mine.deposited, key=theirs.deposited.key)
    data = joining.sign_deposit(
        shared, theirs.identity_key, SigningKey.from_text(mine.witness), mine.node.encode()
    )
    with pytest.raises(JoiningError, match="deposited by somebody else"):
        town.desk.join(town.code("riverside"), data)
    invited = town.roll.read().by_name("riverside")
    assert invited is not None
    assert invited.open


def test_attack_altered_deposit(town: Town) -> None:
    data = bytearray(deposit_of(town.keys["northgate"]))
    for position in range(0, len(data), 97):
        altered = bytes(data[:position]) + bytes([data[position] ^ 1]) + bytes(data[position + 1 :])
        with pytest.raises((LedgerError, CoordinatorError)):
            town.desk.join(town.code("northgate"), altered)


def test_attack_charter_changed_between_the_digest_shown_and_signing(town: Town) -> None:
    town.join()
    shown = town.draft()
    town.sign("northgate")
    town.roll.change(lambda roll: founding.revoke(roll, "uni"))
    standing = town.desk.standing(town.code("northgate"))  # frozen again without the one who was dropped
    assert (standing["phase"], standing["signed"]) == ("signing", ["coordinator"])
    assert town.draft().digest() != shown.digest()
    with pytest.raises(JoiningError, match="the draft was changed meanwhile"):
        town.desk.sign(town.code("riverside"), envelope.sign(shown, town.keys["riverside"].identity_key))
    with pytest.raises(UninvitedError):
        town.desk.standing(town.code("uni"))


def test_attack_one_founder_signs_for_another(town: Town) -> None:
    town.join()
    with pytest.raises(JoiningError, match="by the key that riverside deposited"):
        town.desk.sign(
            town.code("riverside"), envelope.sign(town.draft(), town.keys["northgate"].identity_key)
        )


# --- crashes ---


def test_a_crash_after_the_log_has_begun_is_made_good_by_the_next_start(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    town.join()
    with monkeypatch.context() as patched:

        def dies(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(founding, "founded", dies)
        with pytest.raises(KeyboardInterrupt):
            town.sign()
    assert town.desk.log is not None
    town.desk.log.close()
    assert not town.roll.read().founded
    with pytest.raises(JoiningError, match="every founder has signed"):
        town.roll.change(lambda roll: founding.revoke(roll, "uni"))
    again = town.opened()
    assert again.resume()
    assert again.log is None  # it is opened like any other
    assert town.roll.read().founded == town.draft().digest()


def test_too_few_hospitals_found_nothing(tmp_path: Path) -> None:
    plan = replace(PLAN, max_dishonest=1)
    with pytest.raises(JoiningError, match="invite more hospitals"):
        setup.init(tmp_path / "coordinator", plan, NOW)
    assert list(tmp_path.iterdir()) == []


def test_recovery_keys_are_made_or_taken(tmp_path: Path) -> None:
    plan = replace(PLAN, recovery=(str(tmp_path / "offline.key"), "ab" * 32))
    setup.init(tmp_path / "coordinator", plan, NOW)
    roll = RollFile(tmp_path / "coordinator").read()
    made = config.read_key(tmp_path / "offline.key")
    assert roll.recovery_keys == (envelope.public_hex(made), "ab" * 32)
    assert roll.recovery_quorum == 2


def test_an_invitation_is_one_line_and_a_mistyped_one_is_told_apart(town: Town) -> None:
    text = town.invitations["northgate"].to_text()
    assert Invitation.from_text(f"  {text[:60]}\n {text[60:]}\n") == town.invitations["northgate"]
    for position in range(len(joining.PREFIX), len(text), 11):
        other = "A" if text[position] != "A" else "B"
        with pytest.raises(MalformedError, match=r"mistyped|no invitation"):
            Invitation.from_text(text[:position] + other + text[position + 1 :])
    with pytest.raises(MalformedError, match="mistyped"):
        Invitation.from_text(text[:-5])
