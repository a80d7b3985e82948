"""What a person is shown before deciding: the numbers are those that are signed, and who said what is there."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client import accounting, approval, member, member_cli
from client.accounting import event_of
from client.visible import MARGIN
from ledger.encoding import encode_base64
from ledger.records import Approval
from tests.client.fake_coordinator import follow
from tests.client.test_agent import Scene, entry_of
from tests.client.test_decisions import CODE, asking, custom, own, policy, run


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path)
    monkeypatch.setattr(member.Membership, "connect", lambda self: made.coordinator.door())
    yield made
    made.coordinator.close()


def test_the_numbers_shown_are_those_of_the_approval_that_is_then_signed(scene: Scene) -> None:
    asking(scene)
    with scene.agent() as agent:
        follow(agent)
        first = scene.coordinator.job_on_alpha_and_bravo(rounds=7, evaluate=(2, 8), name="first")
        second = scene.coordinator.job_on_alpha_and_bravo(rounds=20, evaluate=(5, 21), name="second")
        follow(agent)
        shown = {}
        for job in (first, second):
            shown[job] = json.loads(run(scene, "show", job, "--json"))["cost"]
            text = run(scene, "show", job)
            assert f"noise multiplier {shown[job]['noise_multiplier']}" in text
            run(scene, "approve", job)
            follow(agent)
        after = json.loads(run(scene, "show", second, "--json"))["cost"]
    for given in own(scene, Approval):
        cost = shown[given.job]
        record = scene.coordinator.consortium.job_state(given.job).record
        assert cost["noise_multiplier"] == given.training.noise_multiplier
        assert cost["evaluation_noise_multipliers"] == [m.noise_multiplier for m in given.evaluation]
        assert cost["limit"] == given.epsilon
        plan, heldout = approval.remaining(record, given, 1)
        delta = float(record.delta)
        assert cost["epsilon_training"] == accounting.round_up(accounting.job_epsilon(plan, delta))
        assert cost["epsilon_heldout"] == accounting.round_up(accounting.job_epsilon(heldout, delta))
    assert shown[first]["used"][1] < shown[second]["used"][1]  # the first is counted in the second's "after"
    assert after == shown[second]  # under the approval in force nothing looks different


def test_what_was_spent_and_what_would_be_left_are_the_accounts(scene: Scene) -> None:
    with scene.agent() as agent:
        job = scene.started(agent)
        reply = agent.handle(scene.coordinator.message(job))
        scene.coordinator.close_round(job, entry_of(reply))
        follow(agent)
        policy(scene, 'approve = "ask"')
        agent.reload()
        waiting = scene.coordinator.job_on_alpha_and_bravo(name="waiting")
        follow(agent)
        cost = json.loads(run(scene, "show", "waiting", "--json"))["cost"]
        account = scene.account()
        [statement] = account.history()
        lifetime = statement.lifetime
        assert cost["spent"] == statement.epsilon_spent
        state = scene.coordinator.consortium.state
        given = state.approvals[state.jobs[job].approved["alpha"]]
        events = [accounting.compose(event_of(given.training), 3)]  # one charged, two promised
        new = event_of(given.training)
        plan = accounting.Event(
            noise_multiplier=float(cost["noise_multiplier"]), sample_rate=new.sample_rate, count=3
        )
        used = accounting.filter_spent([*events, plan], lifetime.order) / lifetime.limit
        heldout = accounting.filter_spent(
            [
                *(event_of(m) for m in given.evaluation),
                *(
                    accounting.Event(noise_multiplier=float(n), sample_rate=1.0, count=1)
                    for n in cost["evaluation_noise_multipliers"]
                ),
            ],
            lifetime.order,
        )
        assert cost["used"][1] == pytest.approx(max(used, heldout / lifetime.limit), abs=1e-6)
        assert float(cost["after"]) + float(cost["left"]) == pytest.approx(8)
        account.close()
        assert waiting in run(scene, "show", "waiting")


def test_the_columns_and_their_meaning_the_agreement_and_the_others_answers(scene: Scene) -> None:
    asking(scene)
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo()
        follow(agent)
    text = run(scene, "show", job[:8])
    for said in (
        "proposed by     researcher",
        "purpose         cardiology-research",
        "covers this dataset and purpose",
        "bravo         has approved",
        "2 columns and the label, by the data dictionary test",
        "numeric, 0 to 120",
        "tells patients apart; never part of the model",
        "built in: its code is part of the software installed here",
        "e^epsilon = 20.1",
        "add/remove one patient",
        'policy.approve is "ask"',
        f"to decide: wardround hospital approve {scene.hospital.folder} {job[:12]}",
    ):
        assert said in text


def test_what_waits_for_a_person_comes_first_in_the_list(scene: Scene) -> None:
    with scene.agent() as agent:
        follow(agent)
        by_rule = scene.coordinator.job_on_alpha_and_bravo(name="by-rule")
        waits = custom(scene, name="waits")
        declined = scene.coordinator.job_on_alpha_and_bravo(name="declined", delta="0.002")
        follow(agent)
    rows = json.loads(run(scene, "jobs", "--json"))
    assert [(r["job"], r["own"], r["waits_for_person"]) for r in rows] == [
        (waits, "waits", True),
        (by_rule, "approved", False),
        (declined, "refused", False),
    ]
    assert rows[2]["why"].startswith("delta: ")
    lines = run(scene, "jobs").splitlines()
    assert lines[0].startswith(f"{waits[:12]}  waits")
    assert "a person must read first" in lines[1]


def test_proposals_that_wait_for_this_hospitals_signature_are_named_and_absent_offline(scene: Scene) -> None:
    with scene.agent() as agent:
        follow(agent)
    waits, signed, closed = (
        scene.coordinator.consortium.agreement("alpha", "bravo", purposes=(purpose,))
        for purpose in ("care", "research", "teaching")
    )
    standing = {
        "by": "bravo",
        "at": 1,
        "expires_at": 2,
        "needed": 2,
        "may_sign": ["alpha", "bravo"],
        "declined": [],
    }
    for record, signers, ended in ((waits, ["bravo"], ""), (signed, ["alpha"], ""), (closed, [], "expired")):
        text = encode_base64(record.to_bytes())
        scene.coordinator.proposals.append(
            {"record": text, "digest": record.digest(), "signed": signers, "ended": ended, **standing}
        )
    said = run(scene, "jobs")
    assert f"{waits.digest()[:12]}  waits for this hospital's signature: agreement by bravo" in said
    assert f"wardround member show {scene.hospital.folder} {waits.digest()[:12]}" in said
    assert said.count("signature") == 1
    scene.coordinator.down = True
    assert run(scene, "jobs") == "no job asks for this hospital's dataset\n"


def test_every_member_lists_what_the_hospitals_offer(scene: Scene) -> None:
    def listed(*more: str) -> str:
        done = CliRunner().invoke(member_cli.app, ["datasets", str(scene.hospital.folder), *more])
        assert done.exit_code == 0, done.output
        return done.output

    assert "no dataset is on the record yet" in listed()
    scene.coordinator.append(scene.coordinator.consortium.dataset("bravo"))
    assert "none, so no job can use it yet" in listed()
    scene.coordinator.append(scene.coordinator.consortium.agreement("bravo"))
    [found] = json.loads(listed("--json"))
    [agreement] = scene.coordinator.consortium.state.agreements
    record = scene.coordinator.consortium.state.datasets["bravo/heart"].record
    assert (found["dataset"], found["size_class"], found["spent"]) == ("bravo/heart", record.size_class, "0")
    assert (found["dictionary"], found["epsilon"]) == (record.schema, record.epsilon)
    assert f"agreements in force: {agreement[:12]}" in listed()


def test_a_job_that_cannot_be_taken_part_in_says_why_instead_of_a_cost(scene: Scene) -> None:
    with scene.agent() as agent:
        follow(agent)
        job = scene.coordinator.job_on_alpha_and_bravo(dictionary="ab" * 32)
        follow(agent)
    text = run(scene, "show", job[:8])
    assert "cannot take part: dictionary" in text
    assert "names another data dictionary" in text
    found = json.loads(run(scene, "show", job[:8], "--json"))
    assert (found["cost"], found["columns"]) == (None, [])
    assert found["own"] == "refused"


HOSTILE = (
    CODE
    + b"\x1b[2J\x1b[Hjob harmless\rthis hospital   approved\n"
    + b" " * 74
    + b"privacy: what the patients of this hospital pay: nothing\n"
    + "to decide:\u2028wardround hospital approve\u202e x\u0085\n".encode()
    + b"privacy: epsilon 0\nto decide: nothing\n\xff\xfe\x00"
)


def test_a_hostile_model_file_cannot_fake_what_is_printed(scene: Scene) -> None:
    with scene.agent() as agent:
        follow(agent)
        job = custom(scene, HOSTILE)
        follow(agent)
    text = run(scene, "show", job[:8])
    assert all(c in " \n" or unicodedata.category(c)[0] not in "CMZ" for c in text)
    lines = text.split("\n")
    theirs = [line for line in lines if line.startswith(MARGIN)]
    ours = [line for line in lines if not line.startswith(MARGIN)]
    assert len([line for line in ours if line.startswith("privacy")]) == 1
    assert len([line for line in ours if "this hospital   " in line]) == 1
    assert len([line for line in ours if line.startswith("to decide")]) == 1
    assert any("\\x1b[2J" in line for line in theirs)
    assert all(len(line) < 80 for line in theirs)
