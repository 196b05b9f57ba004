"""One query over HTTP."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
import msgspec

from .config import Backoff, Timeouts
from .credentials.keeper import Keeper
from .endpoints import Endpoint, secret_forms
from .errors import ConnectionGivenUp, OperationFailed
from .protocol.envelope import error_list
from .protocol.verdicts import Action, Kind, Verdict, classify_errors, classify_upgrade
from .session.backoff import Schedule
from .session.supervisor import error_for

# So often a token may be refused in a row before the query fails; the keeper spaces the new ones.
TOKENS_REFUSED = 2


class Queries:
    """Posts documents to the endpoint with the keeper's token (docs: graphql/query).

    Passing refusals (429, 5xx, shared compute, a connection that breaks) are tried again, spaced like reconnects,
    for ``timeouts.query`` seconds in all; a refused token is refreshed and the query sent again.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        endpoint: Endpoint,
        keeper: Keeper,
        timeouts: Timeouts,
        backoff: Backoff,
    ) -> None:
        self._http = http
        self._endpoint = endpoint
        self._keeper = keeper
        self._timeouts = timeouts
        self._backoff = backoff

    async def execute(self, request: bytes) -> Any:
        """Send ``request`` (the JSON text of the payload) and give the answer's ``data``, decoded; see `fetch`."""
        return _decoded(await self.fetch(request))

    async def fetch(self, request: bytes) -> msgspec.Raw:
        """Send ``request`` (the JSON text of the payload) and give the answer's ``data`` as it came.

        Raises:
            DocumentRefused, PlanError, TokenRefused, ConnectionGivenUp: as the service refused.
            OperationFailed: it answered with errors; ``data`` holds what it gave beside them.
        """
        schedule, refusals = Schedule(self._backoff), 0
        last: _Refused | None = None
        try:
            async with asyncio.timeout(self._timeouts.query):
                while True:
                    held = await self._keeper.current()
                    try:
                        return await self._post(request, held.token.value)
                    except _Refused as refused:
                        last = refused
                    except OperationFailed as failed:
                        raise failed.with_traceback(None) from None  # its frames hold the token
                    verdict = last.verdict
                    if verdict.action is Action.REFRESH and refusals < TOKENS_REFUSED:
                        refusals += 1
                        self._keeper.refused(held, verdict.why)
                    elif verdict.action is Action.RETRY and (wait := schedule.failed(verdict)) is not None:
                        await asyncio.sleep(wait)
                    else:
                        raise error_for(verdict, last.errors)
        except TimeoutError:
            why = f"; the last refusal: {last.verdict.why}" if last is not None else ""
            raise ConnectionGivenUp(
                f"no answer to the query within {self._timeouts.query:g} s{why}"
            ) from None

    async def _post(self, request: bytes, token: str) -> msgspec.Raw:
        """One try. Raises _Refused, and OperationFailed for data that is not whole."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            async with self._http.post(
                self._endpoint.http, data=request, headers=headers, allow_redirects=False
            ) as response:
                body = await response.read()
        except aiohttp.ClientError as error:
            unsent = _unsent(error)
        else:
            return _result(response, body, token)
        raise _Refused(unsent)  # out here, so that not even its __context__ is the library's exception


class _Refused(Exception):
    def __init__(self, verdict: Verdict, errors: tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__(verdict.why)
        self.verdict = verdict
        self.errors = errors


def _unsent(error: aiohttp.ClientError) -> Verdict:
    permanent = isinstance(getattr(error, "certificate_error", None), ssl.CertificateError)
    return Verdict(
        action=Action.END_CLIENT if permanent else Action.RETRY,
        kind=Kind.CONNECTION,
        why=f"the query could not be sent ({type(error).__name__})",
    )


def _result(response: aiohttp.ClientResponse, body: bytes, token: str) -> msgspec.Raw:
    answer, status = _parse(body), response.status
    # A refused document may come with 400 (GraphQL over HTTP, section 6.4), which else means the request.
    if answer is not None and status in (200, 400):
        data = answer.data if bytes(answer.data) not in (b"", b"null") else None
        if bytes(answer.errors) not in (b"", b"null", b"[]", b"{}", b'""'):
            errors = error_list(_without(token, body).encode())
            verdict = classify_errors(errors)
            if data is None:
                raise _Refused(verdict, errors)
            raise OperationFailed(verdict.why, errors, _decoded(data))
        if data is not None and status == 200:
            return data
    if status == 200:
        why = "HTTP 200: the answer is not one to a GraphQL query"
        raise _Refused(Verdict(action=Action.RETRY, kind=Kind.CONNECTION, why=why))
    headers = {name.lower(): value for name, value in response.headers.items()}
    raise _Refused(classify_upgrade(status, headers, _without(token, body)))


def _without(token: str, body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    for form in secret_forms(token):
        text = text.replace(form, "***")
    return text


class _Answer(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"")
    errors: msgspec.Raw = msgspec.Raw(b"")


def _parse(body: bytes) -> _Answer | None:
    try:
        body.decode()  # the decoder passes over what it need not look at
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _decoded(data: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise OperationFailed(f"the answer cannot be decoded: {error}") from None
