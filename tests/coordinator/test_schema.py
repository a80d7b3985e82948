"""schemathesis over our own OpenAPI document finds no server error and no answer that the document does not name.

About ten seconds by default; WARDROUND_SCHEMA_EXAMPLES says how many requests each endpoint gets instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from coordinator import api, log_files, openapi, service
from coordinator.endpoints import ENDPOINTS
from ledger import example
from ledger.errors import MalformedError
from tests.coordinator.public_port import TOKEN, Client, app_of
from tests.coordinator.ward import Ward

EXAMPLES = int(os.environ.get("WARDROUND_SCHEMA_EXAMPLES", "5"))
FINDINGS = [
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(openapi.document())
FOUND = [found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)]
OPERATIONS = {operation.definition.raw["operationId"]: operation for operation in FOUND}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    ward = Ward(tmp_path_factory.mktemp("ward"))
    ward.start()
    with pytest.MonkeyPatch.context() as patched, Client(app_of(ward, model_mib=1)) as made:
        patched.setattr(service, "HOLD_SECONDS", 0.0)
        patched.setattr(log_files, "LONGEST_WAIT", 0.01)
        patched.setattr(api, "LONGEST_WAIT", 0.01)
        yield made


def send(client: Client, case: Case[Any], signer: str) -> httpx.Response:
    """Send a case, signed where its headers and address can be, so that what lies behind a signature is reached."""
    sent = case.as_transport_kwargs(base_url="https://public")
    kept = {
        name: value for name, value in sent.items() if name in ("params", "headers", "data", "json", "files")
    }
    made = requests.Request(sent["method"], sent["url"], **kept).prepare()
    assert made.url is not None
    assert made.method is not None
    body = made.body.encode() if isinstance(made.body, str) else made.body or b""
    assert isinstance(body, bytes)
    headers = {**made.headers, "authorization": f"Bearer {TOKEN}"}
    headers["content-length"] = str(len(body))
    target = made.url.removeprefix("https://public")
    try:
        return client.ask(made.method, target, example.KEYS[signer], headers=headers, content=body)
    except MalformedError:  # no client of ours could sign it
        return client.ask(made.method, target, headers=headers, content=body)


CASES = [  # Fleet bodies are Flower's protobuf: the second test; what takes nothing cannot be asked wrongly
    (endpoint.name, mode)
    for endpoint in ENDPOINTS
    for mode in GenerationMode
    if endpoint.who.kind != "node"
    and (mode is GenerationMode.POSITIVE or endpoint.parameters or endpoint.body is not None)
]


@pytest.mark.parametrize(("name", "mode"), CASES, ids=lambda value: getattr(value, "value", value))
def test_no_input_is_a_server_error_or_an_answer_outside_the_document(
    client: Client, name: str, mode: GenerationMode
) -> None:
    signer = "researcher" if name == "upload" else "alpha"

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(OPERATIONS[name].as_strategy(generation_mode=mode))
    def attack(case: Case[Any]) -> None:
        case.validate_response(send(client, case, signer), checks=FINDINGS)

    attack()


@pytest.mark.parametrize("name", [endpoint.name for endpoint in ENDPOINTS if endpoint.body is not None])
@settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(body=st.binary(max_size=200))
def test_no_bytes_as_a_body_are_a_server_error(client: Client, name: str, body: bytes) -> None:
    endpoint = next(e for e in ENDPOINTS if e.name == name)
    target = endpoint.path.replace("{digest}", "0" * 64) + ("?kind=code" if name == "upload" else "")
    answer = client.ask(endpoint.method, target, example.KEYS["researcher"], content=body)
    assert answer.status_code < 500 or (
        name.startswith("fleet-") and answer.status_code == 503
    )  # no SuperLink
