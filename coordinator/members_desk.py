"""All that the service does about its members, put together: newcomers, proposals, nodes' keys, and their upkeep."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.routing import Route

from coordinator.config import CoordinatorConfig
from coordinator.joining_api import JoiningApi
from coordinator.members import NodeKeys
from coordinator.proposals import Proposals
from coordinator.proposals_api import ProposalsApi
from coordinator.reception import Reception
from coordinator.sequencer import Sequencer
from coordinator.tls import TlsFiles
from coordinator.upkeep import Upkeep
from ledger.signature import SigningKey


class MembersDesk:
    """Mount `routes` under `/api`; start and stop `upkeep`."""

    def __init__(
        self,
        config: CoordinatorConfig,
        keys: tuple[SigningKey, SigningKey],
        tls: TlsFiles,
        sequencer: Sequencer,
        scan: Callable[[], None],
    ) -> None:
        """Put it together.

        Args:
            config: The coordinator's settings.
            keys: The coordinator's key and the log's.
            tls: The public port's files.
            sequencer: Owner of the log.
            scan: Registers the nodes whose keys are there.

        Raises:
            CoordinatorError: a file is damaged.
        """
        self.proposals = Proposals(config.directory, sequencer, time.time)
        node_keys = NodeKeys(config)
        reception = Reception(config, keys, time.time, self.proposals)
        self.upkeep = Upkeep(config, sequencer, self.proposals, node_keys, scan)
        self.routes: tuple[Route, ...] = (
            *JoiningApi(reception, tls.authority).routes,
            *ProposalsApi(self.proposals, node_keys).routes,
        )
