"""How members decide together over the public port; who may is in the signatures.

    POST /api/proposals                   a signed amendment or agreement -> {"digest"}
    GET  /api/proposals                   all of them
    GET  /api/proposals/DIGEST            one of them
    POST /api/proposals/DIGEST/signatures the same record with another signature -> the proposal
    POST /api/nodes                       a hospital's next node key, signed -> {}
Errors as in `api`; 404 where there is no such open proposal, 409 where the order of things forbids it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coordinator.api import _body, _guarded, _refused
from coordinator.errors import JoiningError, ProposalError
from coordinator.members import NodeKeys
from coordinator.proposals import Proposals
from ledger.joining import MAX_DEPOSIT
from ledger.records import MAX_RECORD_SIZE


class ProposalsApi:
    """Answers requests. Mount `routes` under `/api`."""

    def __init__(self, proposals: Proposals, node_keys: NodeKeys) -> None:
        """Answer for one consortium."""
        self._proposals = proposals
        self._node_keys = node_keys
        self.routes = (
            Route("/proposals", _guarded(self._propose), methods=["POST"]),
            Route("/proposals", _guarded(self._list), methods=["GET"]),
            Route("/proposals/{digest}", _guarded(self._show), methods=["GET"]),
            Route("/proposals/{digest}/signatures", _guarded(self._sign), methods=["POST"]),
            Route("/nodes", _guarded(self._change_node), methods=["POST"]),
        )

    async def _propose(self, request: Request) -> Response:
        data = await _body(request, MAX_RECORD_SIZE)
        return await _answer(lambda: {"digest": self._proposals.propose(data)})

    async def _list(self, _: Request) -> Response:
        return await _answer(lambda: {"proposals": self._proposals.listing()})

    async def _show(self, request: Request) -> Response:
        return await _answer(lambda: self._proposals.show(request.path_params["digest"]))

    async def _sign(self, request: Request) -> Response:
        data, digest = await _body(request, MAX_RECORD_SIZE), request.path_params["digest"]

        def sign() -> dict[str, Any]:
            self._proposals.add_signature(digest, data)
            return self._proposals.show(digest)

        return await _answer(sign)

    async def _change_node(self, request: Request) -> Response:
        data = await _body(request, MAX_DEPOSIT)

        def change() -> dict[str, Any]:
            self._node_keys.change(self._proposals.state(), data)
            return {}

        return await _answer(change)


async def _answer(work: Callable[[], dict[str, Any]]) -> Response:
    try:
        return JSONResponse(await run_in_threadpool(work), headers={"cache-control": "no-store"})
    except LookupError as error:
        return _refused(404, str(error))
    except (ProposalError, JoiningError) as error:
        return _refused(409, str(error))
