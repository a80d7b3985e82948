"""Model files that attack: each is contained, refused under its name or harmless, and the agent goes on.

Every file runs in a process of its own with the real confinement (`tests.client.warm_builder`); the test at the end
has a real agent with a real builder and a real worker.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client import building, graph_model, model_builder, noise, randomness, sandbox
from client.agent import Agent
from client.decisions import Decisions
from client.errors import DeclinedError, GraphError
from client.model_graph import parse
from client.reviewed import CUSTOM
from ledger import envelope
from ledger.records import Refusal
from tests.client import hospital_folder, warm_builder
from tests.client.fake_coordinator import FakeCoordinator, follow, training_of_the_test
from tests.client.warm_builder import LIMITS, SHAPE

HONEST = """\
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, features, outputs):
        super().__init__()
        self.a, self.out = nn.Linear(features, 4), nn.Linear(4, outputs)
        self.register_buffer("seen", torch.zeros(features))

    def forward(self, x):
        # forward
        return self.out(torch.tanh(self.a(x)))

def build_model(*, input_shape, outputs):
    return Model(input_shape[0], outputs)
"""


def first(code: str) -> str:
    """The honest model, with an attack as its file is run."""
    return code + "\n" + HONEST


def forward(code: str) -> str:
    """The honest model, with an attack each time it is called."""
    return HONEST.replace("# forward", code.replace("\n", "\n        "))


REFUSED: dict[str, tuple[str, str]] = {
    "opens a socket": (first("import socket; socket.socket()"), "model-network"),
    "resolves a name": (first("import socket; socket.getaddrinfo('example.org', 443)"), "model-network"),
    "opens a socket in forward": (forward("import socket; socket.create_connection(('::1', 1))"), "model-network"),
    "reads the list of users": (first("print(open('/etc/passwd').read())"), "model-file"),
    "reads a key": (first("import os; os.open('/KEYS/identity.key', os.O_RDONLY)"), "model-file"),
    "reads the data file": (forward("open('/DATA/patients.csv').read()"), "model-file"),
    "reads the agent's memory": (first("import os; open(f'/proc/{os.getppid()}/mem', 'rb')"), "model-file"),
    "lists a folder": (first("import os; os.listdir('/')"), "model-file"),
    "writes a file": (first("open('/tmp/written', 'w').write('rows')"), "model-file"),
    "forks": (first("import os; os.fork()"), "model-process"),
    "forks forever": (first("import os\nwhile True: os.fork()"), "model-process"),
    "forks in forward": (forward("import os; os.fork()"), "model-process"),
    "runs a program": (first("import os; os.execv('/bin/sh', ['sh'])"), "model-process"),
    "runs a shell": (first("import os; os.system('id > /tmp/written')"), "model-process"),
    "runs a subprocess": (first("import subprocess; subprocess.run(['id'])"), "model-process"),
    "starts threads forever": (
        first("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()"),
        "model-process",
    ),
    "kills the agent": (first("import os; os.kill(os.getppid(), 9)"), "model-process"),
    "makes a system call by ctypes": (first("import ctypes; ctypes.CDLL(None).syscall(41, 2, 1, 0)"), "model-system"),
    "makes a system call by what is loaded": (first("import ctypes; ctypes.pythonapi.syscall(57)"), "model-system"),
    "allocates all memory": (first("kept = []\nwhile True: kept.append(bytearray(1 << 24))"), "model-memory"),
    "allocates all memory by torch": (forward("torch.zeros(1 << 40)"), "model-memory"),
    "shares all memory": (first("import mmap; mmap.mmap(-1, 1 << 40)"), "model-memory"),
    "recurses forever": (first("def again(): again()\nagain()"), "model-crash"),
    "ends the process": (first("import os; os._exit(0)"), "model-crash"),
    "raises SystemExit": (first("raise SystemExit(0)"), "model-crash"),
    "raises KeyboardInterrupt": (forward("raise KeyboardInterrupt"), "model-crash"),
    "raises what nobody knows": (first("class E(BaseException): pass\nraise E"), "model-crash"),
    "closes every descriptor": (first("import os; os.closerange(0, 64)"), "model-crash"),
    "ends by a signal without a name": (first("import signal; signal.raise_signal(40)"), "model-crash"),
    "crashes the interpreter": (first("import faulthandler; faulthandler._sigsegv()"), "model-crash"),
    "says garbage to the agent": (first("import os; os.write(3, b'x' * 64)"), "model-crash"),
    "announces 4 GiB": (
        first("import os, struct; os.write(3, struct.pack('>IQ', 2, 1 << 32) + b'{}' + b'x' * 64)"),
        "model-crash",
    ),
    "lies about its code": (
        first("import os, struct; t = b'{\"code\":\"budget\"}'; os.write(3, struct.pack('>IQ', len(t), 0) + t)"),
        "model-crash",  # it says nothing of the hospital on the record
    ),
    "writes to param.data": (forward("self.a.weight.data.add_(1)"), "model-state"),
    "writes to a parameter": (forward("with torch.no_grad(): self.a.weight.add_(x.mean())"), "model-state"),
    "smuggles a row through a buffer": (forward("self.seen.copy_(x[0])"), "model-state"),
    "smuggles a row out of sight of eager runs": (
        forward("if torch.compiler.is_exporting(): self.seen.copy_(x[0])"),
        "model-state",
    ),
    "keeps a row in a global": (
        first("LAST = []") + forward("LAST.append(x)\nx = x + LAST[-2] if len(LAST) > 1 else x"),
        "model-state",
    ),
    "uses BatchNorm": (HONEST.replace("nn.Linear(4, outputs)", "nn.BatchNorm1d(4)"), "model-state"),
    "draws random numbers": (forward("x = x + torch.randn_like(x)"), "model-randomness"),
    "draws random numbers when traced": (
        forward("if torch.compiler.is_exporting(): x = x + torch.rand(5)"),
        "model-randomness",
    ),
    "uses dropout": (HONEST.replace("torch.tanh(", "nn.functional.dropout("), "model-randomness"),
    "branches on a value": (forward("x = x * 2 if x.sum() > 0 else x"), "model-graph"),
    "has a shape that values decide": (forward("x = x + x[x > 0].sum()"), "model-graph"),
    "takes a number out of a row": (forward("x = x * x[0, 0].item()"), "model-graph"),
    "uses a tensor subclass": (
        first("import torch\nclass T(torch.Tensor): pass") + forward("x = x.as_subclass(T)"),
        "model-graph",
    ),
    "is no model": (first("") + "\ndef build_model(**_): return 3", "model-crash"),
    "is no Python": ("def build_model(:", "model-crash"),
    "imports what is not there": (first("import no_such_module"), "model-crash"),
    "imports what was not imported before": (first("import tarfile, turtle"), "model-crash"),
}  # fmt: skip
SLOW = {
    "loops forever": first("while True: pass"),
    "sleeps forever": first("import time; time.sleep(1e9)"),
    "loops forever deaf to signals": first(
        "import signal\nfor s in (2, 15, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    ),
    "goes on after closing the pipe": first("import os; os.close(3)\nwhile True: pass"),
}
HARMLESS = {
    "prints to everything": first(
        "import sys, os\nprint('S3CRET'); sys.stderr.write('S3CRET'); os.write(2, b'S3CRET')"
    ),
    "remembers rows and does nothing with them": first("ROWS = []") + forward("ROWS.append(x)"),
    "patches torch": first(
        "import torch\ntorch.optim.SGD = torch.clamp = torch.Tensor.norm = lambda *a, **k: 0"
    ),
    "patches our noise": first(
        "from client import noise, randomness\nnoise.discrete_gaussian = lambda *a: 0\n"
        "randomness.system_randomness = None"
    ),
    "patches vmap": first("import torch\ntorch.vmap = torch.func.grad = lambda *a, **k: None"),
    "leaves a handler for the end": first(
        "import atexit\natexit.register(lambda: open('/tmp/written', 'w'))"
    ),
    "has a destructor": first("class D:\n    def __del__(self): open('/tmp/written', 'w')\nD.kept = D()"),
    "has a trap for pickle": HONEST.replace(
        "    def forward",
        "    def __reduce__(self): import os; return (os.system, ('touch /tmp/written',))\n\n    def forward",
    ),
    "hides behind the input's values": forward("x = torch.where(x.sum() > 1e6, x * 1e9, x)"),
}


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    assert sandbox.available() == ()
    torch.set_num_threads(1)
    model_builder.warm_up()


@pytest.fixture(scope="module")
def honest_graph(warm: None) -> bytes:
    return warm_builder.build(HONEST)


@pytest.mark.parametrize("name", REFUSED)
def test_model_file_is_contained_and_named(name: str) -> None:
    source, code = REFUSED[name]
    with pytest.raises(DeclinedError) as declined:
        warm_builder.build(source)
    assert declined.value.code == code, str(declined.value)
    assert str(declined.value).isprintable()
    assert not Path("/tmp/written").exists()


@pytest.mark.parametrize("name", SLOW)
def test_model_file_that_never_ends_is_ended(name: str) -> None:
    began = time.monotonic()
    with pytest.raises(DeclinedError) as declined:
        warm_builder.build(SLOW[name], replace(LIMITS, model_seconds=1))
    assert declined.value.code == "model-time"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("name", HARMLESS)
def test_model_file_gives_the_honest_graph_whatever_else_it_does(
    name: str, honest_graph: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (noise.discrete_gaussian, randomness.system_randomness, torch.vmap)
    graph = warm_builder.build(HARMLESS[name])
    out, err = capfd.readouterr()
    assert "S3CRET" not in out + err
    assert (noise.discrete_gaussian, randomness.system_randomness, torch.vmap) == before
    assert not Path("/tmp/written").exists()
    model = graph_model.from_bytes(graph, SHAPE)
    assert [name for name, _ in model.named_parameters()] == ["a.weight", "a.bias", "out.weight", "out.bias"]
    honest = graph_model.from_bytes(honest_graph, SHAPE)
    examples = torch.randn((3, *SHAPE), generator=torch.Generator().manual_seed(1))
    for p, q in zip(model.parameters(), honest.parameters(), strict=True):
        torch.nn.init.constant_(p, 0.3)
        torch.nn.init.constant_(q, 0.3)
    assert torch.equal(model(examples), honest(examples))


def test_lies_about_parameters_are_not_believed() -> None:
    source = HONEST.replace(
        "    def forward", "    def parameters(self, recurse=True): return iter(())\n\n    def forward"
    )
    model = graph_model.from_bytes(warm_builder.build(source), SHAPE)
    assert sum(p.numel() for p in model.parameters()) == 5 * 4 + 4 + 4 + 1


def test_a_forged_graph_reaches_the_worker_and_is_refused_there() -> None:
    node = {"op": "from_file.default", "args": ["/etc/passwd"]}
    forged = json.dumps({"type": "wardround-model-graph/1", "input": [5], "parameters": [], "constants": [],
                         "nodes": [node], "result": {"ref": 1}})  # fmt: skip
    code = f'import os, struct; g = {forged.encode()!r}; t = b\'{{"code":"ok"}}\'\n'
    graph = warm_builder.build(first(code + "os.write(3, struct.pack('>IQ', len(t), len(g)) + t + g)"))
    with pytest.raises(GraphError, match="from_file"):
        parse(graph)


def test_model_file_gets_no_descriptor_that_a_library_left_open(tmp_path: Path) -> None:
    """The real builder, started while this process holds a file that a new program inherits."""
    (tmp_path / "identity.key").write_text("S3CRET")
    held = os.open(tmp_path / "identity.key", os.O_RDONLY)
    inherited = 57
    try:
        os.dup2(held, inherited, inheritable=True)
        tell = f"import os\ntry:\n    found = os.read({inherited}, 9)\nexcept OSError: found = b''\nassert not found"
        graph = building.build(first(tell).encode(), input_shape=SHAPE, outputs=1, limits=LIMITS)
    finally:
        os.close(held)
        os.close(inherited)
    assert parse(graph).parameters


def test_an_operation_of_the_jobs_own_is_refused() -> None:
    source = first(
        "import torch\nlib = torch.library.Library('own', 'DEF')\nlib.define('leak(Tensor x) -> Tensor')\n"
        "lib.impl('leak', lambda x: x.clone(), 'CompositeExplicitAutograd')\n"
    ) + forward("x = torch.ops.own.leak(x)")
    with pytest.raises((GraphError, DeclinedError)) as caught:
        parse(warm_builder.build(source))
    assert getattr(caught.value, "code", "model-graph") == "model-graph"


def test_on_a_machine_that_cannot_confine_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: ("the kernel has no Landlock",))
    with pytest.raises(DeclinedError, match="Landlock") as declined:
        warm_builder.build(HONEST)
    assert declined.value.code == "sandbox"


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[FakeCoordinator]:
    made = FakeCoordinator(tmp_path / "log")
    yield made
    made.close()


LINEAR = "from torch import nn\ndef build_model(*, input_shape, outputs): return nn.Linear(input_shape[0], outputs)\n"


def test_a_hostile_job_is_refused_on_the_record_and_the_agent_trains_the_next_one(
    coordinator: FakeCoordinator, tmp_path: Path
) -> None:
    hospital = hospital_folder.hospital(tmp_path / "alpha")
    hospital.models.mkdir()
    hostile = "import socket; socket.socket()\n" + LINEAR
    jobs: list[str] = []
    with Agent(hospital, clock=lambda: coordinator.now, consortium=coordinator.door()) as agent:
        follow(agent)
        for name, source in (("hostile", hostile), ("honest", LINEAR)):
            (hospital.models / f"{name}.py").write_text(source)
            code = hashlib.sha256(source.encode()).hexdigest()
            training = replace(training_of_the_test(), model=CUSTOM, model_code=code)
            jobs.append(coordinator.job_on_alpha_and_bravo(training=training))
            follow(agent)
            Decisions(hospital.folder).decide(jobs[-1], "approve", coordinator.folder.store.size)
            follow(agent)
        found = [coordinator.consortium.state.jobs[job] for job in jobs]
        refusals = [r for r in records_of(coordinator) if isinstance(r, Refusal)]
        assert [(r.hospital, r.job, r.code) for r in refusals] == [("alpha", jobs[0], "model-network")]
        assert "alpha" in found[1].approved
        coordinator.start(jobs[1])
        for _ in range(2):  # the second brings a histogram too
            reply = agent.handle(coordinator.message(jobs[1]))
            assert reply.config["kind"] == "receipt"
            assert reply.update is not None
            assert (reply.update.dtype, reply.update.shape) == (
                np.dtype("<i8"),
                (hospital_folder.PARAMETERS,),
            )
            receipt = reply.config["receipt"]
            assert isinstance(receipt, bytes)
            coordinator.close_round(jobs[1], receipt)


def records_of(coordinator: FakeCoordinator) -> list[object]:
    store = coordinator.folder.store
    return [envelope.parse_entry(data).record for data in store.entries(0, store.size)]
