"""What the public port's event loop costs: asyncio's, which is served with, against uvloop, which cannot always stop.

    python -m tests.benchmarks.event_loops [--requests 3000] [--repeats 2]

Two clients, each a process with one connection kept alive, ask for /health over TLS. Prints the coordinator's
processor time a request and the ratio. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.coordinator.public_port import LivePort
from tests.coordinator.ward import Ward

CLIENTS = 2
CLIENT = """
import httpx, ssl, sys
port, authority, requests = sys.argv[1:]
with httpx.Client(verify=ssl.create_default_context(cafile=authority), trust_env=False) as client:
    for _ in range(int(requests)):
        client.get(f"https://localhost:{port}/health").raise_for_status()
"""


def cost(loop: str, requests: int) -> float:
    """Return microseconds of this process's time a request."""
    with tempfile.TemporaryDirectory() as folder, LivePort(Ward(Path(folder)), loop=loop) as port:
        command = [sys.executable, "-c", CLIENT, str(port.number), str(port.tls.authority)]
        subprocess.run([*command, "10"], check=True)
        began = time.process_time()
        clients = [subprocess.Popen([*command, str(requests)]) for _ in range(CLIENTS)]
        if any(list(map(subprocess.Popen.wait, clients))):
            raise SystemExit("a client failed")
        return (time.process_time() - began) / (CLIENTS * requests) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=3000, help="by each client")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    for _ in range(options.repeats):
        ours, theirs = (cost(loop, options.requests) for loop in ("asyncio", "uvloop"))
        print(
            f"asyncio {ours:.0f} us, uvloop {theirs:.0f} us a request: {ours / theirs:.2f} times", flush=True
        )


if __name__ == "__main__":
    main()
