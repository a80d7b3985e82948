"""A hospital's folder for the tests: settings, keys, a dictionary and a small made-up table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from client import config, dictionary
from client.config import Hospital
from client.flower_connection import new_node_key
from ledger import example

PURPOSE = "cardiology-research"
SIZE_CLASS = 64
DICTIONARY = dictionary.parse(
    json.dumps(
        {
            "type": dictionary.TYPE,
            "name": "test",
            "variables": [
                {"name": "age", "kind": "numeric", "lower": "0", "upper": "120", "source": "made up"},
                {"name": "sex", "kind": "binary", "levels": ["0", "1"]},
            ],
            "label": {"name": "num", "negative": ["0"], "positive": ["1"]},
            "patient": "id",
        }
    ).encode()
)
PARAMETERS = len(DICTIONARY.feature_names) + 1
HEADER = "id,age,sex,num"


def rows(count: int = SIZE_CLASS) -> list[str]:
    """Rows of patients that a logistic regression could learn from."""
    return [f"p{i},{30 + (i * 7) % 60},{i % 2},{int((i * 7) % 60 > 30)}" for i in range(count)]


def table(lines: Sequence[str]) -> str:
    return "\n".join([HEADER, *lines]) + "\n"


def write(
    folder: Path, lines: Sequence[str] | None = None, changes: Mapping[str, object] | None = None
) -> Path:
    """Write alpha's folder; `changes` replace lines of hospital.toml's [dataset] table."""
    name = "alpha"
    (folder / "keys").mkdir(parents=True)
    (folder / "keys" / "identity.key").write_text(example.KEYS[name].to_text() + "\n")
    (folder / "keys" / "witness.key").write_text(example.WITNESSES[name].to_text() + "\n")
    (folder / "keys" / "node.pem").write_bytes(new_node_key()[0])
    (folder / "keys" / "dataset.secret").write_bytes(bytes(range(32)))
    (folder / "ca.pem").write_text("a fake coordinator needs none")
    (folder / "patients.csv").write_text(table(rows() if lines is None else lines))
    (folder / "dictionary.json").write_bytes(DICTIONARY.to_bytes())
    settings: dict[str, object] = {
        "name": "heart", "file": "patients.csv", "dictionary": "dictionary.json", "epsilon": 8, "delta": 0.0001,
        "size_class": SIZE_CLASS, "purposes": [PURPOSE],
    }  # fmt: skip
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in {**settings, **(changes or {})}.items())
    (folder / config.FILE).write_text(
        f'name = "{name}"\ncoordinator = "localhost:8443"\nauthority = "ca.pem"\n'
        f'charter = "{example.charter().digest()}"\n[dataset]\n{text}'
        '[policy]\napprove = "built-in"\nmin_participants = 1\n'
    )
    return folder


def hospital(folder: Path, lines: Sequence[str] | None = None, /, **changes: object) -> Hospital:
    """Write alpha's folder and read its settings."""
    return config.load(write(folder, lines, changes))
