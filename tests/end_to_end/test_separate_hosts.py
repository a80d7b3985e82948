"""A consortium on six hosts, by the commands that people type: join, compare, approve, train, verify.

Each host is a network namespace with a firewall of its own. The hospitals' drop everything inbound, and let nothing
out but to the coordinator's one port. The auditor's host has no network at all. Needs root, `ip` and `nft`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from client.demo_data import BREAST_CANCER, write_breast_cancer
from tests.end_to_end import hosts
from tests.end_to_end.consortium_process import GROUPS, Output, until
from tests.end_to_end.hosts import Host

COORDINATOR, RESEARCHER, AUDITOR = "coordinator", "uni", "auditor"
HOSPITALS = ("hillcrest", "lakeside", "northgate")
ASKS = "northgate"  # its policy lets a person decide
PORT = 8443
ROUNDS = 8
DICTIONARY = hosts.ROOT / "client" / "dictionaries" / f"{BREAST_CANCER.data}.json"
GUIDE = (hosts.ROOT / "client" / "README.md").read_text()
CUT_SECONDS = 3
CHECK = (sys.executable, "-m", "wardround", "hospital", "check")
LISTENING = 9000
LISTEN = "import socket, time; s = socket.create_server(('', 9000)); print('up', flush=True); time.sleep(99)"
CALL = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
EDITS = {  # what a hospital's person changes in hospital.toml
    "my-dataset": "breast-cancer",
    "my-purpose": "cancer-research",
    "delta = 0.00001": "delta = 0.0001",
    "max_epsilon_per_job = 2": "max_epsilon_per_job = 4",
}
SIZES = {"hillcrest": 64, "lakeside": 128, "northgate": 256}  # powers of two, as `check` names them
pytestmark = pytest.mark.timeout(1200)  # against hanging: the first test waits for all of the deployment


@dataclass(slots=True)
class Person:
    """Somebody at the keyboard of one host, whose commands are remembered as a guide would print them."""

    host: Host
    folder: Path
    typed: list[str] = field(default_factory=list)

    def types(self, *words: str | Path, status: int = 0, answer: str = "") -> str:
        self._remember(words)
        return self.host.wardround(*words, status=status, typed=answer)

    def converses(self, *words: str | Path) -> Output:
        self._remember(words)
        return Output(self.host.converse(*words))

    def begins(self, *words: str | Path) -> subprocess.Popen[bytes]:
        self._remember(words)
        return self.host.start(*words, log=self.folder / "screen.log")

    def _remember(self, words: tuple[str | Path, ...]) -> None:
        self.typed.append(" ".join(map(str, words[:2])))

    def screen(self) -> str:
        return (self.folder / "screen.log").read_text()


@dataclass(slots=True)
class Consortium:
    people: dict[str, Person]
    charter: str
    job: str = ""

    @property
    def hospitals(self) -> list[Person]:
        return [self.people[name] for name in HOSPITALS]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """Founded, and every hospital's agent at work."""
    if reason := hosts.obstacle():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("hosts")
    names = (COORDINATOR, *HOSPITALS, RESEARCHER)
    with ExitStack() as stack:
        found = stack.enter_context(
            hosts.separate(names, serving=COORDINATOR, port=PORT, confined=(*HOSPITALS, RESEARCHER))
        )
        found[AUDITOR] = Host(name=AUDITOR, address="", prefix=("unshare", "--net"))
        people = {name: Person(host, folder / name) for name, host in found.items()}
        operator = people[COORDINATOR]
        invitations = invite(operator)
        stack.callback(hosts.stop, operator.begins("coordinator", "up", operator.folder))
        until(lambda: "waiting for the founders" in operator.screen(), "the coordinator's port")
        charter = join([people[name] for name in invitations], invitations)
        files, hospitals = write_breast_cancer(folder / "patients"), [people[name] for name in HOSPITALS]
        at_once(lambda person: prepare(person, files[person.host.name]), hospitals)
        for person in hospitals:
            stack.callback(hosts.stop, person.begins("hospital", "run", person.folder))
        yield Consortium(people, charter)


def invite(operator: Person) -> dict[str, str]:
    """Make the coordinator's folder; return each founder's invitation as its screen shows it."""
    founders = {**dict.fromkeys(HOSPITALS, "hospital"), RESEARCHER: "researcher"}
    options = [part for name, role in founders.items() for part in ("--invite", f"{role}:{name}")]
    said = operator.types(
        "coordinator", "init", operator.folder, "--name", "breast-study", "--origin", "coordinator.test/breast",
        "--public-name", operator.host.address, "--port", str(PORT), *options,
    )  # fmt: skip
    return dict(re.findall(r"^\w+ (\w+):\n(\S+)$", said, re.MULTILINE))


def join(founders: list[Person], invitations: dict[str, str]) -> str:
    """Let the founders join at the same time, and compare what their screens show; return the charter's digest."""
    screens = []
    for person in founders:
        noun = "hospital" if person.host.name in HOSPITALS else "member"
        screens.append(person.converses(noun, "join", person.folder, invitations[person.host.name]))
    shown = set()
    for screen in screens:
        screen.wait_for("sixteen groups")
        shown.add("".join("".join(GROUPS.findall(screen.text())).split()))
    (digest,) = shown  # on every founder's screen the same
    for screen in screens:
        screen.type(" ".join(digest[i : i + 4] for i in range(len(digest) - 16, len(digest), 4)))
    for screen in screens:
        assert "has joined" in screen.succeed()
    return digest


def at_once(what: Callable[[Person], None], people: list[Person]) -> None:
    """Let several people do the same at the same time, each on a host of their own."""
    with ThreadPoolExecutor(len(people)) as pool:
        list(pool.map(what, people))


def prepare(person: Person, file: Path) -> None:
    """Do what a hospital's person does to the folder: bring two files, and edit hospital.toml; then check it."""
    shutil.copyfile(file, person.folder / "patients.csv")
    shutil.copyfile(DICTIONARY, person.folder / "dictionary.json")
    settings = person.folder / "hospital.toml"
    if person.host.name == ASKS:
        untouched = person.host.run(*CHECK, str(person.folder), "--offline")
        for sample in ("dataset.name", "dataset.purposes", "policy.purposes"):
            assert f"wrong    settings.sample: {sample} is still" in untouched.stdout
    text = settings.read_text()
    for old, new in {**EDITS, "= 1024": f"= {SIZES[person.host.name]}"}.items():
        assert old in text
        text = text.replace(old, new)
    if person.host.name != ASKS:
        text = text.replace('approve = "ask"', 'approve = "built-in"')
    settings.write_text(text)
    assert "the agent can run" in person.types("hospital", "check", person.folder)


@pytest.fixture(scope="module")
def finished(running: Consortium) -> Consortium:
    """An agreement that all have signed, and a job that was proposed, approved, trained and released."""
    agree(running)
    uni, asked, cut = (running.people[name] for name in (RESEARCHER, ASKS, "lakeside"))
    job = uni.folder / "job"
    uni.types("job", "new", job)
    edit(job / "job.toml", {"name": '"first"', "rounds": str(ROUNDS), "live": "1"})
    checked = uni.types("job", "check", job, "--member", uni.folder, "--no-dry")
    assert "lakeside/breast-cancer: epsilon at most 3" in checked
    said = uni.types("job", "submit", job, "--member", uni.folder)
    watching = uni.converses("job", "watch", job, "--member", uni.folder)
    until(lambda: "waits for a person" in asked.screen(), "the question to a person")
    listed = asked.types("hospital", "jobs", asked.folder)
    assert "waits      first: uni, cancer-research, proposed" in listed
    assert "hospital approve" in asked.types("hospital", "show", asked.folder, "first")
    assert "approved by you" in asked.types("hospital", "approve", asked.folder, "first")
    watching.wait_for("round 2 of")
    hosts.cut(cut.host)
    time.sleep(CUT_SECONDS)
    hosts.mend(cut.host)
    watched = watching.succeed()
    assert f"round {ROUNDS} of {ROUNDS}" in watched
    assert "fetch it with: wardround job result" in watched
    (running.job,) = re.findall("[0-9a-f]{64}", said)
    return running


def agree(running: Consortium) -> None:
    """Find out what is offered, propose an agreement on all of it, and let every party read and sign it."""
    uni = running.people[RESEARCHER]

    def offered() -> bool:
        return len(json.loads(uni.host.wardround("member", "datasets", uni.folder, "--json"))) == 3

    until(offered, "every hospital's dataset")
    listed = uni.types("member", "datasets", uni.folder)
    refs = re.findall(r"^(\S+): about \d+ patients, for cancer-research$", listed, re.MULTILINE)
    assert refs == [f"{name}/breast-cancer" for name in HOSPITALS]
    agreement = uni.folder / "agreement"
    uni.types("agreement", "new", agreement)
    changes = {"parties": [*HOSPITALS, RESEARCHER], "datasets": refs, "purposes": ["cancer-research"]}
    edit(agreement / "agreement.toml", {key: json.dumps(value) for key, value in changes.items()})
    said = uni.types("agreement", "propose", agreement, "--member", uni.folder)
    (digest,) = re.findall("[0-9a-f]{64}", said)
    waiting = running.people[ASKS]
    named = f"{digest[:12]}  waits for this hospital's signature"
    until(lambda: named in waiting.host.wardround("hospital", "jobs", waiting.folder), "the proposal")

    def decide(person: Person) -> None:
        text = agreement / "agreement.txt"  # it came by whatever way they trust
        shown = person.types("member", "show", person.folder, digest[:12], "--text", text)
        assert "its text is the file that you gave" in shown
        assert "signed; " in person.types("member", "sign", person.folder, digest[:12], answer="y\n")

    at_once(decide, running.hospitals)
    assert "  in force, " in uni.types("agreement", "list", "--member", uni.folder)


def edit(file: Path, changes: dict[str, str]) -> None:
    """Change lines of a settings file, as a person does in an editor."""
    text = file.read_text()
    for key, value in changes.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
        assert count == 1, key
    file.write_text(text)


def test_nobody_tried_to_reach_a_hospital_and_a_hospital_reached_for_nothing_else(
    finished: Consortium,
) -> None:
    """Counted by the firewalls over all of it, before anybody is made to try."""
    for person in finished.hospitals:
        assert hosts.dropped(person.host) == 0
        assert hosts.dropped(person.host, "output") == 0
    assert hosts.dropped(finished.people[COORDINATOR].host) == 0


def test_an_auditor_without_a_network_verifies_the_copied_evidence(finished: Consortium) -> None:
    uni, auditor = finished.people[RESEARCHER], finished.people[AUDITOR]
    out = uni.folder / "result"
    told = uni.types("job", "result", finished.job[:12], "--member", uni.folder, "--out", out)
    assert told.splitlines()[-1].startswith("wardround evidence verify")
    evidence = shutil.copytree(out, auditor.folder) / "evidence"
    verified = auditor.types("evidence", "verify", evidence, "--charter", finished.charter)
    assert f"All {ROUNDS} models of job first" in verified
    assert "bit for bit" in verified
    policy = evidence / "trust.policy"
    log = auditor.types(
        "ledger", "verify", evidence / "log", "--policy", policy, "--charter", finished.charter
    )
    assert f"finished, {ROUNDS} of {ROUNDS} rounds" in log
    other = f"{int(finished.charter[0], 16) ^ 1:x}{finished.charter[1:]}"
    refused = auditor.types("evidence", "verify", evidence, "--charter", other, status=1)
    assert "Established" not in refused


def test_a_hospital_typed_what_the_guide_counts(finished: Consortium) -> None:
    """Three commands to train, two for an agreement, three for a job that a person decides about."""
    blocks = [
        re.findall(r"wardround (\w+ \w+)", block)
        for block in re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)
    ]
    joining, agreement, job = blocks[:3]
    assert "## From nothing to training: three commands" in GUIDE
    assert len(joining) == 3
    for person in finished.hospitals:
        asked = person.host.name == ASKS
        assert person.typed == [*joining, *agreement, *(job if asked else [])]


def test_a_hospitals_host_is_unreachable_from_all_others(finished: Consortium) -> None:
    people = finished.people
    target = people["lakeside"].host
    listener = subprocess.Popen(
        [*target.prefix, sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True
    )
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "up\n"
        itself = target.run(sys.executable, "-c", CALL, "127.0.0.1", str(LISTENING))
        assert itself.returncode == 0  # it does listen
        for name in (COORDINATOR, "northgate"):
            tried = people[name].host.run(sys.executable, "-c", CALL, target.address, str(LISTENING))
            assert "TimeoutError" in tried.stderr
        assert hosts.dropped(target) > 0  # the coordinator's attempt came this far
        # the other hospital's did not leave its own host
        assert hosts.dropped(people["northgate"].host, "output") > 0
    finally:
        listener.kill()
        listener.wait()
        assert listener.stdout is not None
        listener.stdout.close()
