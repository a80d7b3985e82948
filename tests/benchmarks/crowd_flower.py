"""The reference of `tests.benchmarks.crowd`: the same model and rows in Flower's simulation, as its users write it.

`plain` follows the PyTorch quickstart of Flower 1.41 (a ClientApp that trains by SGD, FedAvg in the ServerApp), with
no evaluation at all. `opacus` follows Flower's example of sample-level differential privacy: the client makes a new
PrivacyEngine in each round. Both take every patient in one step a round, as the job does. A module of its own,
because Ray's actors import it by its name.
"""

from __future__ import annotations

import logging
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

DATA = "WARDROUND_BENCHMARK_ROWS"  # names the file with the hospitals' prepared rows
NOISE, CLIP, RATE, DELTA = 5.0, 0.5, 0.3, 1e-4
ROUNDS = 10


def net(features: int) -> nn.Module:
    """The job's mlp."""
    return nn.Sequential(nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, 1))


@cache
def rows() -> tuple[Any, Any, Any]:
    """Features, labels and ends of all hospitals, mapped."""
    folder = Path(os.environ[DATA])
    features, labels, ends = (
        np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("features", "labels", "ends")
    )
    return features, labels, ends


def rows_of(partition: int) -> tuple[Any, Any]:
    features, labels, ends = rows()
    part = slice(ends[partition], ends[partition + 1])
    return features[part], labels[part]


def loader(partition: int) -> DataLoader[Any]:
    features, labels = rows_of(partition)
    x, y = torch.from_numpy(features), torch.from_numpy(labels).float()
    return DataLoader(TensorDataset(x, y), batch_size=len(y), shuffle=True)


def fit(model: nn.Module, optimizer: Any, data: DataLoader[Any]) -> float:
    """One pass over a hospital's rows."""
    criterion, running = nn.BCEWithLogitsLoss(), 0.0
    model.train()
    for x, y in data:
        optimizer.zero_grad()
        loss = criterion(model(x).reshape(-1), y)
        loss.backward()
        optimizer.step()
        running += loss.item()
    return running / len(data)


def train(message: Message, context: Context) -> Message:
    """The quickstart's client."""
    return answer(message, context, private=False, epsilon=False)


def train_opacus(message: Message, context: Context) -> Message:
    """The example's client, without the epsilon that it computes in each round."""
    return answer(message, context, private=True, epsilon=False)


def train_opacus_epsilon(message: Message, context: Context) -> Message:
    """The example's client as it is."""
    return answer(message, context, private=True, epsilon=True)


def answer(message: Message, context: Context, *, private: bool, epsilon: bool) -> Message:
    torch.set_num_threads(1)
    model = net(rows()[0].shape[1])
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    partition = int(context.node_config["partition-id"])
    data = loader(partition)
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=RATE)
    trained: Any = model
    if private:
        warnings.filterwarnings("ignore", category=UserWarning)
        logging.getLogger("opacus").setLevel(logging.ERROR)
        from opacus import PrivacyEngine

        engine = PrivacyEngine(secure_mode=False)
        trained, optimizer, data = engine.make_private(
            module=model, optimizer=optimizer, data_loader=data, noise_multiplier=NOISE, max_grad_norm=CLIP
        )
    loss = fit(trained, optimizer, data)
    if epsilon:
        engine.get_epsilon(delta=DELTA)
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(rows_of(partition)[1])})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


CLIENTS = {"flower": train, "flower-opacus": train_opacus, "flower-opacus-epsilon": train_opacus_epsilon}


def simulate(which: str, hospitals: int, processes: int) -> None:
    """Run Flower's own simulation, one virtual node for each hospital."""
    client, server = ClientApp(), ServerApp()
    client.train()(CLIENTS[which])

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
        arrays = ArrayRecord(net(rows()[0].shape[1]).state_dict())
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=ROUNDS)

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=hospitals,
        backend_config={
            "init_args": {"num_cpus": processes},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
