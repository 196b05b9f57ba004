"""The endpoints beside the service, on a port of their own: they stay up when the service is down.

``POST control_url``  a fault (see `faults`), or ``{"fault": "drained"}`` (waits until all is written),
                      ``{"fault": "blocks", "count": n}`` (waits for so many blocks), ``{"fault": "token"}``
                      (answers a static token). 200 ``{"ok": true}``, or 400 ``{"error": …}``.
``GET control_url``   counters, sockets and what happened lately.
``POST ledger_url``   ``{"document", "variables", "operationName", "since", "rows": [[cube, row], …]}``: a verdict.
``GET ledger_url``    the documents that went live; with ``?document=<fingerprint>`` the rows it is owed, one
                      JSON object a line: ``sequence``, ``time``, ``block``, ``cube``, ``row``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from .answers import Refusal
from .faults import FAULTS

if TYPE_CHECKING:
    from .server import Simulator

_LARGEST_BODY = 1024 * 1024 * 1024
_encode = msgspec.json.Encoder().encode


class Control:
    """What can be asked of a running simulator from outside."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def application(self) -> web.Application:
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_post("/control", self._act)
        app.router.add_get("/control", self._counters)
        app.router.add_post("/ledger", self._verdict)
        app.router.add_get("/ledger", self._ledger)
        return app

    async def _act(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read(), type=dict[str, Any])
            answer = await self._carry_out(body.pop("fault", None), body)
        except (LookupError, TypeError, ValueError) as error:
            return _json({"error": str(error)}, status=400)
        return _json({"ok": True, **answer})

    async def _carry_out(self, name: object, arguments: dict[str, Any]) -> dict[str, Any]:
        simulator = self._simulator
        match name:
            case "drained":
                await simulator.drained(**arguments)
            case "blocks":
                await simulator.blocks(**arguments)
            case "token":
                return {"token": simulator.token(**arguments)}
            case str() if name in FAULTS:
                act: Callable[..., None] = getattr(simulator.faults, name)
                act(**arguments)
            case _:
                raise LookupError(f"fault is one of blocks, drained, token, {', '.join(sorted(FAULTS))}")
        return {}

    async def _counters(self, request: web.Request) -> web.Response:
        return _json(self._simulator.counters.as_dict())

    async def _verdict(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read(), type=dict[str, Any])
            verdict = self._simulator.ledger.verdict(
                body["document"],
                body.get("rows", ()),
                body.get("variables"),
                operation_name=body.get("operationName"),
                since=body.get("since"),
            )
        except Refusal as refusal:
            return _json({"error": "the document is refused", "errors": refusal.errors}, status=400)
        except (LookupError, TypeError, ValueError) as error:
            return _json({"error": str(error)}, status=400)
        return _json(verdict.as_dict())

    async def _ledger(self, request: web.Request) -> web.StreamResponse:
        ledger = self._simulator.ledger
        document = request.query.get("document")
        if document is None:
            documents = {fingerprint: ledger.started(fingerprint) for fingerprint in ledger.fingerprints}
            return _json({"sequence": ledger.sequence, "documents": documents})
        if document not in ledger.fingerprints:
            return _json({"error": "no such document went live"}, status=404)
        return web.Response(body=self._lines(document), content_type="application/x-ndjson")

    async def _lines(self, document: str) -> AsyncIterator[bytes]:
        for emission, cube, row in self._simulator.ledger.rows(document):
            line = {"sequence": emission.sequence, "time": emission.time, "block": emission.block.number}
            yield _encode({**line, "cube": cube, "row": row}) + b"\n"


def _json(answer: Any, status: int = 200) -> web.Response:
    return web.Response(body=_encode(answer), status=status, content_type="application/json")
