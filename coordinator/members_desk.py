"""All that the service does about its members, put together: newcomers, proposals, nodes' keys, and their upkeep."""

from __future__ import annotations

import time
from collections.abc import Callable

from coordinator.config import CoordinatorConfig
from coordinator.joining_api import JoiningApi
from coordinator.joining_desk import JoiningDesk
from coordinator.members import NodeKeys
from coordinator.proposals import Proposals
from coordinator.proposals_api import ProposalsApi
from coordinator.routing import Handler
from coordinator.sequencer import Sequencer
from coordinator.upkeep import Upkeep


class MembersDesk:
    """`handlers` by their names in the table of endpoints; start and stop `upkeep`."""

    def __init__(self, config: CoordinatorConfig, sequencer: Sequencer, scan: Callable[[], None]) -> None:
        """Put it together.

        Args:
            config: The coordinator's settings.
            sequencer: Owner of the log.
            scan: Registers the nodes whose keys are there.

        Raises:
            CoordinatorError: a file is damaged.
        """
        self.proposals = Proposals(config.directory, sequencer, time.time)
        node_keys = NodeKeys(config)
        joining = JoiningApi(JoiningDesk(config, time.time, assembly=self.proposals))
        self.upkeep = Upkeep(config, sequencer, self.proposals, node_keys, scan)
        self.handlers: dict[str, Handler] = {
            **joining.handlers,
            **ProposalsApi(self.proposals, node_keys).handlers,
        }
