"""Pictures are drawn into memory and put away after each test."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest


@pytest.fixture
def _no_window() -> Iterator[None]:
    plt.switch_backend("agg")
    yield
    plt.close("all")
