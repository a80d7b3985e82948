"""One long poll for all that a follower would read next: both checkpoints and the entries between.

Nothing of it is believed: it stands in for files of the log, which `ledger.mirror` judges as it judges those. What
it does not hold, such as the entries of a long absence, is read from the log's files; a coordinator that does not
answer this is asked for its pending checkpoint alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from client.consortium import Consortium, Pending
from client.errors import PostRefusedError, UnreachableError
from ledger.encoding import decode_base64
from ledger.errors import MalformedError
from ledger.source import Read
from ledger.store import CHECKPOINT, PENDING
from ledger.tiles import ENTRIES, Tile, encode_bundle

MAX_ANSWER = 4 << 20  # bytes
NO_SUCH_PATH = 404  # HTTP status
Own = Callable[[int, int], list[bytes]]  # accepted entries, from an index to before another


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What came: a signed checkpoint, and perhaps the files that lead to it."""

    note: bytes
    report: str  # nonce of the report that the coordinator asks for, or ""
    above: int = 0  # index of the first of `entries`
    entries: tuple[bytes, ...] = ()
    files: dict[str, bytes | None] = field(default_factory=dict)  # None: it is not there

    def over(self, read: Read, own: Own) -> Read:
        """Return a reader of the log that knows all this already.

        Args:
            read: Reads everything else.
            own: Returns accepted entries, which fill the bundle up that the new ones are in.
        """
        end = self.above + len(self.entries)

        def reading(path: str) -> bytes:
            if path in self.files:
                data = self.files[path]
                if data is None:
                    raise FileNotFoundError(path)
                return data
            tile = Tile.from_path(path) if path.startswith("tile/entries/") else None
            if tile is None or tile.level != ENTRIES or not self.above < tile.start + tile.width <= end:
                return read(path)
            before = own(tile.start, self.above) if tile.start < self.above else []
            first, last = (max(0, at - self.above) for at in (tile.start, tile.start + tile.width))
            return encode_bundle([*before, *self.entries[first:last]])

        return reading


def ask(door: Consortium, above: int, seconds: float) -> News:
    """Return what is new as soon as the log has more than `above` entries, or after `seconds` what there is.

    Raises:
        UnreachableError: no answer, or none that can be read; try again.
    """
    try:
        found = door.get(f"/api/news?above={above}&wait={seconds:.0f}", MAX_ANSWER)
    except PostRefusedError as error:
        if error.status != NO_SUCH_PATH:
            raise
        pending: Pending = door.wait_for_pending(above, seconds)
        return News(note=pending.note, report=pending.report, files={PENDING: pending.note})
    try:
        note, final, report = (_text(found.get(name)) for name in ("pending", "final", "report"))
        listed = found.get("entries")
        if not isinstance(listed, list):
            raise MalformedError("the news has no entries")
        entries = tuple(decode_base64(_text(item), "entry") for item in listed)
        files: dict[str, bytes | None] = {PENDING: note.encode(), CHECKPOINT: final.encode() or None}
    except (MalformedError, UnicodeEncodeError) as error:
        raise UnreachableError(f"the coordinator's news cannot be read: {error}") from None
    return News(note=note.encode(), report=report, above=above, entries=entries, files=files)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise MalformedError("a member of the news is no text")
    return value
