"""The coordinator's API: members' records, cosignatures, witnesses' reports, public blobs and the status.

    POST /api/records       one signed entry                       -> {"index", "digest", "statement"}
    POST /api/cosignatures  {"size", "line"}                       -> {"final"}
    POST /api/reports       {"nonce", "note", "entries": [base64]} -> {"writable", "more"}
    GET  /api/acknowledgements/RECEIPT?wait=SECONDS                -> {"statement"}, as soon as the reply is here
    GET  /api/blobs/DIGEST  data dictionaries, model code, released models and cards; nothing else of the store
    GET  /api/wanted        what a restored store lacks            -> {"blobs": [digest]}
    POST /api/wanted/DIGEST one of them, by whoever has it         -> {}
    GET  /api/status        for displays
A change is a signed record, so its signature is the authentication: any member may hand in any member's. Reading is
for present members, whose requests are signed (`coordinator.callers`). The statement is a promise, or with status 409
an objection, signed by the coordinator (`ledger.statements`). Errors are {"error": one line}, and "rule" where a rule
of the ledger forbids it: 400 malformed, 403 wrong signature, 409 against a rule, 413 too large, 503 later. Everything
that arrives is hostile until parsed.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coordinator import recovery
from coordinator.acknowledgements import Acknowledgements
from coordinator.blobs import BlobStore
from coordinator.callers import Callers, RefusedError
from coordinator.changes import LONGEST_WAIT, Changes
from coordinator.errors import CoordinatorError, ObjectedError
from coordinator.histories import History
from coordinator.sequencer import Sequencer
from coordinator.voice import Voice
from ledger.errors import LedgerError, MalformedError, ReadOnlyError, RuleError, StorageError
from ledger.records import MAX_RECORD_SIZE
from ledger.signature import Signature

MAX_COSIGNATURE = 16 << 10  # bytes of a body; an ML-DSA-44 line has 3.3 KB
MAX_HISTOGRAM = 4 << 10  # bytes
MAX_REPORT = 16 << 20  # the tail that a log may have lost
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,6}", re.ASCII)
Status = Callable[[], Mapping[str, Any]]


class _TooLargeError(Exception):
    """A body is larger than this request may have."""


class Api:
    """Answers requests. Mount `routes` under `/api`."""

    def __init__(
        self,
        sequencer: Sequencer,
        blobs: BlobStore,
        status: Status,
        callers: Callers,
        voice: Voice,
        acknowledgements: Acknowledgements,
    ) -> None:
        """Answer for one log and one store.

        Args:
            sequencer: Owner of the log.
            blobs: The store.
            status: Returns what displays show; called in a thread.
            callers: Tells who reads.
            voice: Signs promises and objections.
            acknowledgements: What was acknowledged.
        """
        self._sequencer = sequencer
        self._blobs = blobs
        self._status = status
        self._callers = callers
        self._voice = voice
        self._acknowledgements = acknowledgements
        self._changes: Changes | None = None
        self.routes = (
            Route("/records", guarded(self._records), methods=["POST"]),
            Route("/cosignatures", guarded(self._cosignatures), methods=["POST"]),
            Route("/reports", guarded(self._reports), methods=["POST"]),
            Route("/acknowledgements/{digest}", guarded(self._acknowledgement), methods=["GET"]),
            Route("/blobs/{digest}", guarded(self._blob), methods=["GET"]),
            Route("/wanted", guarded(self._show_wanted), methods=["GET"]),
            Route("/wanted/{digest}", guarded(self._take_wanted), methods=["POST"]),
            Route("/status", guarded(self._show_status), methods=["GET"]),
        )

    async def _records(self, request: Request) -> Response:
        data = await _body(request, MAX_RECORD_SIZE)
        origin = self._sequencer.standing.state.origin
        try:
            submitted = await run_in_threadpool(self._sequencer.submit, data)
        except ObjectedError as error:
            statement = self._voice.objection(origin, error).decode()
            return _refused(409, error.reason, rule=error.rule, statement=statement)
        statement = self._voice.promise(origin, submitted).decode()  # kept already: the record is on the disk
        return JSONResponse({"index": submitted.index, "digest": submitted.digest, "statement": statement})

    async def _acknowledgement(self, request: Request) -> Response:
        await self._callers.member(request)
        digest, wait = request.path_params["digest"], request.query_params.get("wait", "0")
        if not _DIGEST.fullmatch(digest) or not _SECONDS.fullmatch(wait):
            return _refused(
                400, "a receipt's digest has 64 hex digits, and wait is a whole number of seconds"
            )
        if self._changes is None:
            self._changes = Changes(self._acknowledgements, self._sequencer)
        await self._changes.wait_for(
            lambda: self._sequencer.stopped or self._acknowledgements.find(digest) is not None,
            min(float(wait), LONGEST_WAIT),
        )
        statement = self._acknowledgements.find(digest)
        if statement is None:
            return _refused(404, "no reply with this receipt has arrived")
        return JSONResponse({"statement": statement.decode()})

    async def _cosignatures(self, request: Request) -> Response:
        found = _object(await _body(request, MAX_COSIGNATURE), {"size": int, "line": str})
        line = Signature.from_line(found["line"].removesuffix("\n") + "\n")
        try:
            final = await run_in_threadpool(self._sequencer.cosign, found["size"], line)
        except LookupError as error:
            return _refused(409, str(error))
        return JSONResponse({"final": final})

    async def _reports(self, request: Request) -> Response:
        if self._sequencer.standing.writable:
            return JSONResponse({"writable": True, "more": 0})
        body = await _body(request, MAX_REPORT)
        found = _object(body, {"nonce": str, "note": str, "entries": list})
        entries = [_decoded(text) for text in found["entries"]]
        more = await run_in_threadpool(
            self._sequencer.report, found["nonce"], found["note"].encode(), entries
        )
        return JSONResponse({"writable": self._sequencer.standing.writable, "more": more})

    async def _blob(self, request: Request) -> Response:
        await self._callers.member(request)
        digest = request.path_params["digest"]
        if not _DIGEST.fullmatch(digest) or not any(
            digest in public(history) for history in self._sequencer.standing.jobs.values()
        ):
            return _refused(404, "no such public blob")
        if digest not in self._blobs:
            return _refused(404, "the coordinator does not hold this blob")
        data = await run_in_threadpool(self._blobs.read, digest)
        return Response(data, media_type="application/octet-stream")

    async def _show_wanted(self, request: Request) -> Response:
        await self._callers.member(request)
        return JSONResponse({"blobs": sorted(await run_in_threadpool(self._wanted))})

    async def _take_wanted(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        limit = (await run_in_threadpool(self._wanted)).get(digest)
        if limit is None:
            return _refused(404, "nothing with this digest is wanted")
        await run_in_threadpool(
            self._blobs.put_stream, (await _body(request, limit),), max_size=limit, expected=digest
        )
        return JSONResponse({})

    def _wanted(self) -> dict[str, int]:
        """Return the digests of what running jobs lack, and how large each may be, in bytes."""
        standing, found = self._sequencer.standing, dict[str, int]()
        for job, state in standing.state.jobs.items():
            if state.status == "running":
                limit = max(MAX_HISTOGRAM, 8 * state.record.training.parameters)
                lacking = recovery.wanted(standing.jobs[job], state.model, self._blobs)
                found.update(dict.fromkeys(lacking, limit))
        return found

    async def _show_status(self, request: Request) -> Response:
        await self._callers.member(request)
        return JSONResponse(await run_in_threadpool(self._status), headers={"cache-control": "no-store"})


def public(history: History) -> frozenset[str]:
    """Return the digests of a job's blobs that anybody may read."""
    job, released = history.job, history.release
    digests = {job.dictionary, job.model}
    if job.training.model == "custom":
        digests.add(job.training.model_code)
    if released is not None:
        digests |= {released.artifact, released.card}
    return frozenset(digests)


def guarded(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn our own errors into answers; any other one is a fault of ours and becomes a 500 elsewhere."""

    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except RefusedError as error:
            return _refused(error.status, str(error))
        except _TooLargeError as error:
            return _refused(413, str(error))
        except RuleError as error:
            return _refused(409, error.reason, rule=error.rule)
        except MalformedError as error:
            return _refused(400, str(error))
        except (ReadOnlyError, StorageError) as error:
            return _refused(503, str(error))
        except LedgerError as error:
            return _refused(403, str(error))
        except CoordinatorError as error:
            return _refused(503, str(error))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it

    return answer


def _refused(status: int, reason: str, **more: str) -> Response:
    return JSONResponse({"error": reason, **more}, status_code=status)


async def _body(request: Request, limit: int) -> bytes:
    """Read a body of at most `limit` bytes. Raises _TooLargeError before more of it is read."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise _TooLargeError(f"at most {limit} bytes are taken here")
    return bytes(data)


def _object(data: bytes, wanted: Mapping[str, type]) -> dict[str, Any]:
    """Parse a JSON object with exactly these members. Raises MalformedError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedError("the body is not JSON") from None
    if not isinstance(found, dict) or set(found) != set(wanted):
        raise MalformedError(f"the body must be an object with {', '.join(sorted(wanted))}")
    for name, kind in wanted.items():
        if type(found[name]) is not kind:
            raise MalformedError(f"{name} is of a wrong type")
        if kind is int and not 0 <= found[name] < 2**63:
            raise MalformedError(f"{name} is out of range")
    return found


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise MalformedError("an entry is not base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise MalformedError("an entry is not base64") from None
