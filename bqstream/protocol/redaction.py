"""Words of the other side, made fit to be shown: no token, no control character, no great length."""

from __future__ import annotations

import re
from typing import Any

SHOWN = 200  # characters of the other side's text that a verdict repeats
READ = 4096  # characters of it that are looked at; an error page can be long

_HIDDEN = "[hidden]"
_SECRETS = (
    # token=…, "access_token": "…", client_secret=…: as a URL, a form and a JSON text have them
    re.compile(
        r"""((?:token|secret|password|api[-_]?key|authorization)["'\\]*(?:=|%3D|["']\s*:)["'\\\s]*)"""
        r"""(?:(?:bearer|basic)\s+)?[^"'\\\s,;}&]+""",
        re.IGNORECASE,
    ),
    re.compile(r"""(authorization\s*:\s*)(?:(?:bearer|basic)\s+)?[^"'\\\s,;}]+""", re.IGNORECASE),
    re.compile(r"""(\bbearer\s+)[^"'\\\s,;}]{8,}""", re.IGNORECASE),
    re.compile(r"""(\b(?:token|jwt)\s*:?\s*["'`]?)[\w.~+/=-]{16,}""", re.IGNORECASE),
    re.compile(r"()\bory_[a-z]{2}_[\w.~+/-]+"),
    re.compile(r"()\beyJ[\w-]+(?:\.[\w-]*)*"),  # a JSON Web Token (RFC 7519)
    re.compile(r"(//)[^/@\s:]{1,256}:[^/@\s]{1,256}(?=@)"),  # the user and password of a URL
)


def redact(text: str) -> str:
    """Hide whatever looks like a token or a secret in ``text``."""
    for pattern in _SECRETS:
        text = pattern.sub(rf"\g<1>{_HIDDEN}", text)
    return text


def shown(text: str, limit: int = SHOWN) -> str:
    """``text`` on one line, redacted, in at most ``limit`` characters."""
    printable = "".join(c if c.isprintable() else " " for c in text[:READ])
    line = " ".join(redact(printable).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def redact_all(value: Any) -> Any:
    """A decoded JSON value, every string in it redacted. Raises RecursionError for one nested too deeply."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redact_all(item) for item in value]
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    return value
