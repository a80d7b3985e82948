"""How members decide together over the public port: paths, bodies and who may are in `coordinator.endpoints`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from coordinator.errors import JoiningError, ProposalError
from coordinator.members import NodeKeys
from coordinator.proposals import Proposals
from coordinator.routing import Call, Handler, refused


class ProposalsApi:
    """Answers what concerns proposals and nodes' keys; `handlers` by their names in the table."""

    def __init__(self, proposals: Proposals, node_keys: NodeKeys) -> None:
        """Answer for one consortium."""
        self._proposals = proposals
        self._node_keys = node_keys
        self.handlers: dict[str, Handler] = {
            "propose": self._propose,
            "proposals": self._list,
            "proposal": self._show,
            "proposal-signature": self._sign,
            "decline": self._decline,
            "node": self._change_node,
        }

    async def _propose(self, call: Call) -> Response:
        return await _answer(lambda: {"digest": self._proposals.propose(call.body)})

    async def _list(self, _: Call) -> Response:
        return await _answer(lambda: {"proposals": self._proposals.listing()})

    async def _show(self, call: Call) -> Response:
        return await _answer(lambda: self._proposals.show(call.values["digest"]))

    async def _sign(self, call: Call) -> Response:
        def sign() -> dict[str, Any]:
            self._proposals.add_signature(call.values["digest"], call.body)
            return self._proposals.show(call.values["digest"])

        return await _answer(sign)

    async def _decline(self, call: Call) -> Response:
        def decline() -> dict[str, Any]:
            self._proposals.decline(call.values["digest"], call.sender.name)
            return self._proposals.show(call.values["digest"])

        return await _answer(decline)

    async def _change_node(self, call: Call) -> Response:
        def change() -> dict[str, Any]:
            self._node_keys.change(self._proposals.state(), call.body)
            return {}

        return await _answer(change)


async def _answer(work: Callable[[], dict[str, Any]]) -> Response:
    try:
        return JSONResponse(await run_in_threadpool(work), headers={"cache-control": "no-store"})
    except LookupError as error:
        return refused(404, str(error))
    except (ProposalError, JoiningError) as error:
        return refused(409, str(error))
