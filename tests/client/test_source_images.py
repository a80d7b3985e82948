"""Images in a folder or an .npz file: exact size or no image; nothing outside the folder is read; nothing raises."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from client import dictionary, snapshot_file
from client.data import check_file, snapshot
from client.dictionary import shipped
from client.errors import DataError, DictionaryError
from client.source import Place
from ledger import canonical
from tests.client import images
from tests.client.images import DICTIONARY, describe, write_folder, write_npz
from tests.client.tables import SECRET


def taken(place: Place, described: dictionary.Dictionary = DICTIONARY) -> bytes:
    return snapshot_file.to_bytes(snapshot(place, described, secret=SECRET))


def png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 0) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def encoded(array: NDArray[np.generic], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def test_folder_and_npz_are_one_snapshot_of_images(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "folder", 12)
    found = snapshot(place, DICTIONARY, secret=SECRET)
    assert found.features.shape == (12, 1, 28, 28)
    assert -3 <= found.features.min() < found.features.max() <= 3
    same = [write_npz(tmp_path / "a.npz", 12), write_folder(tmp_path / "tiff", 12, suffix="tiff")]
    assert all(taken(other) == taken(place) for other in same)
    again = snapshot_file.from_bytes(taken(place))
    assert again.features.shape == (12, 1, 28, 28)
    assert snapshot_file.to_bytes(again) == taken(place)


def test_the_public_range_decides_and_not_the_image(tmp_path: Path) -> None:
    described = describe((1, 1, 3))
    place = write_folder(tmp_path, 0, *(f"{i}.png,P{i},0" for i in range(3)))
    Image.fromarray(np.array([[0, 128, 255]], np.uint8)).save(tmp_path / "0.png")
    Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16)).save(
        tmp_path / "1.png"
    )  # sixteen bits, same greys
    Image.fromarray(np.array([[False, True, True]])).save(tmp_path / "2.png")
    rows = snapshot(place, described, secret=SECRET).features.reshape(3, 3)
    values = sorted(row.tolist() for row in rows)
    assert values == [[-2.0, 0.0, 1.984375], [-2.0, 0.0, 1.984375], [-2.0, 1.984375, 1.984375]]


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"no image",
    "truncated": lambda _: encoded(images.pixels(1)[0][0], "PNG")[:-60],
    "truncated jpeg": lambda _: encoded(images.pixels(1)[0][0], "JPEG")[:200],
    "too small": lambda _: encoded(np.zeros((27, 28), np.uint8), "PNG"),
    "turned": lambda _: encoded(np.zeros((28, 56), np.uint8), "PNG"),
    "colour": lambda _: encoded(np.zeros((28, 28, 3), np.uint8), "PNG"),
    "floats": lambda _: encoded(np.full((28, 28), np.nan, np.float32), "TIFF"),
    "bomb": lambda _: png(50_000, 50_000, bytes(100)),
    "bomb of the right size": lambda _: png(28, 28, bytes(1 << 24)),
    "claims the right size": lambda _: png(28, 28, b"\0"),
    "another format": lambda _: encoded(images.pixels(1)[0][0], "GIF"),
    "palette": lambda _: encoded(images.pixels(1)[0][0], "PNG").replace(
        b"\x08\x00\x00\x00\x00", b"\x08\x03\x00\x00\x00", 1
    ),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_a_row_without_an_image(tmp_path: Path, content: Callable[[Path], bytes]) -> None:
    before = taken(write_folder(tmp_path / "a", 6))
    place = write_folder(tmp_path / "b", 6, "bad.png,Q,1")
    (place.file / "bad.png").write_bytes(content(tmp_path))
    report = check_file(place, DICTIONARY, secret=SECRET)
    assert report.rows == 7
    if report.kept == 6:
        assert report.dropped == (("image", "no image of the dictionary's shape", 1),)
        assert taken(place) == before
    else:  # Pillow fills what the file leaves out, or ignores what is too much
        assert "right size" in os.environ["PYTEST_CURRENT_TEST"]


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "link.png",
        "folder",
        "absent.png",
        "",
        ".",
        "\x00",
        "x" * 5000,
        "loop",
        "pipe",
        "deep/link/secret.png",
    ],
)
def test_nothing_outside_the_folder_is_read(tmp_path: Path, name: str) -> None:
    Image.fromarray(images.pixels(1)[0][0]).save(tmp_path / "secret.png")
    place = write_folder(tmp_path / "a", 4, f"{name},Q,1", f"{tmp_path / 'secret.png'},R,1")
    (place.file / "link.png").symlink_to(tmp_path / "secret.png")
    (place.file / "loop").symlink_to("loop")
    (place.file / "folder").mkdir()
    (place.file / "deep").mkdir()
    (place.file / "deep" / "link").symlink_to(tmp_path)
    os.mkfifo(place.file / "pipe")
    report = check_file(place, DICTIONARY, secret=SECRET)
    assert (report.rows, report.kept) == (6, 4)


def test_a_flipped_bit_anywhere_never_raises(tmp_path: Path) -> None:
    place = write_folder(tmp_path, 2, "bad,Q,1")
    draw = random.Random(1)
    for kind in ("PNG", "JPEG", "TIFF"):
        whole = encoded(images.pixels(1)[0][0], kind)
        for _ in range(40):
            data = bytearray(whole)
            for _ in range(draw.randint(1, 4)):
                data[draw.randrange(min(len(data), 200) if draw.random() < 0.7 else len(data))] = (
                    draw.randrange(256)
                )
            (tmp_path / "bad").write_bytes(data)
            assert len(snapshot(place, DICTIONARY, secret=SECRET).labels) in (2, 3)


def test_nothing_of_a_files_words_is_kept(tmp_path: Path) -> None:
    place = write_folder(tmp_path, 4)
    words = PngImagePlugin.PngInfo()
    words.add_text("Patient", "name of the patient")
    plain = taken(place)
    for i, value in enumerate(images.pixels(4)[0]):
        Image.fromarray(value).save(tmp_path / f"{i}.png", pnginfo=words)
    assert taken(place) == plain


def test_a_folder_without_labels_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*labels\.csv"):
        check_file(Place(kind="images", file=tmp_path), DICTIONARY, secret=SECRET)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"image": None}, "there is no array 'image'"),
        ({"label": np.zeros(5)}, "column 'label' has 5 values for 6 images"),
        ({"label": np.zeros((6, 2))}, "array 'label' does not hold one value for each image"),
        ({"label": np.array([object()] * 6)}, "holds objects"),
        ({"image": np.zeros((6, 27, 28), np.uint8)}, "holds no images of 1 x 28 x 28"),
        ({"image": np.zeros((6, 28, 28), complex)}, "holds no images"),
        ({"image": np.asfortranarray(np.zeros((6, 28, 28), np.uint8))}, "column by column"),
        ({"image": np.uint8(3)}, "holds objects or lies"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(tmp_path: Path, arrays: dict[str, object], says: str) -> None:
    place = write_npz(tmp_path / "a.npz", 6, **arrays)
    with pytest.raises(DataError, match=says) as caught:
        check_file(place, DICTIONARY, secret=SECRET)
    assert "\n" not in str(caught.value)


def test_an_image_that_is_not_finite_is_dropped_alone(tmp_path: Path) -> None:
    values = images.pixels(6)[0].astype(np.float32)
    values[3, 5, 5] = np.nan
    values[4, 0, 0] = 1e30
    report = check_file(write_npz(tmp_path / "a.npz", 6, image=values), DICTIONARY, secret=SECRET)
    assert (report.rows, report.kept) == (6, 5)


def test_a_pickle_in_an_array_is_never_run(tmp_path: Path) -> None:
    place = write_npz(tmp_path / "a.npz", 2, patient=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(DataError, match="array 'patient' holds objects"):
        snapshot(place, DICTIONARY, secret=SECRET)


def test_a_header_that_claims_more_than_its_bytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    place = write_npz(tmp_path / "a.npz", 2)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 28, 28), }"
    with zipfile.ZipFile(place.file, "a") as archive:
        archive.writestr("huge.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    (tmp_path / "mapping.toml").write_text('[columns.image]\nfrom = "huge"\n')
    with pytest.raises(DataError, match="array 'huge' is not as long as its header says"):
        check_file(
            Place(kind="npz", file=place.file, mapping=tmp_path / "mapping.toml"), DICTIONARY, secret=SECRET
        )


def test_a_damaged_npz_is_one_line_or_the_same_images(tmp_path: Path) -> None:
    place = write_npz(tmp_path / "a.npz", 3)
    whole, same = place.file.read_bytes(), taken(place)
    draw = random.Random(1)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        place.file.write_bytes(bytes(data[: draw.choice([len(data), draw.randrange(len(data))])]))
        try:
            assert taken(place) == same
        except DataError as error:
            refused += "\n" not in str(error)
    assert refused > 50


def test_a_text_array_that_is_no_text_spoils_its_own_row(tmp_path: Path) -> None:
    names = np.array(["P0", "P1", "P2"])
    names.view("<u4").reshape(3, 2)[1, 1] = 0x7FFFFFFF
    report = check_file(write_npz(tmp_path / "a.npz", 3, patient=names), DICTIONARY, secret=SECRET)
    assert report.patients >= 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": [28, 28]}, r"give shape as \[channels, height, width\]"),
        ({"shape": [1, 4096, 4096]}, "at most"),
        ({"shape": [1, 0, 28]}, "variable.shape must be"),
        ({"upper": ""}, "upper must be a decimal"),
        ({"source": ""}, "say in source"),
        ({"kind": "numeric"}, "only an image has a shape"),
    ],
)
def test_a_dictionary_of_images_that_is_not_as_written_is_refused(
    change: dict[str, object], says: str
) -> None:
    value = canonical.plain(DICTIONARY)
    value["variables"][0].update(change)
    with pytest.raises(DictionaryError, match=says):
        dictionary.parse(canonical.dumps({"type": dictionary.TYPE, **value}))


def test_what_came_later_is_spelled_only_where_it_says_something() -> None:
    assert b'"shape":[1,28,28]' in DICTIONARY.to_bytes()
    assert dictionary.from_bytes(DICTIONARY.to_bytes()) == DICTIONARY
    assert b"shape" not in shipped("heart-disease").to_bytes()
    assert (
        shipped("heart-disease").digest == "ae86feae8ab26eb3902cd04c2c87f9420a1fb4554eba4bc0e753e172bea74bac"
    )
    with pytest.raises(DictionaryError, match="canonical"):
        dictionary.from_bytes(
            shipped("heart-disease").to_bytes().replace(b'"spread":', b'"shape":[],"spread":', 1)
        )
