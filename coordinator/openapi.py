"""The table of endpoints as an OpenAPI 3.1 document, and as a page to read: no scripts, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from http import HTTPStatus
from typing import Any

from starlette.responses import HTMLResponse, Response

from coordinator.endpoint import ERROR, JSON, WHO, Endpoint, Parameter
from coordinator.endpoints import ENDPOINTS
from coordinator.routing import Call, Handler

Json = dict[str, Any]
VERSION = "1"  # of the API
_SCHEMES: Json = {
    "member": {
        "type": "apiKey",
        "in": "header",
        "name": "Signature",
        "description": "RFC 9421 by the member's Ed25519 identity key, label and tag wardround, over @method, @path, "
        "@query and, where there is a body, content-digest; Signature-Input has created, nonce, keyid, alg, tag.",
    },
    "invited": {"type": "apiKey", "in": "header", "name": "wardround-invitation"},
    "token": {"type": "http", "scheme": "bearer"},
    "node": {"type": "apiKey", "in": "header", "name": "flwr-signature"},
}
_STYLE = "body{font:15px/1.5 sans-serif;margin:2em auto;max-width:60em;padding:0 1em}table{border-collapse:collapse}"
_STYLE += "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}code{white-space:nowrap}"


def document(endpoints: Iterable[Endpoint] = ENDPOINTS) -> Json:
    """Return the OpenAPI document of the table."""
    paths: Json = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Wardround coordinator",
            "version": VERSION,
            "description": "A change is a signed record; reading is for present members, by signed requests.",
        },
        "paths": paths,
        "components": {"securitySchemes": _SCHEMES, "schemas": {"Error": ERROR}},
    }


def page(endpoints: Iterable[Endpoint] = ENDPOINTS) -> str:
    """Return the table as HTML."""
    rows = "".join(_row(endpoint) for endpoint in endpoints)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Wardround coordinator</title>"
        f"<style>{_STYLE}</style><h1>Wardround coordinator</h1><p>A change is a signed record; reading is for "
        "present members, by signed requests. For programs: <a href=openapi.json>openapi.json</a>.<table>"
        f"<tr><th>Request<th>Who<th>What it does{rows}</table></html>\n"
    )


def handlers() -> Mapping[str, Handler]:
    """Return the handlers of both."""
    described, shown = json.dumps(document(), indent=1).encode(), page().encode()

    async def openapi(call: Call) -> Response:
        return Response(described, media_type=JSON)

    policy = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}

    async def read(call: Call) -> Response:
        return HTMLResponse(shown, headers=policy)

    return {"openapi": openapi, "page": read}


def _operation(endpoint: Endpoint) -> Json:
    answers: Json = {
        "200": {"description": "Done.", "content": {_bare(endpoint.media_type): {"schema": endpoint.schema}}}
    }
    for status in endpoint.statuses:
        content = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
        if endpoint.who.kind == "node":
            content = {"*/*": {"schema": {}}}
        answers[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    found: Json = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "description": f"For {who(endpoint)}.",
        "parameters": [_parameter(p) for p in endpoint.parameters],
        "responses": answers,
        "security": [{endpoint.who.kind: []}] if endpoint.who.kind in _SCHEMES else [],
    }
    if endpoint.body is not None:
        content = {_bare(endpoint.body.media_type): {"schema": endpoint.body.schema}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def who(endpoint: Endpoint) -> str:
    """Return who may use an endpoint, in words."""
    roles = f"; role {' or '.join(endpoint.who.roles)}" if endpoint.who.roles else ""
    return WHO[endpoint.who.kind] + roles


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": "query" if parameter.query else "path",
        "required": parameter.required,
        "description": parameter.summary,
        "schema": {"type": "string", "pattern": f"^(?:{parameter.pattern})$"},
    }


def _row(endpoint: Endpoint) -> str:
    query = [p.name if p.required else f"[{p.name}]" for p in endpoint.parameters if p.query]
    asked = endpoint.path + (f"?{'&'.join(query)}" if query else "")
    return (
        f"<tr><td><code>{endpoint.method} {escape(asked)}</code><td>{escape(who(endpoint))}"
        f"<td>{escape(endpoint.summary)}"
    )


def _bare(media_type: str) -> str:
    """Return a media type without its parameters."""
    return media_type.partition(";")[0]
