"""What researchers deposit before they propose a job: first parameters, data dictionaries, model code.

`uploads/<member>/<digest>` marks each deposit, with its size, before its bytes are stored, so that a crash leaves no
blob that nobody will remove. A job that names the blob ends its probation; without one it is gone after a day. A
member may have a few models' bytes on probation. What the store holds already is neither charged nor removed.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from coordinator.blobs import BlobStore
from coordinator.callers import RefusedError
from coordinator.endpoint import BODY_SECONDS, UPLOAD_SECONDS
from coordinator.errors import IntegrityError, StorageError
from coordinator.routing import Call, Handler, chunks, refused
from coordinator.sequencer import Sequencer
from coordinator.standing import Standing
from ledger import signed_request

PROBATION = 86_400  # seconds that a deposit waits for its job
SMALL = 1 << 20  # bytes of code, and of a dictionary
MAX_PENDING = 4  # times the largest model: what one member may have on probation
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Uploads:
    """Takes deposits in, and removes what no job has named; `handlers` by their names in the table."""

    def __init__(
        self,
        folder: Path,
        sequencer: Sequencer,
        blobs: BlobStore,
        max_model: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the marks in `folder`, created where it is missing; `max_model` is in bytes.

        Raises:
            StorageError: it cannot be.
        """
        self._folder = folder
        self._sequencer = sequencer
        self._blobs = blobs
        self._max_model = max_model
        self._clock = clock
        self._turns: dict[
            str, asyncio.Lock
        ] = {}  # one upload of a member at a time, so that its sum is right
        self.handlers: dict[str, Handler] = {"upload": self._upload}
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {folder}: {error.strerror}") from None

    async def _upload(self, call: Call) -> Response:
        digest, kind, name = call.values["digest"], call.values["kind"], call.sender.name
        limit = self._max_model if kind == "model" else SMALL
        length = call.request.headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()):
            return refused(411, "state the content length")
        signed = call.request.headers.get(signed_request.DIGEST, "")
        if signed != signed_request.content_digest(bytes.fromhex(digest)):
            return refused(401, "the digest in the path is not the one of the body that was signed")
        if int(length) > limit:
            return refused(413, f"a {kind} has at most {limit} bytes here")
        async with self._turns.setdefault(name, asyncio.Lock()):
            if digest in self._blobs:
                return JSONResponse({"digest": digest})
            pending = await run_in_threadpool(self._pending, name)
            if pending + int(length) > MAX_PENDING * self._max_model:
                return refused(
                    409, f"{name} has {pending} bytes here that no job names: propose one, or wait a day"
                )
            await self._store(call, digest, int(length))
        return JSONResponse({"digest": digest})

    async def _store(self, call: Call, digest: str, length: int) -> None:
        """Store a body under its digest. Raises RefusedError, StorageError, MalformedError."""
        mark = self._folder / call.sender.name / digest
        await run_in_threadpool(self._mark, mark, length)
        seconds = UPLOAD_SECONDS if length > SMALL else BODY_SECONDS
        loop, stored = asyncio.get_running_loop(), False
        source = _in_thread(chunks(call.request, length, seconds), loop)
        try:
            await run_in_threadpool(self._blobs.put_stream, source, max_size=length, expected=digest)
            stored = True
        except IntegrityError as error:
            raise RefusedError(400, str(error)) from None
        finally:
            if not stored:
                mark.unlink(missing_ok=True)

    def expire(self) -> list[str]:
        """Remove deposits that no job has named in time; return their digests."""
        now, removed = self._clock(), []
        for mark in self._marks():
            with suppress(FileNotFoundError):
                age = now - mark.stat().st_mtime
                if _named(self._sequencer.standing, mark.name):
                    mark.unlink()
                elif age > PROBATION:
                    removed += self._blobs.delete_expired(stored_before=now - PROBATION, among=(mark.name,))
                    mark.unlink()
        return removed

    def _pending(self, name: str) -> int:
        """Return how many bytes a member has on probation."""
        self.expire()
        total = 0
        for mark in self._marks(name):
            with suppress(FileNotFoundError, ValueError):
                total += int(mark.read_text("ascii"))
        return total

    def _marks(self, name: str = "*") -> Iterator[Path]:
        return (path for path in self._folder.glob(f"{name}/*") if _DIGEST.fullmatch(path.name))

    def _mark(self, mark: Path, length: int) -> None:
        try:
            mark.parent.mkdir(exist_ok=True)
            with mark.open("w", encoding="ascii") as file:
                file.write(str(length))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {mark}: {error.strerror}") from None


def _named(standing: Standing, digest: str) -> bool:
    """Whether a job on the log names this blob."""
    return any(
        digest in (h.job.dictionary, h.job.model, h.job.training.model_code) for h in standing.jobs.values()
    )


def _in_thread(stream: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """Let a thread read what the event loop receives; a failure there passes unchanged."""

    async def step() -> bytes | None:
        return await anext(stream, None)

    while (chunk := asyncio.run_coroutine_threadsafe(step(), loop).result()) is not None:
        yield chunk
