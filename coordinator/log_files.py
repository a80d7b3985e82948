"""The log over HTTP: the static files of C2SP tlog-tiles, and a long poll on its two checkpoints.

`GET /log/checkpoint.pending?above=SIZE&wait=SECONDS` answers as soon as the pending checkpoint covers more than SIZE
entries, or after `wait` (at most 30 s) with what there is; the same for `/log/checkpoint`, the final one. While the
log waits for its witnesses' reports, the pending checkpoint is given at once, with the question that a report must
repeat in the header `wardround-report`. `GET /api/news` waits in the same way and answers with all that a follower
would read next: both checkpoints and the new entries, unless they are many. A hundred followers ask the same, so the
answer is made once. Only present members read. Nothing but checkpoints and tiles is ever read
from the directory.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from coordinator.changes import LONGEST_WAIT, Changes
from coordinator.endpoint import BYTES, JSON, TEXT
from coordinator.routing import Call, Handler, refused
from coordinator.sequencer import Sequencer
from ledger import audit
from ledger.checkpoint import Checkpoint
from ledger.errors import MalformedError
from ledger.note import Note
from ledger.store import CHECKPOINT, CHECKPOINTS, PENDING
from ledger.tiles import Tile

REPORT = "wardround-report"  # header with the question of this opening
MAX_NEWS = 1 << 20  # bytes of entries in one answer; the tiles have the rest
MAX_ENTRIES = 1024
_IMMUTABLE = {"cache-control": "private, max-age=31536000, immutable"}
_FRESH = {"cache-control": "no-store"}


class LogFiles:
    """Serves one log's directory; `handlers` by their names in the table of endpoints."""

    def __init__(self, sequencer: Sequencer) -> None:
        """Serve the directory of a sequencer's log."""
        self._sequencer = sequencer
        self._changes: Changes | None = None
        self._news: tuple[tuple[int, int, int, bool], asyncio.Task[bytes]] | None = None  # the newest answer
        self.handlers: dict[str, Handler] = {
            "pending": self._pending,
            "final": self._final,
            "news": self._show_news,
            "kept": self._kept,
            "tile": self._tile,
        }

    async def _pending(self, call: Call) -> Response:
        sequencer = self._sequencer
        answer = await self._poll(call, PENDING, self._has_news)
        if not sequencer.standing.writable:
            answer.headers[REPORT] = sequencer.question
        return answer

    async def _final(self, call: Call) -> Response:
        return await self._poll(call, CHECKPOINT, lambda above: self._sequencer.standing.final_size > above)

    def _has_news(self, above: int) -> bool:
        standing = self._sequencer.standing
        return standing.view.size > above or not standing.writable

    async def _show_news(self, call: Call) -> Response:
        await self._wait(call, self._has_news)
        above, standing = int(call.values.get("above", "0")), self._sequencer.standing
        asked = (above, standing.view.size, standing.final_size, standing.writable)
        if self._news is None or self._news[0] != asked:
            self._news = (asked, asyncio.ensure_future(run_in_threadpool(self._read_news, above)))
        try:
            data = await asyncio.shield(self._news[1])
        except FileNotFoundError:
            return _not_there()
        return Response(data, headers=_FRESH, media_type=JSON)

    def _read_news(self, above: int) -> bytes:
        """Return the answer from the files as they are: at least what the standing says."""
        sequencer = self._sequencer
        try:
            final = sequencer.read(CHECKPOINT)
        except FileNotFoundError:
            final = b""
        pending = sequencer.read(PENDING)  # after the other one, so never behind it
        size = Checkpoint.from_text(Note.from_bytes(pending).text).size
        entries = [*audit.entries(sequencer.read, size, above)] if above < size <= above + MAX_ENTRIES else []
        if sum(map(len, entries)) > MAX_NEWS:
            entries = []
        answer = {
            "pending": pending.decode(),
            "final": final.decode(),
            "report": "" if sequencer.standing.writable else sequencer.question,
            "entries": [base64.b64encode(data).decode() for data in entries],
        }
        return json.dumps(answer).encode()

    async def _poll(self, call: Call, name: str, beyond: Callable[[int], bool]) -> Response:
        """Wait as the request asks, then serve a checkpoint."""
        await self._wait(call, beyond)
        return await self._file(name, _FRESH)

    async def _wait(self, call: Call, beyond: Callable[[int], bool]) -> None:
        if "above" in call.values:
            if self._changes is None:
                self._changes = Changes(self._sequencer)
            size, seconds = int(call.values["above"]), min(float(call.values.get("wait", "0")), LONGEST_WAIT)
            await self._changes.wait_for(lambda: self._sequencer.stopped or beyond(size), seconds)

    async def _kept(self, call: Call) -> Response:
        return await self._file(f"{CHECKPOINTS}/{call.values['size']}", _FRESH)

    async def _tile(self, call: Call) -> Response:
        try:
            tile = Tile.from_path(call.values["path"])
        except MalformedError:
            return _not_there()
        return await self._file(tile.path, _IMMUTABLE, BYTES)

    async def _file(self, name: str, headers: dict[str, str], media_type: str = TEXT) -> Response:
        try:
            data = await run_in_threadpool(self._sequencer.read, name)
        except FileNotFoundError:
            return _not_there()
        return Response(data, headers=headers, media_type=media_type)


def _not_there() -> Response:
    return refused(404, "the log has no such file")
