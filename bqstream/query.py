"""One query over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec

from .config import Timeouts
from .credentials.keeper import Keeper
from .endpoints import Endpoint
from .errors import ConnectionGivenUp, TokenRefused
from .protocol.envelope import error_list
from .protocol.verdicts import Action, Verdict, classify_errors, classify_upgrade
from .session.supervisor import error_for


class Queries:
    """Posts documents to the endpoint with the keeper's token (docs: graphql/query).

    Passing refusals (429, 5xx, shared compute) are tried again with what the service asks for as the wait, for
    ``timeouts.query`` seconds in all; a refused token is refreshed and the query sent again.
    """

    def __init__(
        self, http: aiohttp.ClientSession, endpoint: Endpoint, keeper: Keeper, timeouts: Timeouts
    ) -> None:
        self._http = http
        self._endpoint = endpoint
        self._keeper = keeper
        self._timeouts = timeouts

    async def execute(self, request: bytes) -> dict[str, Any]:
        """Send ``request`` (the JSON text of the payload) and give the whole answer, partial errors included.

        Raises:
            DocumentRefused, OperationFailed, PlanError, TokenRefused, ConnectionGivenUp: as the service refused.
        """
        last: Verdict | None = None
        try:
            async with asyncio.timeout(self._timeouts.query):
                refusals = 0
                while True:
                    held = await self._keeper.current()
                    last, errors, answer = await self._post(request, held.token.value)
                    if last is None:
                        return answer
                    if last.action is Action.REFRESH:
                        refusals += 1
                        if refusals > 2:
                            raise TokenRefused(last.why)
                        self._keeper.refused(held, last.why)
                    elif last.action is Action.RETRY:
                        await asyncio.sleep(last.retry_after or max(last.floor, 0.5))
                    else:
                        raise error_for(last, errors)
        except TimeoutError:
            why = f"; the last refusal: {last.why}" if last is not None else ""
            raise ConnectionGivenUp(
                f"no answer to the query within {self._timeouts.query:g} s{why}"
            ) from None

    async def _post(
        self, request: bytes, token: str
    ) -> tuple[Verdict | None, tuple[dict[str, Any], ...], dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            async with self._http.post(
                self._endpoint.http, data=request, headers=headers, allow_redirects=False
            ) as response:
                body = await response.read()
                status = response.status
                answer_headers = {name.lower(): value for name, value in response.headers.items()}
        except aiohttp.ClientError as error:
            raise ConnectionGivenUp(f"the query could not be sent: {type(error).__name__}") from None
        answer = _parse(body)
        # A refused document may come with 400 (GraphQL over HTTP, section 6.4), which else means the request.
        if answer is not None and status in (200, 400):
            errors = error_list(body) if answer.get("errors") else ()
            if errors and answer.get("data") is None:
                return classify_errors(errors), errors, answer
            if status == 200 and "data" in answer:
                return None, (), answer
        text = body.decode("utf-8", "replace")
        return classify_upgrade(status if status != 200 else 502, answer_headers, text), (), {}


def _parse(body: bytes) -> dict[str, Any] | None:
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return answer if isinstance(answer, dict) else None
