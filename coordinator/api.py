"""The coordinator's API: members' records, cosignatures, witnesses' reports, what members may read, and the status.

Which paths these handlers answer, who may ask and what comes back is in `coordinator.endpoints`; refusals and limits
are `coordinator.routing`'s. A change is a signed record, so its signature is the authentication: any member may hand
in any member's. The answer carries the coordinator's signed promise, or its objection (`ledger.statements`).
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from coordinator import recovery
from coordinator.acknowledgements import Acknowledgements
from coordinator.blobs import BlobStore
from coordinator.changes import LONGEST_WAIT, Changes
from coordinator.endpoints import MAX_WANTED
from coordinator.errors import ObjectedError
from coordinator.handouts import Handouts
from coordinator.routing import Call, Handler, refused
from coordinator.sequencer import Sequencer
from coordinator.standing import Standing
from coordinator.voice import Voice
from ledger.errors import MalformedError
from ledger.signature import Signature

Status = Callable[[], Mapping[str, Any]]
_log = logging.getLogger(__name__)


class Api:
    """Answers what concerns the log and the store; `handlers` by their names in the table."""

    def __init__(
        self,
        sequencer: Sequencer,
        blobs: BlobStore,
        status: Status,
        handouts: Handouts,
        voice: Voice,
        acknowledgements: Acknowledgements,
    ) -> None:
        """Answer for one log and one store.

        Args:
            sequencer: Owner of the log.
            blobs: The store.
            status: Returns what displays show; called in a thread.
            handouts: Says who may read which blob, and puts it on the record.
            voice: Signs promises and objections.
            acknowledgements: What was acknowledged.
        """
        self._sequencer = sequencer
        self._told = sequencer.standing  # what the journal has said of its recovery
        self._blobs = blobs
        self._status = status
        self._handouts = handouts
        self._voice = voice
        self._acknowledgements = acknowledgements
        self._changes: Changes | None = None
        self.handlers: dict[str, Handler] = {
            "records": self._records,
            "cosignatures": self._cosignatures,
            "reports": self._reports,
            "acknowledgement": self._acknowledgement,
            "wanted": self._show_wanted,
            "wanted-blob": self._take_wanted,
            "blob": self._blob,
            "status": self._show_status,
        }

    async def _records(self, call: Call) -> Response:
        origin = self._sequencer.standing.state.origin
        try:
            submitted = await run_in_threadpool(self._sequencer.submit, call.body)
        except ObjectedError as error:
            statement = self._voice.objection(origin, error).decode()
            return refused(409, error.reason, rule=error.rule, statement=statement)
        statement = self._voice.promise(origin, submitted).decode()  # kept already: the record is on the disk
        return JSONResponse({"index": submitted.index, "digest": submitted.digest, "statement": statement})

    async def _acknowledgement(self, call: Call) -> Response:
        digest = call.values["digest"]
        if self._changes is None:
            self._changes = Changes(self._acknowledgements, self._sequencer)
        await self._changes.wait_for(
            lambda: self._sequencer.stopped or self._acknowledgements.find(digest) is not None,
            min(float(call.values.get("wait", "0")), LONGEST_WAIT),
        )
        statement = self._acknowledgements.find(digest)
        if statement is None:
            return refused(404, "no reply with this receipt has arrived")
        return JSONResponse({"statement": statement.decode()})

    async def _cosignatures(self, call: Call) -> Response:
        found = _object(call.body, {"size": int, "line": str})
        line = Signature.from_line(found["line"].removesuffix("\n") + "\n")
        try:
            final = await run_in_threadpool(self._sequencer.cosign, found["size"], line)
        except LookupError as error:
            return refused(409, str(error))
        return JSONResponse({"final": final})

    async def _reports(self, call: Call) -> Response:
        if self._sequencer.standing.writable:
            return JSONResponse({"writable": True, "more": 0})
        found = _object(call.body, {"nonce": str, "note": str, "entries": list})
        entries = [_decoded(text) for text in found["entries"]]
        note = _encoded(found["note"])
        more = await run_in_threadpool(self._sequencer.report, found["nonce"], note, entries)
        told, self._told = self._told, self._sequencer.standing
        _tell_of_recovery(told, self._told)
        return JSONResponse({"writable": self._sequencer.standing.writable, "more": more})

    async def _blob(self, call: Call) -> Response:
        digest = call.values["digest"]
        handout = self._handouts.find(self._sequencer.standing, call.sender, digest)
        if handout is None:
            return refused(404, "no such blob, or none that this member may read")
        if digest not in self._blobs:
            return refused(404, "the coordinator does not hold this blob")
        data = await run_in_threadpool(self._blobs.read, digest)
        await run_in_threadpool(self._handouts.note, handout)
        return Response(data, media_type="application/octet-stream")

    async def _show_wanted(self, call: Call) -> Response:
        return JSONResponse({"blobs": await run_in_threadpool(self._wanted)})

    async def _take_wanted(self, call: Call) -> Response:
        digest = call.values["digest"]
        if digest not in await run_in_threadpool(self._wanted):
            return refused(404, "nothing with this digest is wanted")
        await run_in_threadpool(self._blobs.put_stream, (call.body,), max_size=MAX_WANTED, expected=digest)
        return JSONResponse({})

    def _wanted(self) -> list[str]:
        """Return the digests of what running jobs lack in a restored store, sorted."""
        standing = self._sequencer.standing
        running = {d: j.model for d, j in standing.state.jobs.items() if j.status == "running"}
        lacking = (recovery.wanted(standing.jobs[d], model, self._blobs) for d, model in running.items())
        return sorted(set().union(*lacking))

    async def _show_status(self, call: Call) -> Response:
        return JSONResponse(await run_in_threadpool(self._status), headers={"cache-control": "no-store"})


def _tell_of_recovery(before: Standing, after: Standing) -> None:
    """Have the journal say what a witness's report has changed."""
    if (came := after.view.size - before.view.size) and not before.writable:
        _log.warning(
            "%d entries that this log had lost came back from a witness: it holds %d", came, after.view.size
        )
    if after.obstacle and after.obstacle != before.obstacle:
        _log.warning("the log is read-only: %s", after.obstacle)
    if after.writable and not before.writable:
        _log.info("a quorum of the witnesses has reported: the log may be written")


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


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise MalformedError("the note is no text") from None


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise MalformedError("an entry is not base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise MalformedError("an entry is not base64") from None
