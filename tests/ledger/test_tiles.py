"""Tiles: vectors, paths, and proofs built from tiles alone, honest and hostile."""

from __future__ import annotations

import base64
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.merkle import (
    NodeReader,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_reader,
    root_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from ledger.tiles import (
    ENTRIES,
    MAX_ENTRY_SIZE,
    Read,
    Tile,
    TileNodes,
    decode_bundle,
    encode_bundle,
    new_bundles,
    new_tiles,
    read_bundle,
    tile_bytes,
)
from tests.ledger.vectors import Case, cases, entry, unbase64

quick = settings(max_examples=100, deadline=None)
SIZE = 70_000  # levels 0, 1 and 2, each with a partial tile
tiles = st.builds(
    Tile, level=st.integers(ENTRIES, 63), index=st.integers(0, 2**63 - 1), width=st.integers(1, 256)
)


def tree(size: int) -> tuple[list[bytes], NodeReader]:
    leaves = [leaf_hash(entry(index)) for index in range(size)]
    return leaves, node_reader(leaves)


def files_of(size: int, node: NodeReader) -> dict[str, bytes]:
    return {tile.path: tile_bytes(tile, node) for tile in new_tiles(0, size)}


def reader(files: dict[str, bytes]) -> Read:
    def read(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    return read


@cache
def large_log() -> tuple[list[bytes], NodeReader, dict[str, bytes]]:
    leaves, node = tree(SIZE)
    return leaves, node, files_of(SIZE, node)


@pytest.mark.parametrize("case", cases("tiles"))
def test_tile_vectors(case: Case) -> None:
    size = case["size"]
    leaves, node = tree(size)
    assert root_hash(leaves) == unbase64(case, "root")
    bundles = {
        tile.path: encode_bundle(entry(i) for i in range(tile.start, tile.start + tile.width))
        for tile in new_bundles(0, size)
    }
    for kind, made in (("tiles", files_of(size, node)), ("bundles", bundles)):
        expected = {item["path"]: item["sha256"] for item in case.get(kind, [])}
        assert {path: sha256(data).hexdigest() for path, data in made.items()} == expected
        for item in case.get(kind, []):
            assert made[item["path"]] == base64.b64decode(item.get("data", "")) or "data" not in item


def test_spec_example_of_70_000_entries() -> None:
    made = [(tile.level, tile.index, tile.width) for tile in new_tiles(0, SIZE)]
    level_0 = [(0, index, 256) for index in range(273)] + [(0, 273, 112)]
    assert made == [*level_0, (1, 0, 256), (1, 1, 17), (2, 0, 1)]


def test_size_256_is_a_full_tile_under_a_partial_one() -> None:
    assert [tile.path for tile in new_tiles(0, 256)] == ["tile/0/000", "tile/1/000.p/1"]
    assert [tile.path for tile in new_bundles(0, 256)] == ["tile/entries/000"]


def test_spec_example_of_a_path() -> None:
    assert Tile(level=0, index=1234067).path == "tile/0/x001/x234/067"


@quick
@given(st.integers(0, 200_000), st.integers(0, 2_000))
def test_growth_adds_just_the_tiles_that_the_old_tree_lacked(old_size: int, growth: int) -> None:
    size = old_size + growth
    assert {*new_tiles(old_size, size)} == {*new_tiles(0, size)} - {*new_tiles(0, old_size)}
    assert {*new_bundles(old_size, size)} == {*new_bundles(0, size)} - {*new_bundles(0, old_size)}


@quick
@given(tiles)
def test_paths_are_read_back(tile: Tile) -> None:
    assert Tile.from_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/1000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000\n",
        "/tile/0/000",
        "tile/8/0/000",
        "tile/data/000",
        "tile/0/" + "x999/" * 7 + "999",
        "tile/0/../entries/000",
        "tile/0/٠٠٠",
    ],
)
def test_second_spellings_of_a_path_are_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        Tile.from_path(path)


@quick
@given(
    st.text()
    | st.builds(
        "tile/{}/{}{:03}{}".format,
        st.sampled_from(["entries", "0", "7", "63", "64", "07"]),
        st.sampled_from(["", "x000/", "x001/", "x001/x000/", "001/"]),
        st.integers(0, 1001),
        st.sampled_from(["", ".p/0", ".p/1", ".p/255", ".p/256", ".p/08"]),
    )
)
def test_any_text_is_a_path_or_refused(path: str) -> None:
    try:
        tile = Tile.from_path(path)
    except MalformedError:
        return
    assert tile.path == path


@quick
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=256))
def test_bundles_are_read_back_and_no_cut_one_is(entries: list[bytes]) -> None:
    data = encode_bundle(entries)
    assert list(decode_bundle(data, len(entries))) == entries
    for wrong in (data[:-1], data + b"\0", data + data):
        with pytest.raises(MalformedError):
            decode_bundle(wrong, len(entries))
    with pytest.raises(MalformedError):
        decode_bundle(data, len(entries) + 1)


@quick
@given(st.binary(max_size=600), st.integers(1, 256))
def test_any_bytes_are_a_bundle_or_refused(data: bytes, width: int) -> None:
    try:
        entries = decode_bundle(data, width)
    except MalformedError:
        return
    assert encode_bundle(entries) == data


def test_an_entry_of_65_535_bytes_fits_and_no_larger_one() -> None:
    assert decode_bundle(encode_bundle([bytes(MAX_ENTRY_SIZE)]), 1) == (bytes(MAX_ENTRY_SIZE),)
    with pytest.raises(MalformedError):
        encode_bundle([bytes(MAX_ENTRY_SIZE + 1)])


@pytest.mark.parametrize("count", [0, 257])
def test_no_bundle_is_empty_or_too_wide(count: int) -> None:
    with pytest.raises(MalformedError):
        encode_bundle([b""] * count)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 513, 65_535, 65_536, 65_537, SIZE])
def test_tiles_alone_prove_what_the_tree_proves(size: int, check: bool) -> None:
    leaves, node, _ = large_log()
    root = tree_root(size, node)
    nodes = TileNodes(reader(files_of(size, node)), size, root if check else None)
    assert tree_root(size, nodes) == root
    for index in {0, 1, 255, 256, 65_535, 65_536, size // 2, size - 1} & set(range(size)):
        proof = inclusion_proof(index, size, nodes)
        assert proof == inclusion_proof(index, size, node)
        verify_inclusion(index, size, leaves[index], proof, root)
        old = consistency_proof(index, size, nodes)
        verify_consistency(index, tree_root(index, node), size, root, old)


def test_an_inclusion_proof_reads_one_tile_a_level_and_the_right_edge() -> None:
    _, _, files = large_log()
    seen: list[str] = []

    def read(path: str) -> bytes:
        seen.append(path)
        return files[path]

    nodes = TileNodes(read, SIZE)
    inclusion_proof(300, SIZE, nodes)
    assert sorted(seen) == ["tile/0/001", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17"]
    inclusion_proof(301, SIZE, nodes)
    assert len(seen) == 4


@quick
@given(st.data())
def test_a_changed_tile_never_passes_the_check(data: st.DataObject) -> None:
    _, node, files = large_log()
    path = data.draw(st.sampled_from(sorted(files)))
    position = data.draw(st.integers(0, len(files[path]) - 1))
    wrong = bytearray(files[path])
    wrong[position] ^= 1 << data.draw(st.integers(0, 7))
    root = tree_root(SIZE, node)
    tile = Tile.from_path(path)
    with pytest.raises(VerificationError):
        TileNodes(reader({**files, path: bytes(wrong)}), SIZE, root)(8 * tile.level, tile.start)


@pytest.mark.parametrize("cut", [1, 32, 8191])
def test_a_truncated_tile_is_refused(cut: int) -> None:
    _, _, files = large_log()
    nodes = TileNodes(reader({**files, "tile/0/007": files["tile/0/007"][:-cut]}), SIZE)
    with pytest.raises(MalformedError):
        nodes(0, 7 * 256)


def test_a_missing_tile_is_named() -> None:
    _, _, files = large_log()
    nodes = TileNodes(reader({path: data for path, data in files.items() if path != "tile/0/007"}), SIZE)
    with pytest.raises(VerificationError, match="tile/0/007 is missing"):
        nodes(0, 7 * 256)


def test_a_full_tile_stands_in_for_a_partial_one() -> None:
    _, node, files = large_log()
    size = 272 * 256 + 100
    files = {**files, "tile/1/001.p/16": files["tile/1/001.p/17"][: 16 * 32]}
    assert "tile/0/272.p/100" not in files
    assert tree_root(size, TileNodes(reader(files), size)) == tree_root(size, node)


@pytest.mark.parametrize("wrong", [(0, SIZE), (8, 273), (17, 0), (0, -1), (-1, 0), (64, 0)])
def test_nodes_outside_the_tree_are_refused(wrong: tuple[int, int]) -> None:
    _, _, files = large_log()
    with pytest.raises(VerificationError):
        TileNodes(reader(files), SIZE)(*wrong)


def test_entries_are_read_from_partial_or_full_bundles() -> None:
    entries = [entry(index) for index in range(300)]
    files = {
        "tile/entries/000": encode_bundle(entries[:256]),
        "tile/entries/001.p/44": encode_bundle(entries[256:]),
    }
    assert [*read_bundle(reader(files), 0, 300), *read_bundle(reader(files), 1, 300)] == entries
    assert list(read_bundle(reader(files), 0, 10)) == entries[:10]
    for index, size in ((1, 301), (2, 300), (-1, 300)):
        with pytest.raises(LedgerError):
            read_bundle(reader(files), index, size)
