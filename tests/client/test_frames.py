"""The pipe between agent and worker: what goes in comes out, and hostile bytes are an end of file."""

from __future__ import annotations

import os
import struct
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import frames

HEADERS = st.dictionaries(st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=20), st.booleans()))


@given(HEADERS, st.binary(max_size=200))
def test_a_message_comes_out_as_it_went_in(header: dict[str, object], body: bytes) -> None:
    reading, writing = os.pipe()
    try:
        frames.send(writing, header, body)
        assert frames.receive(reading) == (header, body)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_large_body_passes_a_pipe_that_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    body = os.urandom(3_000_000)
    sender = threading.Thread(
        target=frames.send, args=(writing, {}, body), kwargs={"until": time.monotonic() + 30}
    )
    sender.start()
    assert frames.receive(reading, until=time.monotonic() + 30)[1] == body
    sender.join()
    os.close(reading)
    os.close(writing)


@given(st.binary(max_size=60))
def test_hostile_bytes_are_an_end_of_file(data: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    try:
        with pytest.raises(EOFError):
            frames.receive(reading)
    finally:
        os.close(reading)


@pytest.mark.parametrize("sizes", [(1 << 17, 0), (2, 1 << 62), (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)])
def test_hostile_lengths_are_not_believed(sizes: tuple[int, int]) -> None:
    reading, writing = os.pipe()
    os.write(writing, struct.pack(">IQ", *sizes) + b"{}")
    try:
        with pytest.raises(EOFError, match="not a message"):
            frames.receive(reading)  # the pipe is still open: only the lengths can have ended it
    finally:
        os.close(reading)
        os.close(writing)


def test_silence_and_a_full_pipe_time_out() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with pytest.raises(TimeoutError):
        frames.receive(reading, until=time.monotonic())
    with pytest.raises(TimeoutError):
        frames.send(writing, {}, bytes(10_000_000), until=time.monotonic() + 0.05)
    os.close(reading)
    os.close(writing)
