"""The gateway: ten Fleet requests pass unchanged, no spelling of any other path does, and bodies are bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import Message, Receive

from coordinator.gateway import FORWARDED, SMALL_BODY, Gateway, GatewaySettings
from coordinator.looks import Looks
from coordinator.repeated_looks import RepeatedLooks
from coordinator.sendings import Sendings
from coordinator.tls import ensure_tls
from tests.coordinator.stoppable import Service

Upstream = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_tls(tmp_path_factory.mktemp("tls"), [], datetime.now(UTC)).authority


def ask(
    authority: Path,
    upstream: Upstream,
    path: str,
    *,
    method: str = "POST",
    max_body: int = 1 << 20,
    times: int = 1,
    **request: object,
) -> httpx.Response:
    """Send requests through a gateway in front of `upstream`; return the last answer."""

    async def run() -> httpx.Response:
        settings = GatewaySettings(address="127.0.0.1:1", authority=authority, max_body=max_body)
        gateway = Gateway(settings, httpx.MockTransport(upstream))
        transport = httpx.ASGITransport(Starlette(routes=list(gateway.routes)))
        async with httpx.AsyncClient(transport=transport, base_url="https://public") as client:
            for _ in range(times):
                response = await client.request(method, path, **request)  # type: ignore[arg-type]
        await gateway.close()
        return response

    return asyncio.run(run())


def echo(request: httpx.Request) -> httpx.Response:
    headers = {"seen-" + name: value for name, value in request.headers.items()}
    kept = {"flwr-seen-" + name: value for name, value in request.headers.items()}
    own = {"content-type": "application/x-protobuf", "content-length": str(len(request.content))}

    async def body() -> AsyncIterator[bytes]:  # as a network gives it: in pieces, readable once
        for start in range(0, len(request.content), 1000):
            yield request.content[start : start + 1000]

    return httpx.Response(200, headers=headers | kept | own, content=body())


def unreachable(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"forwarded {request.url}")


@pytest.mark.parametrize("size", [0, 1, SMALL_BODY, SMALL_BODY + 1, 1 << 20])
@pytest.mark.parametrize("name", FORWARDED)
def test_a_fleet_request_passes_unchanged(authority: Path, name: str, size: int) -> None:
    seen: list[str] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return echo(request)

    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    answer = ask(authority, upstream, f"/v1/fleet/{name}", content=body)
    assert (answer.status_code, answer.content) == (200, body)
    assert seen == [f"https://127.0.0.1:1/v1/fleet/{name}"]


def test_the_signature_passes_and_cookies_do_not(authority: Path) -> None:
    headers = {
        "flwr-signature": "s",
        "flwr-timestamp": "t",
        "flwr-public-key": "k",
        "cookie": "c",
        "x-other": "o",
    }
    answer = ask(authority, echo, "/v1/fleet/pull-messages", content=b"x", headers=headers)
    passed = {name.removeprefix("flwr-seen-") for name in answer.headers if name.startswith("flwr-seen-")}
    assert {"flwr-signature", "flwr-timestamp", "flwr-public-key"} <= passed
    assert not passed & {"cookie", "x-other"}
    assert not [name for name in answer.headers if name.startswith("seen-")]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/",
        "/v1/fleet",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/..%2fcontrol%2fstart-run",
        "/v1/fleet/pull-messages/../../control/start-run",
        "//v1/control/start-run",
        "/v1//control/start-run",
        "/docs",
        "/openapi.json",
        "/health",
        "/",
    ],
)
def test_path_smuggling_nothing_else_is_reachable(authority: Path, path: str) -> None:
    assert ask(authority, unreachable, path, content=b"x").status_code == 404


def test_a_trailing_slash_is_sent_back_not_forwarded(authority: Path) -> None:
    assert ask(authority, unreachable, "/v1/fleet/pull-messages/", content=b"x").status_code == 307


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_only_post_is_forwarded(authority: Path, method: str) -> None:
    assert ask(authority, unreachable, "/v1/fleet/pull-messages", method=method).status_code == 405


def test_a_body_over_the_limit_is_refused_before_it_is_read(authority: Path) -> None:
    answer = ask(authority, unreachable, "/v1/fleet/push-object", content=b"x" * 1001, max_body=1000)
    assert answer.status_code == 413


@pytest.mark.parametrize("size", [100, 100_000])
def test_attack_body_that_never_comes_holds_nothing_for_long(authority: Path, size: int) -> None:
    async def dribble() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(3600)

    async def upstream(request: httpx.Request) -> httpx.Response:
        await request.aread()
        raise AssertionError("it never arrived")

    async def run() -> httpx.Response:
        settings = GatewaySettings(address="127.0.0.1:1", authority=authority, transfer_seconds=0.05)
        gateway = Gateway(settings, httpx.MockTransport(upstream))
        transport = httpx.ASGITransport(Starlette(routes=list(gateway.routes)))
        headers = {"content-length": str(size)}
        async with httpx.AsyncClient(transport=transport, base_url="https://public") as client:
            response = await client.post("/v1/fleet/push-object", content=dribble(), headers=headers)
        await gateway.close()
        return response

    async def bounded() -> httpx.Response:
        return await asyncio.wait_for(run(), 10)

    assert asyncio.run(bounded()).status_code == 408


@pytest.mark.parametrize("length", [None, "-1", "+1", "1e3", "²"])
def test_a_body_of_unstated_length_is_refused(authority: Path, length: str | None) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    headers = {} if length is None else {"content-length": length.encode()}
    answer = ask(authority, unreachable, "/v1/fleet/push-object", content=chunks(), headers=headers)
    assert answer.status_code == 411


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError])
def test_a_superlink_that_is_down_is_said_to_be(authority: Path, error: type[httpx.TransportError]) -> None:
    def down(request: httpx.Request) -> httpx.Response:
        raise error("no", request=request)

    assert ask(authority, down, "/v1/fleet/pull-messages", content=b"x").status_code == 503


@pytest.mark.parametrize("status", [401, 403, 412, 500])
def test_a_refusal_keeps_its_status_and_text(authority: Path, status: int) -> None:
    answer = ask(
        authority, lambda _: httpx.Response(status, text="why"), "/v1/fleet/activate-node", content=b"x"
    )
    assert (answer.status_code, answer.text) == (status, "why")


def test_a_superlink_that_is_away_is_told_once_however_many_ask(
    authority: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = iter([True, True, False, True, True])

    def now_and_then(request: httpx.Request) -> httpx.Response:
        if next(left):
            raise httpx.ConnectError("away")
        return echo(request)

    ask(authority, now_and_then, "/v1/fleet/pull-messages", content=b"x", times=5)
    assert caplog.text.count("the SuperLink does not answer (ConnectError)") == 2


def test_an_empty_look_is_held_until_messages_are_left_and_other_requests_are_not(authority: Path) -> None:
    seen: list[str] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("flwr-public-key", ""))
        found = request.content if len(seen) > 2 else b""
        status = 401 if seen[-1] == "stranger" else 200
        return httpx.Response(status, content=found, headers={"content-length": str(len(found))})

    async def run() -> httpx.Response:
        sendings = Sendings()
        gateway = Gateway(
            GatewaySettings(address="127.0.0.1:1", authority=authority),
            httpx.MockTransport(upstream),
            Looks(sendings, Service()),
        )
        transport = httpx.ASGITransport(Starlette(routes=list(gateway.routes)))
        async with httpx.AsyncClient(transport=transport, base_url="https://public") as client:
            look = partial(client.post, "/v1/fleet/pull-messages", content=b"x")
            await look(headers={"flwr-public-key": "node"})
            held = asyncio.create_task(look(headers={"flwr-public-key": "node"}))
            await client.post(
                "/v1/fleet/send-node-heartbeat", content=b"x", headers={"flwr-public-key": "node"}
            )
            for _ in range(2):
                assert (await look(headers={"flwr-public-key": "stranger"})).status_code == 401
            assert seen == ["node", "node", "stranger", "stranger"]
            assert not held.done()
            sendings.add()
            answer = await held
        await gateway.close()
        return answer

    answer = asyncio.run(run())
    assert (answer.status_code, answer.content, len(seen)) == (200, b"x", 5)


def test_a_look_whose_sender_is_gone_takes_no_message(authority: Path) -> None:
    seen: list[str] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, headers={"content-length": "0"})

    async def run() -> None:
        sendings = Sendings()
        gateway = Gateway(
            GatewaySettings(address="127.0.0.1:1", authority=authority),
            httpx.MockTransport(upstream),
            Looks(sendings, Service()),
        )
        app = Starlette(routes=list(gateway.routes))
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/fleet/pull-messages",
            "query_string": b"",
            "headers": [(b"content-length", b"1"), (b"flwr-public-key", b"node")],
        }

        async def send(message: Message) -> None:
            return

        def arriving() -> Receive:
            events: Iterator[Message] = iter(
                [{"type": "http.request", "body": b"x"}, {"type": "http.disconnect"}]
            )

            async def receive() -> Message:
                return next(events)

            return receive

        def staying() -> Receive:
            events: Iterator[Message] = iter([{"type": "http.request", "body": b"x"}])

            async def receive() -> Message:
                for event in events:
                    return event
                await asyncio.sleep(3600)
                raise AssertionError("nobody waits so long")

            return receive

        await app(scope, staying(), send)
        gone = asyncio.create_task(app(dict(scope), arriving(), send))
        await asyncio.sleep(0.01)
        sendings.add()
        await gone
        await gateway.close()

    asyncio.run(run())
    assert len(seen) == 1


def test_a_message_whose_answer_was_lost_is_given_to_the_look_that_asks_again(authority: Path) -> None:
    once = [b"message"]

    def upstream(request: httpx.Request) -> httpx.Response:
        if request.headers["flwr-public-key"] != "node":
            return httpx.Response(401, headers={"content-length": "0"})
        found = once.pop() if once else b""
        return httpx.Response(200, content=found, headers={"content-length": str(len(found))})

    async def run() -> list[tuple[int, bytes]]:
        gateway = Gateway(
            GatewaySettings(address="127.0.0.1:1", authority=authority),
            httpx.MockTransport(upstream),
            Looks(Sendings(), Service()),
        )
        transport = httpx.ASGITransport(Starlette(routes=list(gateway.routes)))
        async with httpx.AsyncClient(transport=transport, base_url="https://public") as client:
            answers = []
            for key, name in (("node", "1"), ("stranger", "1"), ("node", "1"), ("node", "2")):
                headers = {"flwr-public-key": key, "wardround-look": name}
                answers.append(await client.post("/v1/fleet/pull-messages", content=b"x", headers=headers))
                if name == "1" and key == "node" and len(answers) == 3:
                    gateway._looks = None  # the next one would be held
        await gateway.close()
        return [(answer.status_code, answer.content) for answer in answers]

    assert asyncio.run(run()) == [(200, b"message"), (401, b""), (200, b"message"), (200, b"")]


def test_the_heartbeats_of_an_agent_that_computes_keep_its_message_from_a_second_one(authority: Path) -> None:
    once, now = [b"message"], [0.0]

    def upstream(request: httpx.Request) -> httpx.Response:
        found = once.pop() if once and "pull" in request.url.path else b""
        return httpx.Response(200, content=found, headers={"content-length": str(len(found))})

    async def run() -> list[bytes]:
        looks = Looks(Sendings(), Service(), seconds=0.0)
        gateway = Gateway(
            GatewaySettings(address="127.0.0.1:1", authority=authority), httpx.MockTransport(upstream), looks
        )
        gateway._repeated = RepeatedLooks(lambda: now[0])
        transport = httpx.ASGITransport(Starlette(routes=list(gateway.routes)))
        found = []
        async with httpx.AsyncClient(transport=transport, base_url="https://public") as client:
            for name, path in (
                ("one.1", "pull-messages"),
                ("one.2", "send-node-heartbeat"),
                ("two.1", "pull-messages"),
                ("two.1", "pull-messages"),
            ):
                headers = {"flwr-public-key": "node", "wardround-look": name}
                found.append((await client.post(f"/v1/fleet/{path}", content=b"x", headers=headers)).content)
                now[0] += 15.0
        await gateway.close()
        return found

    assert asyncio.run(run()) == [b"message", b"", b"", b"message"]
