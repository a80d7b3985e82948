"""A coordinator that does not keep its word, against a real agent: each test is named by what it does."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from client import cli, owed
from client.agent import Agent
from client.custody import Custody
from client.errors import ConfigError, LocalStateError
from client.standing import Standing
from ledger import envelope, example, records, statements
from ledger.store import PENDING
from tests.client.fake_coordinator import follow
from tests.client.test_agent import Scene, code_of, entry_of, receipt_of, statement
from tests.ledger.consortium import digest

Answer = Callable[[bytes], httpx.Response]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.coordinator.close()


@pytest.fixture
def agent(scene: Scene) -> Iterator[Agent]:
    with scene.agent() as made:
        yield made


def hand_in(scene: Scene, agent: Agent, answer: Answer | None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the agent hand in a record that the coordinator answers so; return the record's digest."""
    if answer is not None:
        monkeypatch.setattr(scene.coordinator, "_record", answer)
    agent._report(scene.coordinator.consortium.state.origin, "receipt-missing", digest("anything"))
    [entry] = agent._premises.custody.unanswered()
    agent.enrol_once()
    return envelope.open_entry(entry).digest


def ticks(scene: Scene, agent: Agent, count: int, seconds: int = 30) -> None:
    """Let the log go on, and the agent follow it."""
    for _ in range(count):
        scene.coordinator.append(scene.coordinator.consortium.tick(seconds))
        agent.follow_once()


def require_stopped(scene: Scene, agent: Agent, job: str, code: str) -> None:
    """Nothing is trained, cosigning goes on, the evidence is there, and the hospital's screen says why."""
    assert code_of(agent.handle(scene.coordinator.message(job))) == "person"
    assert "train" not in scene.asked()
    ticks(scene, agent, 1)
    assert scene.coordinator.lines[-1][0] == scene.coordinator.consortium.view.size
    assert Standing(scene.hospital.folder).person == code
    assert {"event": "person", "reason": code} in scene.events
    assert [e.code for e in Custody(scene.hospital.folder).evidence()] == [code]
    assert code in owed.FINDINGS


def require_trains(scene: Scene, agent: Agent, job: str) -> None:
    assert receipt_of(agent.handle(scene.coordinator.message(job))).round
    assert Standing(scene.hospital.folder).person == ""
    assert Custody(scene.hospital.folder).evidence() == []


def promising(scene: Scene, ahead: int, key: str = "coordinator") -> Answer:
    """Promise every record for a size beyond the log's, and append none."""

    def answer(data: bytes) -> httpx.Response:
        consortium = scene.coordinator.consortium
        record, size = envelope.open_entry(data).digest, consortium.view.size + ahead
        promise = statements.Promise(
            origin=consortium.state.origin, record=record, size=size, time=scene.coordinator.now
        )
        said = statements.sign(promise, example.KEYS[key]).decode()
        return httpx.Response(200, json={"index": size - 1, "digest": record, "statement": said})

    return answer


def objecting(scene: Scene, rule: str, size: int = 0) -> Answer:
    def answer(data: bytes) -> httpx.Response:
        said = scene.coordinator.objection(envelope.open_entry(data).digest, rule, size)
        return httpx.Response(409, json={"error": "no", "rule": rule, "statement": said})

    return answer


def test_promise_is_broken(scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    job = scene.started(agent)
    hand_in(scene, agent, promising(scene, 3), monkeypatch)
    ticks(scene, agent, 2)
    assert Standing(scene.hospital.folder).person == ""  # there is time left
    ticks(scene, agent, 1)
    require_stopped(scene, agent, job, "promise-broken")
    [evidence] = Custody(scene.hospital.folder).evidence()
    assert statements.open_signed(
        evidence.statement.encode(), envelope.public_hex(example.KEYS["coordinator"])
    )
    assert evidence.checkpoint


def test_promise_is_kept(scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    job = scene.started(agent)
    hand_in(scene, agent, None, monkeypatch)
    ticks(scene, agent, 2)
    require_trains(scene, agent, job)
    assert not list((scene.hospital.folder / "owed" / "records").iterdir())


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        ("record.not-repeated", 0),  # it is not
        ("incident.nothing", 0),  # there is no such rule
        ("log.begins", 2),  # the log had begun
    ],
)
def test_record_is_refused_without_ground(
    scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch, rule: str, size: int
) -> None:
    job = scene.started(agent)
    agent.follow_once()
    hand_in(scene, agent, objecting(scene, rule, size), monkeypatch)
    require_stopped(scene, agent, job, "objection-unfounded")


def test_record_is_refused_as_if_in_the_middle_of_a_round(
    scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a batch nothing may follow: no checkpoint stands there, so nobody is judged there."""
    job = scene.started(agent)
    scene.coordinator.close_round(job, entry_of(agent.handle(scene.coordinator.message(job))))
    agent.follow_once()
    size = scene.coordinator.consortium.view.size - 1
    hand_in(scene, agent, objecting(scene, "batch.nothing-between", size), monkeypatch)
    agent.follow_once()
    assert Standing(scene.hospital.folder).person == "objection-unfounded"


def test_record_is_refused_with_ground(scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    job = scene.started(agent)
    wrong = records.Withdrawal(
        origin=scene.coordinator.consortium.state.origin, hospital="alpha", approval=digest("none")
    )
    entry = envelope.sign(wrong, example.KEYS["alpha"])
    agent._oversight.handing_in(entry)
    agent.enrol_once()
    ticks(scene, agent, 1)
    require_trains(scene, agent, job)
    assert agent._premises.custody.unanswered() == []


def test_nothing_is_answered_while_the_log_goes_on(
    scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = scene.started(agent)
    monkeypatch.setattr(scene.coordinator, "_record", lambda data: httpx.Response(200, json={"digest": "x"}))
    agent._report(scene.coordinator.consortium.state.origin, "receipt-missing", digest("anything"))
    agent.enrol_once()
    ticks(scene, agent, 20)
    assert Standing(scene.hospital.folder).person == ""
    ticks(scene, agent, 3)
    require_stopped(scene, agent, job, "silent")


def test_promise_that_somebody_else_signed_is_no_answer(
    scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = scene.started(agent)
    hand_in(scene, agent, promising(scene, 1, key="bravo"), monkeypatch)
    ticks(scene, agent, 23)
    require_stopped(scene, agent, job, "silent")


def test_promise_of_a_size_that_never_comes_is_silence(
    scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = scene.started(agent)
    hand_in(scene, agent, promising(scene, 10**9), monkeypatch)
    ticks(scene, agent, 23)
    require_stopped(scene, agent, job, "silent")


def test_network_that_was_cut_is_no_silence(
    scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record could not arrive: hours without contact count as one look at most."""
    job = scene.started(agent)
    hand_in(scene, agent, lambda data: httpx.Response(200, json={"digest": "x"}), monkeypatch)
    ticks(scene, agent, 1)
    scene.coordinator.append(scene.coordinator.consortium.tick(4 * 3600))
    agent.follow_once()
    require_trains(scene, agent, job)


def test_log_that_stands_still_is_no_silence(
    scene: Scene, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = scene.started(agent)
    agent.follow_once()
    hand_in(scene, agent, lambda data: httpx.Response(200, json={"digest": "x"}), monkeypatch)
    agent._premises.custody.contact(scene.coordinator.consortium.view.size, scene.coordinator.now)
    for later in range(100):
        now = scene.coordinator.now + 30 * later
        agent._premises.custody.contact(scene.coordinator.consortium.view.size, now)
    agent._oversight.examine()
    require_trains(scene, agent, job)


def test_agent_killed_before_it_stopped_finds_it_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(self: Standing, reason: str) -> None:
        raise LocalStateError("stands for a crash")

    with scene.agent() as agent:
        job = scene.started(agent)
        hand_in(scene, agent, promising(scene, 1), monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(Standing, "ask_person", dies)
            with pytest.raises(LocalStateError):
                ticks(scene, agent, 1)
    with scene.agent() as agent:
        require_stopped(scene, agent, job, "promise-broken")


def test_record_that_nobody_took_is_handed_in_after_a_restart(scene: Scene) -> None:
    with scene.agent() as agent:
        scene.started(agent)
        agent.follow_once()
        agent._report(scene.coordinator.consortium.state.origin, "receipt-missing", digest("lost"))
        # killed here: it was never posted
    with scene.agent() as agent:
        follow(agent)
    found = [e.record for e in scene.coordinator.consortium.entries if isinstance(e.record, records.Incident)]
    assert [i.evidence for i in found] == [digest("lost")]


# --- acknowledged, and left out ---


@pytest.mark.parametrize("code", ["late", "unreachable", "receipt", "refused"])
def test_acknowledged_reply_is_left_out(scene: Scene, code: str) -> None:
    with scene.agent() as agent:
        job = scene.started(agent, min_participants=1)
        sent = entry_of(agent.handle(scene.coordinator.message(job)))
        scene.coordinator.acknowledge(sent)
        assert agent.acknowledge_once()
        scene.coordinator.close_round(job, alpha=code)
    with scene.agent() as agent:  # it was not running when the round was closed
        agent.follow_once()
        assert code_of(agent.handle(scene.coordinator.message(job))) == "stopped"
        follow(agent)
        [incident] = [
            e.record for e in scene.coordinator.consortium.entries if isinstance(e.record, records.Incident)
        ]
        assert (incident.member, incident.code) == ("alpha", "acknowledged-left-out")
        [evidence] = Custody(scene.hospital.folder).evidence()
        said = statements.open_signed(
            evidence.statement.encode(), envelope.public_hex(example.KEYS["coordinator"])
        )
        assert incident.evidence == said.digest()
        assert scene.coordinator.lines[-1][0] == scene.coordinator.consortium.view.size  # still cosigning
    assert Standing(scene.hospital.folder).stops[job] == "acknowledged-left-out"
    assert Standing(scene.hospital.folder).person == ""


def test_acknowledged_reply_is_used(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    sent = entry_of(agent.handle(scene.coordinator.message(job)))
    scene.coordinator.acknowledge(sent)
    agent.acknowledge_once()
    assert len(list((scene.hospital.folder / "owed" / "replies").iterdir())) == 1
    scene.coordinator.close_round(job, sent)
    agent.follow_once()
    require_trains(scene, agent, job)
    assert not list((scene.hospital.folder / "owed" / "replies").iterdir())


def test_acknowledgement_of_another_reply_is_not_kept(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent, min_participants=1)
    sent = entry_of(agent.handle(scene.coordinator.message(job)))
    other = scene.coordinator.consortium.entry(scene.coordinator.consortium.receipt("bravo", job), "bravo")
    scene.coordinator.acknowledge(other.data)
    said = scene.coordinator.acknowledged.pop(other.digest)
    scene.coordinator.acknowledged[envelope.open_entry(sent).digest] = said
    agent.acknowledge_once()
    scene.coordinator.close_round(job, alpha="late")
    agent.follow_once()
    require_trains(scene, agent, job)


# --- a checkpoint that breaks the rules ---


def break_the_rules(scene: Scene, agent: Agent, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show a log that leaves alpha's receipt out without a word, then the real one again."""
    dropped = scene.coordinator.consortium.fork()
    dropped.append(dropped.receipt("bravo", job))
    closing = dropped.entry(replace(dropped.round_(job), left_out=()))
    entries = [e.data for e in (*dropped.entries, closing)]
    note = scene.coordinator.folder.note(entries).to_bytes()
    real = scene.coordinator._file

    def lying(path: str) -> httpx.Response:
        if path == PENDING:
            return httpx.Response(200, content=note)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(scene.coordinator, "_file", lying)
        patch.setattr("ledger.audit.entries", lambda read, size, start=0: iter(entries[start:]))
        with pytest.raises(Exception, match=r"round\.left-out"):
            agent.follow_once()


def test_checkpoint_breaks_the_rules(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with scene.agent() as agent:
        job = scene.started(agent)
        agent.follow_once()
        break_the_rules(scene, agent, job, monkeypatch)
        agent.follow_once()  # the honest log is shown again
        assert code_of(agent.handle(scene.coordinator.message(job))) == "stopped"
        follow(agent)
        found = [
            e.record for e in scene.coordinator.consortium.entries if isinstance(e.record, records.Incident)
        ]
        assert [(i.member, i.code) for i in found] == [("alpha", "rule-broken")]
        assert scene.coordinator.lines[-1][0] == scene.coordinator.consortium.view.size
        assert "train" not in scene.asked()
    with scene.agent() as agent:  # a restart changes nothing, and reports nothing twice
        follow(agent)
        assert code_of(agent.handle(scene.coordinator.message(job))) == "stopped"
        assert sum(isinstance(e.record, records.Incident) for e in scene.coordinator.consortium.entries) == 1
    Standing(scene.hospital.folder).allow(job)  # a person has looked
    with scene.agent() as agent:
        assert receipt_of(agent.handle(scene.coordinator.message(job))).round == 1


# --- what the hospital's screen shows ---


def shown(scene: Scene, *arguments: str) -> str:
    done = CliRunner().invoke(cli.app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_screen_says_what_stopped_and_a_person_lets_it_go_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(scene.hospital.folder)
    assert "nothing keeps" in shown(scene, "standing", folder)
    with scene.agent() as agent:
        job = scene.started(agent, min_participants=1)
        scene.coordinator.acknowledge(entry_of(agent.handle(scene.coordinator.message(job))))
        agent.acknowledge_once()
        scene.coordinator.close_round(job, alpha="late")
        hand_in(scene, agent, promising(scene, 1), monkeypatch)
        ticks(scene, agent, 1)
    text = shown(scene, "standing", folder)
    assert "no job is trained (promise-broken)" in text
    assert f"job {job} is not trained (acknowledged-left-out)" in text
    assert "2 files" in text
    found = json.loads(shown(scene, "standing", folder, "--json"))
    assert (found["person"], found["stopped"]) == ("promise-broken", {job: "acknowledged-left-out"})
    assert sorted(found["evidence"]) == ["acknowledged-left-out", "promise-broken"]
    shown(scene, "resume", folder)
    shown(scene, "resume", folder, "--job", job)
    assert "nothing keeps" in shown(scene, "standing", folder)
    with pytest.raises(ConfigError, match="is not stopped here"):
        shown(scene, "resume", folder, "--job", job)


# --- two agents with one key ---


def test_agent_of_a_copied_folder_answers_too_and_only_one_receipt_can_be_logged(
    scene: Scene, tmp_path: Path
) -> None:
    """Each account charges its own release once; the agent whose receipt is not the logged one stops and says so."""
    with scene.agent() as agent:
        job = scene.started(agent)
        agent.follow_once()
    copy = Scene.__new__(Scene)
    copy.coordinator, copy.events = scene.coordinator, []
    copy.worker_folder = scene.worker_folder
    shutil.copytree(scene.hospital.folder, tmp_path / "copy")
    copy.hospital = replace(scene.hospital, directory=str(tmp_path / "copy"))
    with scene.agent() as first, copy.agent() as second:
        message = scene.coordinator.message(job)
        sent, other = entry_of(first.handle(message)), entry_of(second.handle(message))
        assert sent != other  # fresh noise each: two releases, and two accounts that charged one each
        scene.coordinator.close_round(job, sent)
        assert code_of(second.handle(scene.coordinator.message(job))) == "receipt-missing"
        follow(second)
        assert receipt_of(first.handle(scene.coordinator.message(job))).round == 2
    assert [[c.round for c in statement(s)] for s in (scene, copy)] == [[1, 2], [1]]
    found = [e.record for e in scene.coordinator.consortium.entries if isinstance(e.record, records.Incident)]
    assert [(i.code, i.evidence) for i in found] == [("receipt-missing", envelope.open_entry(other).digest)]
    text = shown(copy, "standing", str(tmp_path / "copy"))
    assert "another agent with the same key may have answered" in text


# --- a coordinator that came from a backup ---


def test_restored_coordinator_gets_again_what_was_sent_and_nothing_else(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    sent = []
    for _ in range(2):
        reply = agent.handle(scene.coordinator.message(job))
        sent.append(receipt_of(reply))
        scene.coordinator.close_round(job, entry_of(reply))
    agent.follow_once()
    scene.coordinator.wanted = {sent[0].update, sent[1].update, sent[1].metrics, digest("somebody else's")}
    agent.enrol_once()
    found = scene.coordinator.handed_in
    assert set(found) == {sent[0].update, sent[1].update, sent[1].metrics}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in found.items())
    assert scene.asked().count("train") == 2
    assert len(statement(scene)) == 2


def test_receipt_that_the_log_shows_already_is_not_asked_about(scene: Scene, agent: Agent) -> None:
    job = scene.started(agent)
    sent = entry_of(agent.handle(scene.coordinator.message(job)))
    scene.coordinator.acknowledge(sent)
    scene.coordinator.close_round(job, sent)
    agent.follow_once()
    assert agent.acknowledge_once()
    assert not (scene.hospital.folder / "owed" / "replies").exists()
