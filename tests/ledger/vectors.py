"""The published test vectors: independent implementations made them, so a shared misreading shows."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from ledger.signature import KeyType, SigningKey

VECTORS = Path(__file__).parent.parent / "vectors"
Case = dict[str, Any]


def load(kind: str) -> Any:
    return json.loads((VECTORS / f"{kind}.json").read_text(encoding="utf-8"))


def cases(kind: str) -> list[ParameterSet]:
    """The cases of one file, one parameter each, named as in the file."""
    return [pytest.param(case, id=case["name"]) for case in load(kind)["cases"]]


def is_valid(case: Case) -> bool:
    return bool(case.get("valid", True))


def unbase64(case: Case, field: str) -> bytes:
    return base64.b64decode(case.get(field, ""))


def proof_of(case: Case) -> list[bytes]:
    return [base64.b64decode(line) for line in case.get("proof", [])]


def entry(index: int) -> bytes:
    """Entry `index` of the vectors' log."""
    return sha256(b"leaf %d" % index).digest()[: index % 33]


def known_key(name: str) -> SigningKey:
    """The vectors' private key of this name. Never use it elsewhere."""
    case = next(key for key in load("keys")["keys"] if key["name"] == name)
    return SigningKey(name=name, type=KeyType(int(case["type"], 16)), seed=bytes.fromhex(case["seed_hex"]))
