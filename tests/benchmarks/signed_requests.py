"""What it costs to sign a request and to check it: requests a second at the live public port, signed and unsigned.

    python -m tests.benchmarks.signed_requests [--requests 1000]

Both ask for the same checkpoint by the same handler, over TLS on one connection kept alive; for the unsigned ones the
table says "anybody". Prints the ratio, and the bare signature and check alone. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import ssl
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import httpx

from coordinator import service
from coordinator.endpoint import ANYBODY
from coordinator.endpoints import ENDPOINTS
from coordinator.status_page import signing
from ledger import example
from ledger.signed_request import INPUT, SIGNATURE, Target, verify
from tests.coordinator.public_port import LivePort, signature
from tests.coordinator.ward import Ward

TARGET = "/log/checkpoint.pending"


def rate(ward: Ward, requests: int, *, signed: bool) -> float:
    """Return requests a second of one reader."""
    with LivePort(ward) as port:
        context = ssl.create_default_context(cafile=port.tls.authority)
        auth = signing(example.KEYS["alpha"]) if signed else None
        address = f"https://localhost:{port.number}"
        with httpx.Client(base_url=address, verify=context, auth=auth, trust_env=False) as client:
            for _ in range(requests // 10):
                client.get(TARGET).raise_for_status()
            began = time.perf_counter()
            for _ in range(requests):
                client.get(TARGET).raise_for_status()
            return requests / (time.perf_counter() - began)


def bare(count: int) -> tuple[float, float]:
    """Return microseconds of signing, and of checking."""
    key = example.KEYS["alpha"]
    began = time.perf_counter()
    headers = [signature("GET", TARGET, key) for _ in range(count)]
    middle = time.perf_counter()
    target = Target(method="GET", path=TARGET, query="")
    for one in headers:
        verify(target, one[INPUT], one[SIGNATURE])
    end = time.perf_counter()
    return (middle - began) / count * 1e6, (end - middle) / count * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        ward = Ward(Path(folder))
        signed, unsigned = [], []
        anybody = tuple(replace(endpoint, who=ANYBODY) for endpoint in ENDPOINTS)
        for _ in range(3):  # by turns: the machine may be shared
            signed.append(rate(ward, requests, signed=True))
            with mock.patch.object(service, "ENDPOINTS", anybody):
                unsigned.append(rate(ward, requests, signed=False))
    best = max(signed), max(unsigned)
    sign, check = bare(requests)
    print(f"signed   {best[0]:8.0f} requests a second")
    print(f"unsigned {best[1]:8.0f} requests a second: {best[1] / best[0]:.2f} times as many")
    print(f"signing alone {sign:.0f} us, checking alone {check:.0f} us")


if __name__ == "__main__":
    main()
