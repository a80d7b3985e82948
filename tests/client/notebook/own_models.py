"""Models as a data scientist writes them, each with a layer that is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 8


def block(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True), nn.Dropout(0.2)
    )


class Net(nn.Module):
    def __init__(self, features: int, outputs: int, depth: int = 1) -> None:
        super().__init__()
        self.body = block(features)
        self.head = nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(self.body(x)))


class Tuned(nn.Module):
    """A head, and a low-rank change of one layer, over a backbone that stays as it is."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.down = nn.Parameter(torch.zeros(2, 64))
        self.up = nn.Parameter(torch.zeros(16 * 2))  # flat, so that it begins at zero: the backbone as it was
        self.head = nn.Linear(16, outputs)

    def forward(self, x: Tensor) -> Any:
        flat = x.flatten(1)
        low_rank = flat @ self.down.T @ self.up.reshape(16, 2).T
        hidden = torch.relu(self.backbone[0](flat) + low_rank)
        return self.head(torch.relu(self.backbone[2](hidden)))


class Last(nn.Module):
    def __init__(self, body: nn.Module, inner: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(inner, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x).flatten(1))


class FirstOf(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        found = self.layer(x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        return found[0]


Make = Callable[[], nn.Module]
FLAT, LINE, IMAGE, VOLUME = (8,), (4, 12), (4, 6, 6), (2, 4, 4, 4)
# what is refused: shape of one example, the layer, and what its fix says
MENDED: dict[str, tuple[tuple[int, ...], Make, str]] = {
    "BatchNorm1d": (FLAT, lambda: nn.BatchNorm1d(8), "use GroupNorm(2, 8)"),
    "BatchNorm2d": (IMAGE, lambda: nn.BatchNorm2d(4), "use GroupNorm(1, 4)"),
    "BatchNorm3d": (VOLUME, lambda: nn.BatchNorm3d(2, affine=False), "use GroupNorm(1, 2)"),
    "SyncBatchNorm": (IMAGE, lambda: nn.SyncBatchNorm(4), "use GroupNorm(1, 4)"),
    "InstanceNorm1d": (LINE, lambda: nn.InstanceNorm1d(4), "use GroupNorm(4, 4)"),
    "InstanceNorm2d": (IMAGE, lambda: nn.InstanceNorm2d(4, track_running_stats=True), "use GroupNorm(4, 4)"),
    "Dropout": (FLAT, lambda: nn.Dropout(0.5), "leave it out"),
    "Dropout2d": (IMAGE, lambda: nn.Dropout2d(0.5), "leave it out"),
    "AlphaDropout": (FLAT, lambda: nn.AlphaDropout(0.5), "leave it out"),
    "FeatureAlphaDropout": (IMAGE, lambda: nn.FeatureAlphaDropout(0.5), "leave it out"),
    "RReLU": (FLAT, lambda: nn.RReLU(), "use LeakyReLU"),
    "MultiheadAttention": (
        LINE,
        lambda: FirstOf(nn.MultiheadAttention(12, 3, dropout=0.1, batch_first=True)),
        "say dropout=0.0",
    ),
    "LSTM": (LINE, lambda: FirstOf(nn.LSTM(12, 3, 2, dropout=0.1, batch_first=True)), "say dropout=0.0"),
    "TransformerEncoderLayer": (
        LINE,
        lambda: nn.TransformerEncoderLayer(12, 3, 8, batch_first=True),
        "dropout=0.0",
    ),
    "weight norm": (FLAT, lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), "leave it out"),
    "spectral norm": (FLAT, lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), "leave it out"),
    "float64": (FLAT, lambda: nn.Linear(8, 8).double(), "call .float()"),
}
CHOSEN: dict[str, tuple[tuple[int, ...], Make, str]] = {  # whose author has a choice to make
    "LocalResponseNorm": (IMAGE, lambda: nn.LocalResponseNorm(2), "use GroupNorm"),
    "CrossMapLRN2d": (IMAGE, lambda: nn.CrossMapLRN2d(2), "use GroupNorm"),
    "FractionalMaxPool2d": (IMAGE, lambda: nn.FractionalMaxPool2d(2, output_size=3), "use MaxPool2d"),
    "Embedding": (FLAT, lambda: nn.Embedding(9, 2), "use Linear"),
    "EmbeddingBag": (FLAT, lambda: nn.EmbeddingBag(9, 2), "use Linear"),
    "MaxPool3d": (VOLUME, lambda: nn.MaxPool3d(2), "use Conv3d"),
    "AvgPool3d": (VOLUME, lambda: nn.AvgPool3d(2), "AdaptiveAvgPool3d(1)"),
    "AdaptiveMaxPool1d": (LINE, lambda: nn.AdaptiveMaxPool1d(2), "use AdaptiveAvgPool"),
    "AdaptiveMaxPool2d": (IMAGE, lambda: nn.AdaptiveMaxPool2d(2), "use AdaptiveAvgPool"),
    "Upsample": (IMAGE, lambda: nn.Upsample(scale_factor=2), "use ConvTranspose2d"),
    "Unfold": (IMAGE, lambda: nn.Unfold(3), "use Conv2d"),
    "CircularPad2d": (IMAGE, lambda: nn.CircularPad2d(1), "use ZeroPad2d"),
    "circular padding": (
        IMAGE,
        lambda: nn.Conv2d(4, 4, 3, padding_mode="circular"),
        'padding_mode="reflect"',
    ),
    "LazyLinear": (FLAT, lambda: nn.LazyLinear(4), "use the kind that is given its sizes"),
}
