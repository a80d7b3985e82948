"""Situations that several test modules of the ledger start from."""

from __future__ import annotations

import pytest

from tests.ledger.consortium import Consortium


@pytest.fixture
def running() -> tuple[Consortium, str]:
    """A job of three hospitals, two of which suffice; the first round is over."""
    c = Consortium.founded()
    c.offer("alpha", "bravo", "charlie")
    job = c.run("alpha", "bravo", "charlie")
    c.play(job)
    return c, job
