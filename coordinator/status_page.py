"""A coordinator's status fetched over its public port with a member's key, and in plain words."""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from coordinator import config, waiting
from coordinator.errors import ConfigError, ServiceError
from ledger import signed_request
from ledger.signature import SigningKey

TIMEOUT = 10.0  # seconds
MAX_SIZE = 16 << 20  # bytes
_SHORT = 12  # hex digits of a digest


def fetch(where: str, authority: Path | None, key: Path | None = None) -> dict[str, Any]:
    """Return the status of the coordinator at a folder or an address.

    Args:
        where: A coordinator's folder, which has all that is needed, or its https address.
        authority: Certificate that the address is checked against.
        key: File of the identity key of any member.

    Raises:
        ConfigError: the folder is none of a coordinator, or the key cannot be used.
        ServiceError: it does not answer, its certificate is not the authority's, or it refuses the key.
    """
    if not where.startswith("https://"):
        settings = config.load(Path(where))
        where, authority = settings.url, authority or settings.directory / "tls" / "ca.pem"
        key = key or settings.directory / "keys" / "coordinator.key"
    if key is None:
        raise ConfigError("only members may read the status: name your key with --key")
    signer = config.read_key(key)
    try:
        context = ssl.create_default_context(cafile=authority)
        with httpx.Client(verify=context, timeout=TIMEOUT, trust_env=False) as client:
            answer = client.get(f"{where.rstrip('/')}/api/status", auth=signing(signer))
        found = answer.json()
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise ServiceError(f"no coordinator answers at {where} ({error}): is it running?") from None
    if not isinstance(found, dict) or not (answer.is_success or isinstance(found.get("error"), str)):
        raise ServiceError(f"what answers at {where} is no coordinator")
    if not answer.is_success:
        raise ServiceError(
            f"the coordinator at {where} refuses ({answer.status_code}): {found['error'][:300]!r}"
        )
    return found


def signing(key: SigningKey) -> Callable[[httpx.Request], httpx.Request]:
    """Return what signs each request of an httpx client with a member's key: its `auth`."""

    def sign(request: httpx.Request) -> httpx.Request:
        target = request.url.raw_path.decode("ascii")
        headers = signed_request.sign(
            key,
            method=request.method,
            target=target,
            body=request.read(),
            created=int(time.time()),
            nonce=secrets.token_hex(16),
        )
        request.headers.update(headers)
        return request

    return sign


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a status in plain words."""
    log = found["log"]
    yield (
        f"log {found['origin']}: {log['size']} entries, final up to {log['final_size']}; the newest checkpoint has "
        f"{log['cosignatures']} of {log['witnesses']} cosignatures, {log['quorum']} are needed"
    )
    if not log["writable"]:
        yield f"  it waits for its witnesses. {log['obstacle']}".rstrip()
    if found.get("trouble"):
        yield f"  no round goes on: {found['trouble']}"
    for job in found["jobs"]:
        yield from _job(job)


def sentence(event: Mapping[str, object]) -> str:
    """Return what `coordinator up` says of an event."""
    match event.get("event"):
        case "serving":
            return f"serving {event['url']}; stop with Ctrl-C"
        case "founding":
            return (
                f"waiting for the founders at {event['url']}; they go on if it is stopped and started again"
            )
        case "founded":
            return f"founded: entry 0 of the log is the charter {event['charter']}"
        case "ready":
            return "ready for hospitals and jobs"
        case "released":
            return f"job {str(event['job'])[:_SHORT]} is released: {event['directory']}"
    return str(event.get("event"))


def _job(job: Mapping[str, Any]) -> Iterator[str]:
    done = min(job["round"], job["rounds"])
    yield f"job {job['name']} ({job['digest'][:_SHORT]}): {job['status']}, {done} of {job['rounds']} rounds"
    if job["problem"]:
        yield f"  it does not go on: {job['problem']}"
    if job.get("waits"):
        yield f"  it {waiting.words(job['waits'])}"
    if job["status"] == "proposed":
        yield f"  answered: {', '.join(job['answered']) or 'nobody'} of {', '.join(job['wanted'])}"
    for name, spent in job["epsilons"].items():
        yield (
            f"  {name}: epsilon {spent['job']} of this job at delta {spent['job_delta']}; {spent['dataset']} of "
            f"{spent['budget']} in all at delta {spent['delta']} (add/remove one patient)"
        )
    for name, code in job["left_out"].items():
        yield f"  {name} was left out of the last round: {code}"
    for one in job["evaluations"][-1:]:
        shown = (
            f"{name} {m['value']} ({m['low']} to {m['high']})" for name, m in one.items() if name != "round"
        )
        yield f"  model of round {one['round'] - 1}: {', '.join(shown) or 'not measurable'}"
