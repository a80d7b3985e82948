"""What comes back from the coordinator, as an answer, a refusal or "try again"; nothing in it is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from client.errors import PostRefusedError, UnreachableError

_REFUSED = (400, 403, 409, 413)


def plain_headers(headers: httpx.Headers) -> dict[str, str]:
    """Return the headers without those that describe the transfer: the body is decoded already."""
    return {
        k: v
        for k, v in headers.items()
        if k not in ("content-encoding", "content-length", "transfer-encoding")
    }


def reason(answer: httpx.Response) -> str:
    """Return the one line of a refusal; it comes from outside, and a person reads it on a terminal."""
    try:
        value = json.loads(answer.content)
    except (ValueError, RecursionError):
        value = None
    text = str(value.get("error", "")) if isinstance(value, dict) else ""
    return "".join(c if c.isprintable() else "?" for c in text[:300]) or "no reason given"


def statement(fields: Mapping[str, Any]) -> bytes:
    """Return what an answer says that the coordinator signed; JSON can spell half of a surrogate pair."""
    return str(fields.get("statement", "")).encode("utf-8", "backslashreplace")


def expect(answer: httpx.Response) -> httpx.Response:
    """Return an answer with status 200. Raises UnreachableError."""
    if answer.status_code != httpx.codes.OK:
        raise UnreachableError(f"the coordinator answers with HTTP status {answer.status_code}")
    return answer


def json_object(answer: httpx.Response) -> Mapping[str, Any]:
    """Return an answer's JSON object.

    Raises:
        PostRefusedError: it is a refusal, with its reason in one line.
        UnreachableError: it is no JSON object, or has another status than 200.
    """
    try:
        value = json.loads(answer.content)
    except (ValueError, RecursionError):
        value = None
    fields: Mapping[str, Any] = value if isinstance(value, dict) else {}
    if answer.status_code in _REFUSED:
        raise PostRefusedError(
            answer.status_code, str(fields.get("rule", "")), reason(answer), statement(fields)
        )
    if not isinstance(value, dict):
        raise UnreachableError("the coordinator's answer is no JSON object")
    expect(answer)
    return fields
