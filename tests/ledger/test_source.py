"""A log over HTTP that only members read says so, instead of "try again"."""

from __future__ import annotations

import http.server
import threading

import pytest

from ledger.errors import StorageError
from ledger.source import open_source


@pytest.mark.parametrize(("status", "said"), [(401, "for members"), (503, "answers 503: try again")])
def test_a_refusal_says_what_to_do(status: int, said: str) -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with pytest.raises(StorageError, match=said):
                open_source(f"http://127.0.0.1:{server.server_address[1]}/log")("checkpoint")
        finally:
            server.shutdown()
            thread.join()
