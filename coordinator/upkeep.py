"""What a long-running service looks after, in a thread of its own: proposals, nodes' keys, the certificate's end.

Each is done when the log has changed and else every few seconds; a failure is logged and tried again, so that nothing
here ever ends the service.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from coordinator import member_list
from coordinator.config import CoordinatorConfig
from coordinator.errors import CoordinatorError, ServiceError, StoppedError
from coordinator.members import NodeKeys
from coordinator.proposals import Proposals
from coordinator.sequencer import Sequencer
from coordinator.tls import ensure_tls
from ledger.errors import LedgerError

LOOK_SECONDS = 2.0
DAY = 86_400.0
_log = logging.getLogger(__name__)


class Upkeep:
    """Start it once; `stop` returns when it has ended."""

    def __init__(
        self,
        config: CoordinatorConfig,
        sequencer: Sequencer,
        proposals: Proposals,
        node_keys: NodeKeys,
        scan: Callable[[], None],
    ) -> None:
        """Start nothing yet.

        Args:
            config: The coordinator's settings.
            sequencer: Owner of the log.
            proposals: What waits for signatures.
            node_keys: The files in `nodes/`.
            scan: Registers the nodes that are there, and no others, once Flower runs.
        """
        self._config = config
        self._sequencer = sequencer
        self._proposals = proposals
        self._node_keys = node_keys
        self._scan = scan
        self._context: Callable[[], ssl.SSLContext | None] = lambda: (
            None
        )  # of the public port, once it serves
        self._looked = time.monotonic()  # `ensure_tls` ran when the service started
        self._said = ""
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Wait for the end; the sequencer was stopped."""
        if self._thread.is_alive():
            self._thread.join()

    def renews(self, context: Callable[[], ssl.SSLContext | None]) -> None:
        """Have the certificate of a port renewed while it serves."""
        self._context = context

    def renew(self, now: datetime) -> None:
        """Issue the port's certificate again if it nears its end, for new connections. Raises TlsError."""
        config = self._config
        tls = ensure_tls(config.directory / "tls", [config.public_name, config.host], now)
        if (context := self._context()) is not None:
            context.load_cert_chain(
                tls.certificate, tls.key
            )  # connections that are open keep the one they have
        left = member_list.authority_days(config.directory, int(now.timestamp()))
        if left < member_list.AUTHORITY_WARNING:
            _log.warning("%s", member_list.authority_warning(left))

    def _run(self) -> None:
        while True:
            try:
                standing = self._sequencer.standing
                self._turn()
                self._sequencer.wait_for_change(standing, LOOK_SECONDS)
            except (StoppedError, ServiceError):
                return

    def _turn(self) -> None:
        try:
            self._proposals.turn()
            self._node_keys.follow(self._sequencer.standing.state)
            self._scan()
            if time.monotonic() - self._looked >= DAY:
                self._looked = time.monotonic()
                self.renew(datetime.now(UTC))
            self._said = ""
        except (StoppedError, ServiceError):
            raise
        except (CoordinatorError, LedgerError) as error:
            if str(error) != self._said:
                _log.warning("%s", error)
            self._said = str(error)
