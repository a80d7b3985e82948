"""The two demonstrations: real patients dealt to four hospitals as files, and the settings both share.

Breast cancer: the Wisconsin diagnostic records that come with scikit-learn, dealt unevenly and not alike (a
screening centre sees small benign lumps, a referral centre large malignant ones). Heart disease: the four
hospitals of the UCI collection with the split of Fed-Heart-Disease (FLamby), fixed in advance. The data are
public; what a hospital does with such a file is `data`, what its columns mean is in `dictionaries/`.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.dictionary import Dictionary, shipped
from client.errors import DataError
from client.features import MISSING

HEART_DISEASE_ADDRESS = "https://archive.ics.uci.edu/dataset/45/heart+disease"  # doi 10.24432/C52P4X


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What the demonstrations train; decimals are text, as on the record."""

    data: str  # the dictionary's name
    hospitals: tuple[str, ...]
    rounds: int = 30
    model: str = "logistic-regression"
    loss: str = "bce-with-logits"
    local_steps: int = 1
    learning_rate: str = "0.3"
    max_grad_norm: str = "0.5"
    sample_rate: str = "1"  # every patient in every round
    strategy: str = "fedavg"
    weighting: str = "size-class"
    epsilon: str = "3"
    delta: str = "0.0001"

    @property
    def dictionary(self) -> Dictionary:
        """The data dictionary that comes with the package."""
        return shipped(self.data)


BREAST_CANCER = DemoSettings(
    data="breast-cancer", hospitals=("hillcrest", "lakeside", "northgate", "riverside")
)
HEART_DISEASE = DemoSettings(
    data="heart-disease", hospitals=("budapest", "cleveland", "long-beach", "zurich")
)
DEMOS = {demo.data: demo for demo in (BREAST_CANCER, HEART_DISEASE)}

# In the order of dealing, which goes from small lumps to large ones: (hospital, malignant, benign).
_DEAL = (("lakeside", 25, 125), ("hillcrest", 27, 32), ("northgate", 80, 160), ("riverside", 80, 40))

# hospital, file, rows, SHA-256 of UCI's file
_HEART_FILES = (
    ("cleveland", "cleveland", 303, "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8"),
    ("budapest", "hungarian", 294, "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796"),
    ("zurich", "switzerland", 123, "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314"),
    ("long-beach", "va", 200, "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f"),
)
_HEART_COLUMNS = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal",
    "num",
)  # fmt: skip
_LEFT_OUT = (10, 11, 12)  # slope, ca, thal: missing in most rows outside Cleveland
_TRAIN_SHARE = 0.66
_SPLIT_SEED = 43


def write_breast_cancer(directory: Path) -> dict[str, Path]:
    """Deal scikit-learn's 569 breast cancer records to four hospitals, one CSV file each.

    Deterministic: a record's place depends on its number and its radius alone.

    Returns:
        Each hospital's file.

    Raises:
        DataError: scikit-learn is not installed, or the files cannot be written.
    """
    try:
        from sklearn.datasets import load_breast_cancer  # only the demonstration needs scikit-learn
    except ImportError:
        raise DataError("the breast cancer records come with scikit-learn: install wardround[demo]") from None
    records = load_breast_cancer()
    radius = records.data[:, 0]
    by_size = sorted(range(len(radius)), key=lambda i: (radius[i], i))
    rank = {record: place / len(by_size) for place, record in enumerate(by_size)}
    order = sorted(rank, key=lambda i: rank[i] + _draw(i))
    malignant = [i for i in order if records.target[i] == 0]
    benign = [i for i in order if records.target[i] == 1]
    files = {}
    for hospital, m, b in _DEAL:
        dealt, malignant, benign = malignant[:m] + benign[:b], malignant[m:], benign[b:]
        rows = [
            (
                f"{hospital[0].upper()}-{place:04d}",
                *(repr(float(value)) for value in records.data[i]),
                "M" if records.target[i] == 0 else "B",
            )
            for place, i in enumerate(sorted(dealt, key=_draw), start=1)
        ]
        header = ("patient", *records.feature_names, "diagnosis")
        files[hospital] = _write(directory / f"{hospital}.csv", header, rows)
    return files


def write_heart_disease(source: Path, directory: Path) -> dict[str, Path]:
    """Write the four UCI files as CSV with named columns, a patient number and Fed-Heart-Disease's split.

    Rows with a missing value stay in the files, as hospitals have them; the snapshot drops them. Three
    columns that most rows lack are left out, as in Fed-Heart-Disease.

    Args:
        source: Directory of UCI's `processed.*.data`, byte for byte.
        directory: Where to write.

    Returns:
        Each hospital's file.

    Raises:
        DataError: a file is missing or altered, scikit-learn is not installed, or writing fails.
    """
    contents = [(hospital, _read_original(source / f"processed.{name}.data", digest))
                for hospital, name, _, digest in _HEART_FILES]  # fmt: skip
    kept = [i for i in range(len(_HEART_COLUMNS)) if i not in _LEFT_OUT]
    header = ("patient", *(_HEART_COLUMNS[i] for i in kept), "split")
    files = {}
    for hospital, text in contents:
        rows = [[row[i] for i in kept] for row in csv.reader(io.StringIO(text)) if row]
        split = _published_split(rows)
        lines = [
            (
                f"{hospital}-{place:03d}",
                *("" if c in MISSING else c for c in row),
                split.get(place - 1, "train"),
            )
            for place, row in enumerate(rows, start=1)
        ]
        files[hospital] = _write(directory / f"{hospital}.csv", header, lines)
    return files


def _published_split(rows: Sequence[Sequence[str]]) -> dict[int, str]:
    """Return train or test for each row without a missing value, as Fed-Heart-Disease splits them.

    Source: FLamby (du Terrail et al. 2022): 66 % for training, stratified unless a class has at most two rows.
    """
    try:
        from sklearn.model_selection import train_test_split  # only the demonstration needs scikit-learn
    except ImportError:
        raise DataError(
            "the split of Fed-Heart-Disease needs scikit-learn: install wardround[demo]"
        ) from None
    complete = [i for i, row in enumerate(rows) if not any(cell in MISSING for cell in row)]
    labels = [float(rows[i][-1]) > 0 for i in complete]
    stratify = labels if min(sum(labels), len(labels) - sum(labels)) > 2 else None
    train, _ = train_test_split(
        complete,
        train_size=_TRAIN_SHARE,
        test_size=1 - _TRAIN_SHARE,
        random_state=_SPLIT_SEED,
        stratify=stratify,
    )
    training = set(train)
    return {i: "train" if i in training else "test" for i in complete}


def _read_original(path: Path, digest: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror}): download the heart disease data from {HEART_DISEASE_ADDRESS}"
        ) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise DataError(
            f"{path} is not UCI's file (its SHA-256 must begin with {digest[:16]}); many copies are altered: "
            f"take the original from {HEART_DISEASE_ADDRESS}"
        )
    return data.decode("ascii")


def _draw(record: int) -> float:
    """Return a number in [0, 1) that depends on the record's place in the published file alone."""
    return int.from_bytes(hashlib.sha256(b"wardround demo %d" % record).digest()[:6]) / 2**48


def _write(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.getvalue().encode())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from None
    return path
