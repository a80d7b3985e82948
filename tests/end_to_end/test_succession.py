"""A log dies and another follows it: drafted, signed by a quorum, followed by a hospital whose account stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from client import cli as hospital_cli
from client import config, succession
from client.premises import open_mirror
from coordinator import backup
from coordinator import cli as coordinator_cli
from coordinator.config import read_key
from coordinator.errors import SuccessionError
from ledger import audit, envelope, example, records, succeed
from ledger.checkpoint import Checkpoint, cosign
from ledger.durable import write_private
from ledger.errors import LedgerError, RuleError
from ledger.log import Log
from ledger.note import Note
from ledger.restart import Report
from ledger.source import open_source
from ledger.state import State
from tests.client.test_agent import Scene, entry_of, statement

ORIGIN = "ledger.example/heart-2"


class Dead:
    """A consortium that trained two rounds and whose coordinator's log then died."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.old, self.new = path / "old", path / "new"
        self.scene = Scene(path)
        self.old.mkdir()
        with self.scene.agent() as agent:
            job = self.scene.started(agent)
            for _ in range(2):
                reply = agent.handle(self.scene.coordinator.message(job))
                self.scene.coordinator.close_round(job, entry_of(reply))
            agent.follow_once()
        self.scene.coordinator.close()
        self.scene.coordinator.folder.path.rename(self.old / "log")
        (self.old / "coordinator.toml").write_text("port = 8443\n")
        (self.old / "blobs" / "ab").mkdir(parents=True)
        (self.old / "blobs" / "ab" / ("c" * 62)).write_text("a blob")
        (self.old / "keys").mkdir()
        write_private(self.old / "keys" / "coordinator.key", example.KEYS["coordinator"].to_text().encode())
        self.folder = self.scene.hospital.folder

    def run(self, app: Any, *arguments: object) -> Any:
        done = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
        return json.loads(done.output) if done.output else {}

    def draft(self) -> Path:
        path = self.path / "draft.json"
        self.run(coordinator_cli.app, "succeed", self.old, self.new, "--origin", ORIGIN, "--draft", path)
        return path

    def signed(self, draft: Path, *names: str) -> list[Path]:
        """Have alpha sign by its command, and the others by hand."""
        record = records.parse(draft.read_bytes())
        paths = []
        for name in names:
            paths.append(self.path / f"{name}.entry")
            if name == "alpha":
                self.run(hospital_cli.app, "succeed", self.folder, draft, "--sign-out", paths[-1])
            else:
                paths[-1].write_bytes(envelope.sign(record, example.KEYS[name]))
        return paths

    def make(self, *signed: Path) -> Any:
        options = [part for path in signed for part in ("--signed", path)]
        return self.run(coordinator_cli.app, "succeed", self.old, self.new, *options)

    def finish(self) -> Any:
        return self.make(*self.signed(self.draft(), *QUORUM))


QUORUM = ("alpha", "bravo", "charlie", "delta")


@pytest.fixture
def dead(tmp_path: Path) -> Dead:
    return Dead(tmp_path)


def opened(dead: Dead) -> Log:
    """The new log, its witnesses having reported its first checkpoint."""
    key = read_key(dead.new / "keys" / "log.key")
    log = Log.open(dead.new / "log", [key])
    note = Note.from_bytes(log.store.pending() or b"")
    reports = []
    for witness in example.WITNESSES.values():
        line = cosign(note.text, witness, dead.scene.coordinator.now)
        log.cosign(Checkpoint.from_text(note.text).size, [line])
        reports.append(Report(witness=witness.verifier, note=note.with_signatures(line)))
    log.resume(reports)
    return log


def test_new_log_begins_with_the_succession_and_is_audited_with_the_dead_one(dead: Dead) -> None:
    made = dead.finish()
    with opened(dead) as log:
        assert log.view.state.origin == ORIGIN
        assert log.view.state.dead_logs == (example.LOG_KEY.verifier.to_text(),)
    before = succeed.last_final(open_source(str(dead.old / "log")))
    found = audit.audit(open_source(str(dead.new / "log")), charter=made["charter"], predecessor=before)
    assert found.predecessor == before.state.origin
    assert (dead.new / "blobs" / "ab" / ("c" * 62)).read_text() == "a blob"
    assert backup.read_previous(dead.new) == before


def test_too_few_signatures(dead: Dead) -> None:
    with pytest.raises(RuleError, match=r"succession\.decided"):
        dead.make(*dead.signed(dead.draft(), *QUORUM[:3]))
    assert not (dead.new / "log").exists()


def test_signatures_of_two_drafts(dead: Dead) -> None:
    paths = dead.signed(dead.draft(), *QUORUM)
    other = records.parse((dead.path / "draft.json").read_bytes())
    changed = records.Succession(
        **{name: getattr(other, name) for name in ("origin", "founded_at", "previous", "terms")},
        name="another-name",
    )
    paths[1].write_bytes(envelope.sign(changed, example.KEYS["bravo"]))
    with pytest.raises(LedgerError, match="one draft"):
        dead.make(*paths)


def test_folder_that_holds_a_log_is_left_alone(dead: Dead) -> None:
    dead.finish()
    with pytest.raises(SuccessionError, match="holds a log already"):
        dead.make(*(dead.path / f"{name}.entry" for name in QUORUM))


def test_hospital_signs_nothing_that_makes_final_entries_void(dead: Dead) -> None:
    draft = dead.draft()
    record = records.parse(draft.read_bytes())
    assert isinstance(record, records.Succession)
    read = open_source(str(dead.old / "log"))
    earlier = audit.replay(read, record.previous.size - 3)
    draft.write_bytes(succeed.propose(earlier, ORIGIN, record.terms.log, record.founded_at).to_bytes())
    with pytest.raises(LedgerError, match="would make some of them void"):
        dead.signed(draft, "alpha")


def test_hospital_signs_nothing_of_another_root(dead: Dead) -> None:
    draft = dead.draft()
    text = draft.read_bytes()
    root = json.loads(text)["previous"]["root"]
    draft.write_bytes(text.replace(root.encode(), b"0" * 64))
    with pytest.raises(LedgerError, match="another root"):
        dead.signed(draft, "alpha")


def test_hospital_is_told_what_else_changes(dead: Dead) -> None:
    draft = dead.draft()
    record = records.parse(draft.read_bytes())
    assert isinstance(record, records.Succession)
    found = dead.run(hospital_cli.app, "succeed", dead.folder, draft)
    assert found["changes"] == []
    assert found["digest"] == record.digest()
    fewer = json.loads(draft.read_bytes())
    fewer["terms"]["members"] = [m for m in fewer["terms"]["members"] if m["name"] != "bravo"]
    draft.write_bytes(json.dumps(fewer, sort_keys=True, separators=(",", ":")).encode())
    assert (
        "bravo is no member any more" in dead.run(hospital_cli.app, "succeed", dead.folder, draft)["changes"]
    )


def test_hospital_follows_and_its_account_and_the_dead_log_stay(dead: Dead) -> None:
    made = dead.finish()
    before = statement(dead.scene)
    old = envelope.parse_entry(succeed_first(dead)).digest
    entry = dead.new / "succession.entry"
    for _ in range(2):  # again, nothing changes
        hospital = config.load(dead.folder)
        assert dead.run(hospital_cli.app, "succeed", dead.folder, entry, "--follow")["follows"] == ORIGIN
    hospital = config.load(dead.folder)
    assert hospital.charter == made["charter"]
    assert statement(dead.scene) == before
    assert (dead.folder / f"mirror-{old[:16]}" / "log.sqlite").is_file()
    with opened(dead), open_mirror(hospital.mirror, hospital.charter) as mirror:
        read = open_source(str(dead.new / "log"))
        mirror.follow(read, dead.scene.coordinator.now)
        assert mirror.view is not None
        state: State = mirror.view.state
        assert (state.origin, state.size, dict(state.jobs), dict(state.datasets)) == (ORIGIN, 1, {}, {})
        assert mirror.cosign(example.WITNESSES["alpha"], dead.scene.coordinator.now)
        assert mirror.view_at(1).state == state
    with open_mirror(hospital.mirror, hospital.charter) as mirror:  # after a restart, too
        assert mirror.view is not None
        assert mirror.view.state == state


@pytest.mark.parametrize("step", ["create", "settings", "first renaming", "second renaming"])
def test_hospital_killed_while_it_changes_over(
    dead: Dead, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class KilledError(Exception):
        pass

    def dies(*_: object) -> None:
        raise KilledError

    dead.finish()
    entry = dead.new / "succession.entry"
    with monkeypatch.context() as patch:
        if step in ("create", "settings"):
            patch.setattr(f"client.succession.{'_name_charter' if step == 'create' else '_rename'}", dies)
        else:
            real, left = succession._rename, [0 if step == "first renaming" else 1]

            def rename(source: Path, target: Path) -> None:
                left[0] -= 1
                if left[0] < 0:
                    raise KilledError
                real(source, target)

            patch.setattr("client.succession._rename", rename)
        with pytest.raises(KilledError):
            dead.run(hospital_cli.app, "succeed", dead.folder, entry, "--follow")
    dead.run(hospital_cli.app, "succeed", dead.folder, entry, "--follow")
    hospital = config.load(dead.folder)
    open_mirror(hospital.mirror, hospital.charter).close()
    assert len(list(dead.folder.glob("mirror-*"))) == 1
    assert not (dead.folder / "mirror.next").exists()


def succeed_first(dead: Dead) -> bytes:
    return next(audit.entries(open_source(str(dead.old / "log")), 1))
