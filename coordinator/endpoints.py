"""The one table of what the public port answers: every method and path, who may, what goes in, what comes out.

The routes (`coordinator.routing`), the OpenAPI document and its page (`coordinator.openapi`), the operator's guide
and the tests of access are made from it, so none can disagree. A new endpoint is one entry here and one handler of
the same name. What an entry is made of is `coordinator.endpoint`.
"""

from __future__ import annotations

from coordinator.endpoint import (
    ANY_OBJECT,
    ANYBODY,
    BYTES,
    COUNT,
    DIGITS,
    HEX,
    INVITED,
    JSON,
    MEMBER,
    NODE,
    NUMBER,
    PROTOBUF,
    RAW,
    RECORD,
    STRING,
    TEXT,
    TOKEN,
    TRUTH,
    Body,
    Endpoint,
    Parameter,
    Who,
    json_object,
)
from coordinator.gateway import FORWARDED, PREFIX
from ledger.joining import MAX_DEPOSIT
from ledger.records import MAX_RECORD_SIZE
from ledger.store import CHECKPOINT, CHECKPOINTS, PENDING

MAX_COSIGNATURE = 16 << 10  # bytes of a body; an ML-DSA-44 line has 3.3 KB
MAX_REPORT = 16 << 20  # the tail that a log may have lost
MAX_WANTED = 64 << 20  # an update of eight million parameters
ENTRY = json_object(
    payload=STRING,
    payloadType=STRING,
    signatures={"type": "array", "items": json_object(keyid=HEX, sig=STRING), "minItems": 1},
)
POLL = (
    Parameter(
        name="above",
        pattern=NUMBER,
        query=True,
        required=False,
        summary="answer once it covers more entries",
    ),
    Parameter(name="wait", pattern=NUMBER, query=True, required=False, summary="seconds to wait, at most 30"),
)
DIGEST = Parameter(name="digest", pattern=DIGITS, summary="SHA-256 of the content, or of the record")
JOB = Parameter(name="job", pattern=DIGITS, summary="the job's digest")

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
        parameters=(Parameter(name="size", pattern=NUMBER, summary="entries"),),
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
        errors=(403, 409, 503), schema=json_object(writable=TRUTH, more=COUNT), frequent=True,
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
