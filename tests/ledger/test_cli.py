"""The `wardround ledger` commands as their users run them, and what they say to bad input."""

from __future__ import annotations

import http.server
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import typer

import wardround
from ledger import canonical, cli, envelope, example
from ledger.records import Tick

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; return status, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            wardround.main(["ledger", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def log(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "example"
    assert run("example", path)[0] == 0
    return path


def refused(run: Run, *arguments: object) -> str:
    """Run what must fail with one line, status 1 and no traceback; return the line."""
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_the_example_is_the_same_every_time(run: Run, log: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    run("example", again)
    files = sorted(p.relative_to(log) for p in log.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert {"checkpoint", "trust.policy", "example.tlog-proof", "example.leaf"} <= {str(f) for f in files}
    for file in files:
        assert (log / file).read_bytes() == (again / file).read_bytes()
    assert "exists" in refused(run, "example", log)


def test_verify_says_what_it_established(run: Run, log: Path) -> None:
    policy = log / "trust.policy"
    status, out, _ = run("verify", log, "--policy", policy)
    assert status == 0
    assert "22 entries" in out
    assert "Not established" in out
    charter = example.charter().digest()
    status, out, _ = run("verify", log, "--policy", policy, "--charter", charter, "--json")
    result = json.loads(out)
    assert (result["size"], result["charter"], len(result["witnesses"])) == (22, charter, 5)


@pytest.fixture
def served(log: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(log)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_verify_over_http(run: Run, served: str, log: Path) -> None:
    status, out, _ = run("verify", served + "/", "--policy", log / "trust.policy")
    assert status == 0
    assert "22 entries" in out
    (log / "tile" / "0" / "000.p" / "22").unlink()
    assert "missing" in refused(run, "verify", served, "--policy", log / "trust.policy")
    assert "cannot reach" in refused(run, "verify", "http://127.0.0.1:9", "--policy", log / "trust.policy")


def test_show_filters(run: Run, log: Path) -> None:
    assert len(run("show", log)[1].splitlines()) == 24
    rounds = json.loads(run("show", log, "--type", "round", "--json")[1])
    assert [r["record"]["round"] for r in rounds] == [1, 2, 3, 4]
    alpha = json.loads(run("show", log, "--hospital", "alpha", "--json")[1])
    assert {r["type"] for r in alpha} == {"dataset", "approval", "receipt"}
    job = example.job().digest()
    assert len(json.loads(run("show", log, "--job", job[:10], "--json")[1])) == 18
    assert json.loads(run("show", log, "--job", "ffff", "--json")[1]) == []
    assert "choose one of" in refused(run, "show", log, "--type", "rounds")


def test_a_proof_stands_alone(run: Run, log: Path, tmp_path: Path) -> None:
    proof = tmp_path / "five.tlog-proof"
    assert run("prove", 5, log, "-o", proof)[0] == 0
    leaf = tmp_path / "five.leaf"
    policy = log / "trust.policy"
    status, out, _ = run("check-proof", proof, leaf, "--policy", policy)
    assert status == 0
    assert "Entry 5 of 22" in out
    assert json.loads(run("check-proof", proof, leaf, "--policy", policy, "--json")[1])["index"] == 5
    assert "leads to another root" in refused(
        run, "check-proof", proof, log / "example.leaf", "--policy", policy
    )
    assert "no 22" in refused(run, "prove", 22, log, "-o", tmp_path / "x")
    assert "exists" in refused(run, "prove", 6, log, "-o", proof)


def test_the_trust_file_comes_from_the_charter(run: Run, log: Path, tmp_path: Path) -> None:
    charter = tmp_path / "charter.entry"
    charter.write_bytes(example.signed(example.charter()))
    for source, name in ((charter, "a"), (log, "b")):
        assert run("policy", source, "-o", tmp_path / name)[0] == 0
        assert (tmp_path / name).read_bytes() == (log / "trust.policy").read_bytes()


def test_a_log_by_hand(run: Run, tmp_path: Path) -> None:
    """From keys to a verified log with two batches, and a read-only log until its witnesses report."""
    for name, key in {**example.KEYS, "log": example.LOG_KEY}.items():
        (tmp_path / f"{name}.key").write_text(key.to_text() + "\n")
    for name, key in example.WITNESSES.items():
        (tmp_path / f"{name}-witness.key").write_text(key.to_text() + "\n")
    record = canonical.loads(example.charter().to_bytes(), 65_535)
    signed = tmp_path / "charter.json"
    signed.write_text(json.dumps(record, indent=2))  # people lay JSON out as they like
    for i, name in enumerate(example.KEYS):
        run("sign", signed, "--key", tmp_path / f"{name}.key", "-o", tmp_path / f"charter.{i}")
        signed = tmp_path / f"charter.{i}"
    assert signed.read_bytes() == example.signed(example.charter())
    log = tmp_path / "log"
    assert run("init", log, "--charter", signed, "--key", tmp_path / "log.key")[0] == 0
    assert "no final checkpoint" in refused(run, "show", log)
    reports: list[object] = []
    for name in list(example.WITNESSES)[:4]:
        report = tmp_path / f"{name}.report"
        status, out, _ = run("cosign", log, "--key", tmp_path / f"{name}-witness.key", "-o", report)
        assert status == 0
        reports += ["--report", report]
    assert "final" in out
    (tmp_path / "tick").write_bytes(
        envelope.sign(Tick(origin=example.ORIGIN, time=int(time.time())), example.KEYS["coordinator"])
    )
    append = ("append", log, tmp_path / "tick", "--key", tmp_path / "log.key")
    assert "more witnesses must report" in refused(run, *append)
    assert "1 more" in refused(run, *append, *reports[:-2])
    assert run(*append, *reports)[0] == 0
    for name in example.WITNESSES:
        out_file = tmp_path / f"{name}.second"
        assert run("cosign", log, "--key", tmp_path / f"{name}-witness.key", "-o", out_file)[0] == 0
    assert run("verify", log, "--policy", log / "trust.policy")[0] == 0
    assert "no witness" in refused(run, "cosign", log, "--key", tmp_path / "alpha.key", "-o", tmp_path / "x")


def test_keygen_is_private_and_never_overwrites(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "alpha.key"
    status, out, _ = run("keygen", "alpha", "-o", key)
    assert status == 0
    assert "record key" in out
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().strip() not in out
    assert "exists" in refused(run, "keygen", "alpha", "-o", key)
    assert "witness" not in run("keygen", "w", "-o", tmp_path / "w", "--witness")[1].split("\n")[1]
    record = tmp_path / "record"
    record.write_bytes(example.dataset("alpha").to_bytes())
    assert "--witness" in refused(run, "sign", record, "--key", tmp_path / "w", "-o", tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{}", "type"),
        (b'{"type":"tick"}', "lacks the field"),
        (b'{"type":"tick","origin":"a.example","time":1,"spare":2}', "unknown field 'spare'"),
        (b'{"type":"tick","origin":"a.example","time":true}', "tick.time must be an integer"),
        (b'{"type":"wish"}', "unknown record type"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 60_000, "not JSON"),
    ],
)
def test_bad_records(run: Run, tmp_path: Path, content: bytes, says: str) -> None:
    key = tmp_path / "key"
    run("keygen", "alpha", "-o", key)
    record = tmp_path / "record"
    record.write_bytes(content)
    assert says in refused(run, "sign", record, "--key", key, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_10_gb_file_given_as_a_record(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    run("keygen", "alpha", "-o", key)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(10 * 1024**3)  # sparse: it takes no room
    assert "larger than" in refused(run, "sign", huge, "--key", key, "-o", tmp_path / "out")
    assert "no private key" in refused(run, "sign", key, "--key", huge, "-o", tmp_path / "out")


def test_a_policy_with_an_impossible_quorum(run: Run, log: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    text = (log / "trust.policy").read_text()
    policy.write_text(text.replace("witness-quorum 4 ", "witness-quorum 6 "))
    assert "threshold 6 of 5" in refused(run, "verify", log, "--policy", policy)
    policy.write_text(text.replace("quorum witness-quorum", "quorum nobody"))
    refused(run, "verify", log, "--policy", policy)
    assert "there is no file" in refused(run, "verify", log, "--policy", tmp_path / "absent")


def test_a_foreign_logs_key(run: Run, log: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    own = example.LOG_KEY.verifier.to_text()
    foreign = example.key("foreign", example.ORIGIN).verifier.to_text()
    policy.write_text((log / "trust.policy").read_text().replace(own, foreign))
    assert "not signed" in refused(run, "verify", log, "--policy", policy)


def test_damaged_copies(run: Run, log: Path) -> None:
    policy = log / "trust.policy"
    bundle = log / "tile" / "entries" / "000.p" / "22"
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[:-1])
    assert "entries 0 and on" in refused(run, "verify", log, "--policy", policy)
    bundle.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert "entr" in refused(run, "verify", log, "--policy", policy)
    bundle.unlink()
    assert "missing" in refused(run, "verify", log, "--policy", policy)


def test_wrong_usage_exits_with_2(run: Run, log: Path) -> None:
    assert run("verify", log)[0] == 2
    assert run("no-such-verb")[0] == 2
    assert run("prove", "five", log, "-o", "x")[0] == 2


@pytest.mark.parametrize("verb", sorted(typer.main.get_group(cli.app).commands))
def test_every_help_has_an_example(run: Run, verb: str) -> None:
    status, out, _ = run(verb, "--help")
    assert status == 0
    assert "Example: wardround ledger" in out


def test_the_ledger_is_light() -> None:
    """It imports in under 0.3 s of processor time and pulls in nothing heavy; the command line only adds typer."""
    code = (
        "import time, sys; t = time.process_time();"
        "import ledger.audit, ledger.mirror, ledger.log, ledger.example, ledger.tlog_witness;"
        "spent = time.process_time() - t;"
        "heavy = {'torch', 'flwr', 'opacus', 'numpy', 'typer'} & set(sys.modules);"
        "print(spent, sorted(heavy))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env={**os.environ}
    )
    assert done.stdout.split(maxsplit=1)[1].strip() == "[]"
