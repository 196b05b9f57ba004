"""Keeps secrets out of what engines log and say.

Engines print the URL, the ``Authorization`` header and the frames' text at DEBUG, cut to a length of their
own choosing. So it is not enough to look for a whole token: a piece of eight characters is taken out as well.
"""

from __future__ import annotations

import base64
import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from ..endpoints import secret_forms

FRAGMENT = 8
"""A run of this many characters of a secret is not shown; fewer say too little."""

MASK = "•••"  # not ASCII, so that a mask and what stands beside it never read as a piece of a token

_PARAMETER = re.compile(r"(?i)\b((?:[a-z]+_)?token|client_secret)=[^&\s\"'<>]+")
_HEADER = re.compile(r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?)(?:[a-z]+\s+)?[^\s\"',}]+")


class Redactor:
    """Takes every form of some secrets out of texts. What it looks for is worked out at the first text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secret for secret in secrets if secret)

    @cached_property
    def _fragments(self) -> frozenset[str]:
        forms = {form for secret in self._secrets if len(secret) >= FRAGMENT for form in _forms(secret)}
        return frozenset(form[i : i + FRAGMENT] for form in forms for i in range(len(form) - FRAGMENT + 1))

    def __call__(self, text: str) -> str:
        """``text`` with a mask for every piece of a secret, and for what stands where secrets stand."""
        text = self._without_fragments(text)
        for secret in self._secrets:
            if len(secret) < FRAGMENT:
                text = text.replace(secret, MASK)
        text = _PARAMETER.sub(rf"\1={MASK}", text)
        return _HEADER.sub(rf"\1{MASK}", text)

    def _without_fragments(self, text: str) -> str:
        if len(text) < FRAGMENT:
            return text
        fragments = self._fragments
        pieces: list[str] = []
        shown, hidden = 0, 0  # text[:hidden] is either in pieces already or to be masked
        for i in range(len(text) - FRAGMENT + 1):
            if text[i : i + FRAGMENT] in fragments:
                if i >= hidden:
                    pieces += (text[shown:i], MASK)
                shown = hidden = i + FRAGMENT
        return "".join((*pieces, text[shown:]))


def redact(text: str, secrets: Iterable[str]) -> str:
    """``text`` without ``secrets``: plain, percent-encoded, escaped, in base64, or 8 characters of one."""
    return Redactor(secrets)(text)


def _forms(secret: str) -> Iterator[str]:
    """How a secret may be written: in a URL, in JSON, in a ``repr``, in base64 and as a dump of bytes."""
    for form in secret_forms(secret):
        yield form
        yield repr(form)[1:-1]
        yield repr(f'"{form}')[2:-1]  # beside a double quote, a single one is escaped
    data = secret.encode()
    yield data.hex(" ")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        # "user:secret" in base64: the secret may start at any of three places in a group. Characters that
        # also hold bits of a neighbour are left out.
        for before, mixed in ((0, 0), (1, 2), (2, 3)):
            encoded = encode(b"\0" * before + data).decode().rstrip("=")
            yield encoded[mixed : (before + len(data)) * 8 // 6]


class RedactingLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger for one dial: every record is rendered and redacted before any handler sees it.

    Costs nothing while its level is off: engines ask ``isEnabledFor`` once and then do not call it.
    """

    def __init__(self, logger: logging.Logger, redactor: Redactor) -> None:
        super().__init__(logger, None)
        self._redact = redactor

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log the redacted text alone: arguments, exception and extras would lead to secrets."""
        if not self.isEnabledFor(level):
            return
        text = str(msg) % args if args else str(msg)
        error = _exception(kwargs.get("exc_info"))
        if error is not None:
            text = f"{text}\n{''.join(traceback.format_exception(error))}"
        self.logger.log(level, "%s", self._redact(text), stacklevel=2)


def _exception(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return _exception(exc_info[1])
    return sys.exc_info()[1] if exc_info else None
