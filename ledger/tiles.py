"""The log as files: paths and content of hash tiles and entry bundles, and proofs from tiles alone.

Follows C2SP tlog-tiles. A tile holds up to 256 hashes of one level; a bundle the entries under one level-0
tile. Reading is an argument (`Read`), so files, HTTP and memory are the same here. Writing is `log`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from ledger.errors import MalformedError, VerificationError
from ledger.merkle import HASH_SIZE, NodeReader, tree_root

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT  # hashes in a full tile, entries in a full bundle
ENTRIES = -1  # the `level` of an entry bundle
MAX_LEVEL = 63
MAX_ENTRY_SIZE = 65_535  # bytes
MAX_BUNDLE_SIZE = TILE_WIDTH * (2 + MAX_ENTRY_SIZE)  # bytes: a reader may stop here
_MAX_PATH = 64  # characters, enough for every index below 2**63
_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([0-9]{1,3}))?", re.ASCII)

Read = Callable[[str], bytes]
"""`read(path)`: the file's bytes; raises FileNotFoundError where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Which hashes (or entries) a file holds.

    Attributes:
        level: 0 to 63, or ENTRIES for a bundle.
        index: Position within the level, from 0.
        width: Hashes or entries, 1 to 256; below 256 the tile is partial.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not (
            ENTRIES <= self.level <= MAX_LEVEL and 0 <= self.index < 2**63 and 1 <= self.width <= TILE_WIDTH
        ):
            raise MalformedError(f"no tile at level {self.level}, index {self.index}, width {self.width}")

    @property
    def start(self) -> int:
        """Position in the level of the tile's first hash (of the bundle's first entry)."""
        return self.index * TILE_WIDTH

    @property
    def full(self) -> Tile:
        """The full tile in this place."""
        return Tile(level=self.level, index=self.index)

    @property
    def path(self) -> str:
        """The path below the log's prefix, for example `tile/0/x001/x234/067.p/8`."""
        groups = f"{self.index % 1000:03}"
        rest = self.index // 1000
        while rest:
            groups = f"x{rest % 1000:03}/{groups}"
            rest //= 1000
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{groups}" + (f".p/{self.width}" if self.width < TILE_WIDTH else "")

    @classmethod
    def from_path(cls, path: str) -> Tile:
        """Parse what `path` gives.

        Raises:
            MalformedError: any other text, second spellings included.
        """
        match = _PATH.fullmatch(path) if len(path) <= _MAX_PATH else None
        if match is None:
            raise MalformedError("not the path of a tile or an entry bundle")
        level, groups, width = match.groups()
        tile = cls(
            level=ENTRIES if level == "entries" else int(level),
            index=int(groups.replace("x", "").replace("/", "")),
            width=int(width) if width else TILE_WIDTH,
        )
        if tile.path != path:
            raise MalformedError("path of a tile has leading zeros or a width of 256")
        return tile


def new_tiles(old_size: int, size: int) -> Iterator[Tile]:
    """Yield the hash tiles that a tree of `size` has and one of `old_size` had not, low levels first.

    From 0 these are all tiles of the tree: the full ones, and at most one partial tile a level.
    """
    for level in range(MAX_LEVEL + 1):
        old_count, count = old_size >> TILE_HEIGHT * level, size >> TILE_HEIGHT * level
        if count == 0:
            return
        yield from _new_in_level(level, old_count, count)


def new_bundles(old_size: int, size: int) -> Iterator[Tile]:
    """Yield the entry bundles that a tree of `size` has and one of `old_size` had not."""
    return _new_in_level(ENTRIES, old_size, size)


def _new_in_level(level: int, old_count: int, count: int) -> Iterator[Tile]:
    full = count // TILE_WIDTH
    for index in range(old_count // TILE_WIDTH, full):
        yield Tile(level=level, index=index)
    if count % TILE_WIDTH and count != old_count:
        yield Tile(level=level, index=full, width=count % TILE_WIDTH)


def tile_bytes(tile: Tile, node: NodeReader) -> bytes:
    """Return a hash tile's content; `node` is asked for whole levels only, 0, 8, 16 and so on."""
    positions = range(tile.start, tile.start + tile.width)
    return b"".join(node(TILE_HEIGHT * tile.level, position) for position in positions)


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Return an entry bundle: each entry after its length as a big-endian uint16.

    Raises:
        MalformedError: no entry, more than 256, or one above MAX_ENTRY_SIZE bytes.
    """
    parts = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_SIZE:
            raise MalformedError(f"entry has {len(entry)} bytes, more than {MAX_ENTRY_SIZE}")
        parts.append(len(entry).to_bytes(2, "big") + entry)
    if not 1 <= len(parts) <= TILE_WIDTH:
        raise MalformedError(f"bundle of {len(parts)} entries, not 1 to {TILE_WIDTH}")
    return b"".join(parts)


def decode_bundle(data: bytes, width: int) -> tuple[bytes, ...]:
    """Parse an entry bundle of exactly `width` entries.

    Raises:
        MalformedError: truncated, or another number of entries.
    """
    entries: list[bytes] = []
    offset = 0
    while offset < len(data) and len(entries) < width:
        start = offset + 2
        offset = start + int.from_bytes(data[offset:start], "big")
        entries.append(data[start:offset])
    if offset != len(data) or len(entries) != width:  # offset beyond the data: the last entry is cut short
        raise MalformedError(f"entry bundle does not hold exactly {width} entries")
    return tuple(entries)


def read_bundle(read: Read, index: int, size: int) -> tuple[bytes, ...]:
    """Read the entries of bundle `index` that a tree of `size` has; compare their leaf hashes with the tiles.

    Raises:
        MalformedError: the bundle is not one.
        VerificationError: it is missing.
    """
    tile = _tile_at(ENTRIES, index, size)
    found, data = _read_tile(read, tile)
    return decode_bundle(data, found.width)[: tile.width]


class TileNodes:
    """A `merkle.NodeReader` over the tiles of one tree; keeps what it has read, so use one for many proofs.

    Without a root nothing that is read is checked: the proofs built will not verify if a tile lies. With a root,
    each tile is checked against it before use, by the tiles above.

    Args:
        read: Reads one tile.
        size: Entries of the tree whose tiles are there (a checkpoint's size, or any smaller one).
        root: Root of that tree from a verified checkpoint, to check tiles; None to check nothing.

    Raises:
        MalformedError: (any call) a tile of the wrong length.
        VerificationError: (any call) a tile is missing, does not belong to the root, or a node is outside.
    """

    __slots__ = ("_checked", "_read", "_rows", "_size")

    def __init__(self, read: Read, size: int, root: bytes | None = None) -> None:
        self._read = read
        self._size = size
        self._rows: dict[tuple[int, int], list[bytes]] = {}  # per tile: its hashes, then each row above
        self._checked = False
        if root is not None:
            if tree_root(size, self) != root:  # reads the partial tiles only, and every hash of them
                raise VerificationError(f"tiles at the right edge of {size} entries do not lead to the root")
            self._checked = True

    def __call__(self, level: int, index: int) -> bytes:
        """Return the root of the complete subtree over entries [index << level, (index + 1) << level)."""
        if level < 0 or index < 0 or (index + 1) << level > self._size:
            raise VerificationError(f"no complete subtree {index} at level {level} of {self._size} entries")
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, position = divmod(index << height, TILE_WIDTH)
        rows = self._rows.get((tile_level, tile_index)) or self._load(tile_level, tile_index)
        while len(rows) <= height:
            rows.append(_row_above(rows[-1]))
        start = (position >> height) * HASH_SIZE
        return rows[height][start : start + HASH_SIZE]

    def _load(self, level: int, index: int) -> list[bytes]:
        tile = _tile_at(level, index, self._size)
        _, data = _read_tile(self._read, tile)
        rows = [data[: tile.width * HASH_SIZE]]
        if self._checked and tile.width == TILE_WIDTH:
            while len(rows) <= TILE_HEIGHT:
                rows.append(_row_above(rows[-1]))
            if rows[TILE_HEIGHT] != self(TILE_HEIGHT * (level + 1), index):
                raise VerificationError(f"{tile.path} does not belong to the tree")
        self._rows[level, index] = rows
        return rows


def _row_above(row: bytes) -> bytes:
    """Return `merkle.node_hash` over each pair of joined hashes: slices of one string, as this is the hot loop."""
    pairs = range(0, len(row) - HASH_SIZE, 2 * HASH_SIZE)
    return b"".join([sha256(b"\x01" + row[start : start + 2 * HASH_SIZE]).digest() for start in pairs])


def _tile_at(level: int, index: int, size: int) -> Tile:
    """Return the full or partial tile that a tree of `size` has in this place."""
    count = size >> TILE_HEIGHT * max(level, 0)
    return Tile(level=level, index=index, width=min(TILE_WIDTH, count - index * TILE_WIDTH))


def _read_tile(read: Read, tile: Tile) -> tuple[Tile, bytes]:
    """Read a tile, or the full one in its place: a log may drop a partial tile once that exists."""
    for candidate in dict.fromkeys((tile, tile.full)):
        try:
            data = read(candidate.path)
        except FileNotFoundError:
            continue
        if tile.level != ENTRIES and len(data) != candidate.width * HASH_SIZE:
            raise MalformedError(f"{candidate.path} has {len(data)} bytes, not {candidate.width * HASH_SIZE}")
        return candidate, data
    raise VerificationError(f"{tile.path} is missing: fetch it again, or use another copy of the log")
