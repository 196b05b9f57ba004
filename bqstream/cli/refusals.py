"""What an error of the client means for an examination: at which check it stands, and by what it is caused."""

from __future__ import annotations

import re

from ..errors import (
    ConnectionGivenUp,
    CredentialsRefused,
    DocumentRefused,
    OperationFailed,
    PlanError,
    TokenRefused,
    UsageError,
)
from .findings import Cause, Check, Finding


class Fault(Exception):
    """A fault that bars the way to the checks behind it."""

    def __init__(self, check: Check, cause: Cause, says: object) -> None:
        super().__init__(str(says))
        self.finding = Finding(check=check, cause=cause, says=str(says))


# How the protocol's table of refusals tells a code: "HTTP 404: …", "close 4406: …".
_CODE = re.compile(r"\b(?:HTTP|close) (\d{3,4})\b")
_CAUSES: dict[int, Cause] = {400: "wrong-address", 404: "wrong-address", 405: "wrong-address", 429: "rate-limit",
                             1015: "tls", 4406: "subprotocol", 4429: "rate-limit", 4504: "no-ack"}  # fmt: skip


def fault_of(error: BaseException, *, acked: bool) -> Fault:
    """The fault that an error of the client shows; ``acked``: its link had been acknowledged."""
    says = str(error)
    match error:
        case DocumentRefused():
            return Fault("subscribe", "document", says)
        case OperationFailed():
            return Fault("subscribe", "operation", says)
        case TokenRefused():
            return Fault("subscribe" if acked else _connection(says, acked=False)[0], "token-refused", says)
        case CredentialsRefused():
            return Fault("exchange", "credentials-refused", says)
        case PlanError():
            return Fault("plan", "plan", says)
        case UsageError():
            return Fault("subscribe", "document", says)
        case ConnectionGivenUp():
            says = says.partition("; the last: ")[2] or says
            return Fault(*_connection(says, acked=acked), says)
    return Fault("exchange", "token-endpoint", "no token within the time")


def _connection(says: str, *, acked: bool) -> tuple[Check, Cause]:
    if "no connection_ack" in says:
        return "acknowledged", "no-ack"
    if says.startswith("connection_error"):
        return "acknowledged", "connection"
    found = _CODE.search(says)
    code = int(found[1]) if found else 0
    check: Check = "first row" if acked else "handshake" if code < 1000 else "acknowledged"
    if 500 <= code < 600 or code in (1011, 1012, 4500):
        return check, "server-fails"
    return check, _CAUSES.get(code, "connection")
