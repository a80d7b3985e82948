"""The right edge of a log as tiles: what is needed to append to it, and which files each append gives.

Pure; follows C2SP tlog-tiles. `store` writes the files. The live path and recovery both go through
`Edge.extend`, so a file that a crash took is derived again from the same entries with the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.merkle import Frontier, NodeReader, hash_pairs
from ledger.tiles import ENTRIES, TILE_HEIGHT, TILE_WIDTH, Tile, encode_bundle

File = tuple[Tile, bytes]
"""A tile or entry bundle and its content."""


_NO_TREE = Frontier()


@dataclass(frozen=True, slots=True)
class Edge:
    """The partial tiles, and the partial bundle, at the right edge of a tree.

    Attributes:
        tree: Frontier of the tree.
        rows: For each tile level from 0, the hashes of its partial tile; empty where the last tile is full.
        bundle: The partial bundle as it is written; empty where the last one is full.
    """

    tree: Frontier = _NO_TREE
    rows: tuple[tuple[bytes, ...], ...] = ()
    bundle: bytes = b""

    @classmethod
    def at(cls, size: int, node: NodeReader) -> Edge:
        """Return the edge of a tree whose last bundle is full.

        Args:
            size: Number of entries, a multiple of TILE_WIDTH.
            node: Reads complete subtrees of that tree.

        Raises:
            LedgerError: whatever `node` raises.
        """
        peaks, rows, start = [], [], 0
        for level in range(size.bit_length() - 1, -1, -1):
            if size >> level & 1:
                peaks.append(node(level, start >> level))
                start += 1 << level
        for level in range(0, size.bit_length(), TILE_HEIGHT):
            count = size >> level
            rows.append(tuple(node(level, i) for i in range(count - count % TILE_WIDTH, count)))
        return cls(Frontier(size, tuple(peaks)), tuple(rows))

    def extend(self, entries: Sequence[bytes], leaves: Sequence[bytes]) -> tuple[Edge, list[File]]:
        """Return the edge after more entries, and every file that the longer tree has and this one had not.

        Args:
            entries: The new entries, in order; at least one.
            leaves: Their leaf hashes.

        Raises:
            MalformedError: no entry, or one that is too large for a bundle.
            VerificationError: a leaf hash is not HASH_SIZE bytes.
        """
        bundle, files = self.bundle, list[File]()
        size, end = self.tree.size, self.tree.size + len(entries)
        for position in (size, *range(size - size % TILE_WIDTH + TILE_WIDTH, end, TILE_WIDTH)):
            index, filled = divmod(position, TILE_WIDTH)
            part = entries[position - size : position - size + TILE_WIDTH - filled]
            bundle = (bundle if filled else b"") + encode_bundle(part)
            files.append((Tile(level=ENTRIES, index=index, width=filled + len(part)), bundle))
        rows: list[tuple[bytes, ...]] = []
        added = list(leaves)
        while added or len(rows) < len(self.rows):
            row, added, new_files = self._extend_row(len(rows), added)
            rows.append(row)
            files += new_files
        partial = bundle if end % TILE_WIDTH else b""
        full = any(tile.width == TILE_WIDTH for tile, _ in files)
        tree = Frontier(end, _peaks(rows)) if full else self.tree.extend(leaves)  # whichever hashes less
        return Edge(tree, tuple(rows), partial), files

    def _extend_row(
        self, level: int, added: list[bytes]
    ) -> tuple[tuple[bytes, ...], list[bytes], list[File]]:
        """Return the level's new partial tile, the hashes for the level above, and the files."""
        row = [*(self.rows[level] if level < len(self.rows) else ()), *added]
        above, files = [], []
        index = (self.tree.size >> TILE_HEIGHT * level) // TILE_WIDTH
        for start in range(0, len(row) if added else 0, TILE_WIDTH):
            hashes = row[start : start + TILE_WIDTH]
            tile = Tile(level=level, index=index + start // TILE_WIDTH, width=len(hashes))
            files.append((tile, b"".join(hashes)))
            if tile.width == TILE_WIDTH:
                while len(hashes) > 1:
                    hashes = hash_pairs(hashes)
                above += hashes
        return tuple(row[len(row) - len(row) % TILE_WIDTH :]), above, files


def _peaks(rows: Sequence[Sequence[bytes]]) -> tuple[bytes, ...]:
    """Return the complete subtrees that make up a tree, largest first, from its partial tiles."""
    return tuple(peak for row in reversed(rows) for peak in Frontier().extend(row).hashes)


def partial_tiles(size: int) -> list[Tile]:
    """Return the partial tiles, and the partial bundle, that a tree of `size` has."""
    tiles = [
        Tile(level=level, index=count // TILE_WIDTH, width=count % TILE_WIDTH)
        for level in range((size.bit_length() + TILE_HEIGHT - 1) // TILE_HEIGHT)
        if (count := size >> TILE_HEIGHT * level) % TILE_WIDTH
    ]
    width = size % TILE_WIDTH
    return [*tiles, Tile(level=ENTRIES, index=size // TILE_WIDTH, width=width)] if width else tiles
