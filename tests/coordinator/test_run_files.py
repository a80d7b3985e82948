"""What a finished job left, over the public port: exactly the listed files, to members, on the record once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator import evidence
from ledger import example
from tests.coordinator.public_port import Client, app_of
from tests.coordinator.test_runner import CarryingFlower, finished, running
from tests.coordinator.ward import Ward, sha


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    made = Ward(tmp_path_factory.mktemp("ward"))
    with pytest.MonkeyPatch.context() as patch, running(made, CarryingFlower(made), patch):
        made.propose()
        made.approve()
        assert finished(made, made.job)
    made.reopen()
    (made.folder / "runs" / "secret.txt").write_text("of nobody's job")
    return made


@pytest.fixture(scope="module")
def client(ward: Ward) -> Iterator[Client]:
    with Client(app_of(ward)) as made:
        yield made


def test_every_listed_file_is_handed_out_as_it_was_listed(ward: Ward, client: Client) -> None:
    job = ward.job.digest()
    files = client.get(f"/api/runs/{job}", "researcher").json()["files"]
    run = ward.folder / "runs" / job
    found = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    assert {f["path"] for f in files} == found
    assert {f"evidence/{n}" for n in (evidence.INDEX, evidence.POLICY)} < found
    for file in files:
        data = client.get(f"/api/runs/{job}/{file['path']}", "researcher").content
        assert (len(data), sha(data)) == (file["size"], file["digest"])


def test_a_handout_is_on_the_record_once_for_each_member(ward: Ward, client: Client) -> None:
    job = ward.job.digest()
    for reader in ("researcher", "alpha", "researcher"):
        assert client.get(f"/api/runs/{job}/card.md", reader).status_code == 200
    noted = {(k[1], k[2], k[4]) for k in ward.sequencer.standing.histories.handouts}
    assert noted == {("researcher", "evidence", "release"), ("alpha", "evidence", "participation")}
    assert ward.sequencer.standing.state.deliveries == 2


@pytest.mark.parametrize(
    "path",
    [
        "",
        "evidence",
        "evidence/",
        "evidence/log",
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "evidence/../../secret.txt",
        "evidence//bundle.json",
        "/etc/passwd",
        "evidence/bundle.json%00",
        "card.md/",
    ],
)
def test_nothing_else_is_handed_out(ward: Ward, client: Client, path: str) -> None:
    answer = client.get(f"/api/runs/{ward.job.digest()}/{path}", "researcher")
    assert answer.status_code in (400, 404)


@pytest.mark.parametrize("job", ["0" * 64, "..", "secret.txt", "A" * 64])
def test_no_other_folder_is_listed(client: Client, job: str) -> None:
    assert client.get(f"/api/runs/{job}", "researcher").status_code in (400, 404)


def test_strangers_get_nothing(ward: Ward, client: Client) -> None:
    target = f"/api/runs/{ward.job.digest()}"
    assert client.ask("GET", target).status_code == 401
    assert client.ask("GET", f"{target}/card.md", example.key("stranger", "stranger")).status_code == 401


def test_a_job_under_way_has_no_files(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.start()
    with Client(app_of(ward)) as client:
        assert client.get(f"/api/runs/{ward.job.digest()}", "researcher").status_code == 404
