"""What an endpoint of the public port is: who may use it, what it is given, what it answers. No endpoint is here.

The table is `coordinator.endpoints`; schemas are JSON Schema, as OpenAPI 3.1 takes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
PROTOBUF = "application/x-protobuf"
BODY_SECONDS = 30.0  # how long a body may take to arrive
UPLOAD_SECONDS = 600.0  # the same of a model
NUMBER = r"(?:0|[1-9][0-9]{0,18})"
DIGITS = r"[0-9a-f]{64}"  # of a digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who may use an endpoint."""

    kind: str  # a key of WHO
    roles: tuple[str, ...] = ()  # of members; every role where none is named


WHO = {  # kind -> what the page says of it
    "anybody": "anybody",
    "member": "present members, by a signed request (RFC 9421, Ed25519)",
    "record": "whoever signed what the body holds",
    "invited": "holders of an invitation, by its code in the header wardround-invitation",
    "token": "holders of the token in keys/metrics.token",
    "node": "registered Flower nodes, by their own key: the SuperLink decides",
}
ANYBODY = Who(kind="anybody")
MEMBER = Who(kind="member")
RECORD = Who(kind="record")
INVITED = Who(kind="invited")
TOKEN = Who(kind="token")
NODE = Who(kind="node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A value in the path or the query; another spelling is refused before the handler is called."""

    name: str
    pattern: str  # of the whole value
    summary: str
    query: bool = False
    required: bool = True
    slashes: bool = False  # the rest of a path

    def fits(self, value: str) -> bool:
        """Whether a value is spelled as it must be."""
        return re.fullmatch(self.pattern, value, re.ASCII) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a request carries."""

    media_type: str
    max_bytes: int  # 0: the handler sets its own limit
    schema: Schema
    streamed: bool = False  # the handler reads it


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method on one path."""

    name: str  # of its handler; the operation's id
    method: str
    path: str
    who: Who
    summary: str
    media_type: str  # of the answer with status 200
    schema: Schema
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    errors: tuple[int, ...] = ()  # besides those that follow from the rest
    frequent: bool = False  # a change that comes with every checkpoint: only its refusals are in the journal

    @property
    def statuses(self) -> tuple[int, ...]:
        """Every status that it may answer with, besides 200."""
        found = {*self.errors}
        found |= {401, 403, 429, 503} if self.who.kind == "member" else set()
        found |= {401} if self.who.kind == "token" else set()
        found |= {403, 409, 429, 503} if self.who.kind == "invited" else set()
        found |= {408, 413} if self.body is not None else set()
        found |= {400} if self.body is not None or self.who.kind != "node" else set()
        found |= {404} if any(not p.query for p in self.parameters) else set()
        return tuple(sorted(found))


def json_object(**members: Schema) -> Schema:
    """Return the schema of an object with exactly these members."""
    return {
        "type": "object",
        "properties": members,
        "required": sorted(members),
        "additionalProperties": False,
    }


STRING: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TRUTH: Schema = {"type": "boolean"}
HEX: Schema = {"type": "string", "pattern": f"^{DIGITS}$"}
RAW: Schema = {"type": "string", "format": "binary"}
ANY_OBJECT: Schema = {"type": "object"}
ERROR: Schema = {
    "type": "object",
    "properties": {"error": STRING, "rule": STRING},
    "required": ["error"],
}
