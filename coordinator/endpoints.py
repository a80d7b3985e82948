"""The one table of what the public port answers: every method and path, who may, what goes in, what comes out.

The routes (`coordinator.routing`), the OpenAPI document and its page (`coordinator.openapi`) and the tests of access
are made from it, so none can disagree. A new endpoint is one entry here and one handler of the same name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from coordinator.gateway import FORWARDED, PREFIX
from ledger.joining import MAX_DEPOSIT
from ledger.records import MAX_RECORD_SIZE
from ledger.store import CHECKPOINT, CHECKPOINTS, PENDING

Schema = dict[str, Any]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
PROTOBUF = "application/x-protobuf"
MAX_COSIGNATURE = 16 << 10  # bytes of a body; an ML-DSA-44 line has 3.3 KB
MAX_REPORT = 16 << 20  # the tail that a log may have lost
MAX_WANTED = 64 << 20  # an update of eight million parameters
BODY_SECONDS = 30.0  # how long a body may take to arrive
UPLOAD_SECONDS = 600.0  # the same of a model
_NUMBER = r"(?:0|[1-9][0-9]{0,18})"
_DIGEST = r"[0-9a-f]{64}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who may use an endpoint."""

    kind: str  # a key of WHO
    roles: tuple[str, ...] = ()  # of members; every role where none is named


WHO = {  # kind -> what the page says of it
    "anybody": "anybody",
    "member": "present members, by a signed request (RFC 9421, Ed25519)",
    "invitation": "holders of an invitation's one-time code",
    "record": "whoever signed what the body holds",
    "invited": "holders of an invitation, by its code in the header wardround-invitation",
    "token": "holders of the token in keys/metrics.token",
    "node": "registered Flower nodes, by their own key: the SuperLink decides",
}
ANYBODY = Who(kind="anybody")
MEMBER = Who(kind="member")
INVITATION = Who(kind="invitation")  # its handler compares the code
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
HEX: Schema = {"type": "string", "pattern": f"^{_DIGEST}$"}
RAW: Schema = {"type": "string", "format": "binary"}
ANY_OBJECT: Schema = {"type": "object"}
ERROR: Schema = {
    "type": "object",
    "properties": {"error": STRING, "rule": STRING},
    "required": ["error"],
}
ENTRY = json_object(
    payload=STRING,
    payloadType=STRING,
    signatures={"type": "array", "items": json_object(keyid=HEX, sig=STRING), "minItems": 1},
)
POLL = (
    Parameter(
        name="above",
        pattern=_NUMBER,
        query=True,
        required=False,
        summary="answer once it covers more entries",
    ),
    Parameter(
        name="wait", pattern=_NUMBER, query=True, required=False, summary="seconds to wait, at most 30"
    ),
)
DIGEST = Parameter(name="digest", pattern=_DIGEST, summary="SHA-256 of the content, or of the record")
JOB = Parameter(name="job", pattern=_DIGEST, summary="the job's digest")

OPEN = (
    Endpoint(
        name="page", method="GET", path="/", who=ANYBODY, media_type="text/html; charset=utf-8", schema=STRING,
        summary="This page.",
    ),
    Endpoint(
        name="openapi", method="GET", path="/openapi.json", who=ANYBODY, media_type=JSON, schema=ANY_OBJECT,
        summary="This service as an OpenAPI 3.1 document.",
    ),
    Endpoint(
        name="health", method="GET", path="/health", who=ANYBODY, media_type=JSON,
        schema=json_object(status={"enum": ["founding", "ok", "read-only", "starting"]}, reason=STRING),
        summary="Whether the service works; what is wrong is said without a word about members.",
    ),
    Endpoint(
        name="authority", method="GET", path="/api/authority", who=ANYBODY, media_type="application/x-pem-file",
        schema=STRING,
        summary="The certificate of the authority behind this port's TLS; compare its fingerprint first.",
    ),
    Endpoint(
        name="metrics", method="GET", path="/metrics", who=TOKEN, schema=STRING,
        media_type="text/plain; version=1.0.0; charset=utf-8", summary="Figures for Prometheus.",
    ),
)  # fmt: skip

LOG = (
    Endpoint(
        name="pending", method="GET", path=f"/log/{PENDING}", who=MEMBER, media_type=TEXT, schema=STRING,
        parameters=POLL, errors=(404,), summary="The newest checkpoint that the log signed, for witnesses.",
    ),
    Endpoint(
        name="final", method="GET", path=f"/log/{CHECKPOINT}", who=MEMBER, media_type=TEXT, schema=STRING,
        parameters=POLL, errors=(404,), summary="The newest checkpoint that a quorum of witnesses cosigned.",
    ),
    Endpoint(
        name="news", method="GET", path="/api/news", who=MEMBER, media_type=JSON, schema=json_object(
            pending=STRING, final=STRING, report=STRING, entries={"type": "array", "items": STRING},
        ),
        parameters=POLL, errors=(404,),
        summary="Both checkpoints and the entries beyond `above`, base64; without these where they are many.",
    ),
    Endpoint(
        name="kept", method="GET", path=f"/log/{CHECKPOINTS}/{{size}}", who=MEMBER, media_type=TEXT, schema=STRING,
        parameters=(Parameter(name="size", pattern=_NUMBER, summary="entries"),),
        summary="The final checkpoint of one size, kept for ever.",
    ),
    Endpoint(
        name="tile", method="GET", path="/log/{path}", who=MEMBER, media_type=BYTES, schema=RAW,
        parameters=(Parameter(
            name="path", pattern=r"[0-9a-z./]{1,128}", slashes=True, summary="as C2SP tlog-tiles spells it"
        ),),
        summary="A tile of hashes or of entries.",
    ),
)  # fmt: skip

API = (
    Endpoint(
        name="records", method="POST", path="/api/records", who=RECORD, media_type=JSON,
        body=Body(media_type=JSON, max_bytes=MAX_RECORD_SIZE, schema=ENTRY), errors=(403, 409, 503),
        schema=json_object(index=COUNT, digest=HEX, statement=STRING),
        summary="Submit one signed record, of whichever member; the answer carries the coordinator's signed promise.",
    ),
    Endpoint(
        name="acknowledgement", method="GET", path="/api/acknowledgements/{digest}", who=MEMBER, media_type=JSON,
        parameters=(DIGEST, POLL[1]), errors=(404,), schema=json_object(statement=STRING), frequent=True,
        summary="What the coordinator signed about the reply with this receipt, as soon as it has arrived.",
    ),
    Endpoint(
        name="wanted", method="GET", path="/api/wanted", who=MEMBER, media_type=JSON, frequent=True,
        schema=json_object(blobs={"type": "array", "items": HEX}),
        summary="The updates and histograms of running jobs that a restored store lacks.",
    ),
    Endpoint(
        name="wanted-blob", method="POST", path="/api/wanted/{digest}", who=MEMBER, media_type=JSON,
        parameters=(DIGEST,), body=Body(media_type=BYTES, max_bytes=MAX_WANTED, schema=RAW), errors=(404, 503),
        schema=json_object(), summary="Hand in one of them again.",
    ),
    Endpoint(
        name="cosignatures", method="POST", path="/api/cosignatures", who=RECORD, media_type=JSON,
        body=Body(media_type=JSON, max_bytes=MAX_COSIGNATURE, schema=json_object(size=COUNT, line=STRING)),
        errors=(403, 409, 503), schema=json_object(final=TRUTH), summary="Hand over a cosignature of a checkpoint.",
        frequent=True,
    ),
    Endpoint(
        name="reports", method="POST", path="/api/reports", who=RECORD, media_type=JSON,
        body=Body(media_type=JSON, max_bytes=MAX_REPORT, schema=json_object(
            nonce=STRING, note=STRING, entries={"type": "array", "items": STRING}
        )),
        errors=(403, 409, 503), schema=json_object(writable=TRUTH, more=COUNT),
        summary="Tell a restarted log what a witness signed last, with the entries that it lost.",
    ),
    Endpoint(
        name="status", method="GET", path="/api/status", who=MEMBER, media_type=JSON, summary="For displays.",
        schema={"type": "object", "required": ["jobs", "log", "origin", "phases"]},
    ),
    Endpoint(
        name="blob", method="GET", path="/api/blobs/{digest}", who=MEMBER, media_type=BYTES, schema=RAW,
        parameters=(DIGEST,),
        summary="What a member has a right to: dictionaries, code, first and released models and cards of every job; "
        "updates and histograms, for auditors and the job's hospitals. These and released models go on the record.",
    ),
    Endpoint(
        name="run", method="GET", path="/api/runs/{job}", who=MEMBER, media_type=JSON, parameters=(JOB,),
        schema=json_object(files={
            "type": "array", "items": json_object(digest=HEX, path=STRING, size=COUNT)
        }),
        summary="The files that a finished job left: released model, card and evidence.",
    ),
    Endpoint(
        name="run-file", method="GET", path="/api/runs/{job}/{path}", who=MEMBER, media_type=BYTES, schema=RAW,
        parameters=(JOB, Parameter(
            name="path", pattern=r"[0-9A-Za-z._/-]{1,200}", slashes=True, summary="one of the listed files"
        )),
        summary="One file of a finished job. Whoever is handed its evidence goes on the record, once.",
    ),
    Endpoint(
        name="upload", method="PUT", path="/api/blobs/{digest}", who=Who(kind="member", roles=("researcher",)),
        media_type=JSON, schema=json_object(digest=HEX), errors=(409, 411),
        parameters=(DIGEST, Parameter(
            name="kind", pattern="code|dictionary|model", query=True, summary="what it is: its limit depends on it"
        )),
        body=Body(media_type=BYTES, max_bytes=0, schema=RAW, streamed=True),
        summary="Deposit what a job will name: first parameters, dictionary or model.py; gone in a day without.",
    ),
)  # fmt: skip

SIGNED = json_object(body=STRING, by_identity=STRING, by_node=STRING, by_witness=STRING)
DEPOSITED = Body(media_type=JSON, max_bytes=MAX_DEPOSIT, schema=SIGNED)
STANDING = {"type": "object", "required": ["name", "phase", "record", "role", "signed"]}
PROPOSAL = {"type": "object", "required": ["declined", "digest", "ended", "needed", "record", "signed"]}

MEMBERS = (
    Endpoint(
        name="join", method="POST", path="/api/join", who=INVITED, media_type=JSON, schema=STANDING,
        body=DEPOSITED,
        summary="Deposit the public halves of one's keys, each of which has signed the deposit.",
    ),
    Endpoint(
        name="joining", method="GET", path="/api/founding", who=INVITED, media_type=JSON, schema=STANDING,
        summary="How far one's joining is, and the charter or the amendment that is to be signed.",
    ),
    Endpoint(
        name="joining-signature", method="POST", path="/api/founding/signatures", who=INVITED, media_type=JSON,
        schema=STANDING, body=Body(media_type=JSON, max_bytes=MAX_RECORD_SIZE, schema=ENTRY),
        summary="Sign it.",
    ),
    Endpoint(
        name="propose", method="POST", path="/api/proposals", who=RECORD, media_type=JSON, errors=(403, 409, 503),
        schema=json_object(digest=HEX), body=Body(media_type=JSON, max_bytes=MAX_RECORD_SIZE, schema=ENTRY),
        summary="Propose an amendment or an agreement that several must sign; a present member has signed it.",
    ),
    Endpoint(
        name="proposals", method="GET", path="/api/proposals", who=MEMBER, media_type=JSON,
        schema=json_object(proposals={"type": "array", "items": PROPOSAL}),
        summary="What waits for signatures, and what was decided lately.",
    ),
    Endpoint(
        name="proposal", method="GET", path="/api/proposals/{digest}", who=MEMBER, media_type=JSON, schema=PROPOSAL,
        parameters=(DIGEST,), summary="One of them.",
    ),
    Endpoint(
        name="proposal-signature", method="POST", path="/api/proposals/{digest}/signatures", who=RECORD,
        media_type=JSON, schema=PROPOSAL, parameters=(DIGEST,), errors=(403, 409, 503),
        body=Body(media_type=JSON, max_bytes=MAX_RECORD_SIZE, schema=ENTRY),
        summary="Add a signature; with the last one that is needed the record goes on the log.",
    ),
    Endpoint(
        name="decline", method="POST", path="/api/proposals/{digest}/declined", who=MEMBER, media_type=JSON,
        schema=PROPOSAL, parameters=(DIGEST,), summary="Tell the others that one will not sign; it decides nothing.",
    ),
    Endpoint(
        name="node", method="POST", path="/api/nodes", who=RECORD, media_type=JSON, schema=json_object(),
        errors=(403, 409, 503), body=DEPOSITED,
        summary="Replace the key of a hospital's Flower node, signed by the identity key and the new one.",
    ),
)  # fmt: skip

FLEET = tuple(
    Endpoint(
        name=f"fleet-{name}", method="POST", path=PREFIX + name, who=NODE, media_type=PROTOBUF, schema=RAW,
        body=Body(media_type=PROTOBUF, max_bytes=0, schema=RAW, streamed=True), errors=(401, 403, 411, 412, 500, 503),
        summary=f"Flower's Fleet API: {name}.",
    )
    for name in FORWARDED
)  # fmt: skip

ENDPOINTS = (*OPEN, *LOG, *API, *MEMBERS, *FLEET)
