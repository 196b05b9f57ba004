"""What a sample of payloads shows of each place in them. No value is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from ..tables.scalars import Form

# A number as JSON writes one: 007 is text.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
# RFC 3339, no finer than the microsecond that a datetime holds.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EXACT = 2**53  # up to which a double holds every integer
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Seen:
    """One place: an object's field, or all elements of a list.

    Attributes:
        times: how often something stood there, null among it.
        nulls: how often it was null.
        forms: the forms of the scalars.
        objects: how often it was an object; ``fields``: what those held, by key.
        items: what lists held; None: it was never a list.
        strings: how many strings; of these ``numeric``, ``fractions`` (numbers with a point) and ``moments``.
        wide: how many JSON numbers no double holds.
    """

    def __init__(self) -> None:
        self.times = self.nulls = self.objects = self.strings = 0
        self.numeric = self.fractions = self.moments = self.wide = 0
        self.forms: set[Form] = set()
        self.fields: dict[str, Seen] = {}
        self.items: Seen | None = None

    @property
    def told(self) -> bool:
        """Whether anything but null stood there."""
        return self.times > self.nulls

    def absent(self, key: str) -> bool:
        """Whether an object stood there that had no such key."""
        found = self.fields.get(key)
        return self.objects > (found.times if found else 0)

    def add_payload(self, raw: bytes) -> None:
        """Look at the data of one more payload, every digit of its numbers."""
        self.add(_decode(raw).get("data"))

    def add(self, value: Any) -> None:
        """Look at one more JSON value; a number may be a Decimal."""
        self.times += 1
        match value:
            case None:
                self.nulls += 1
            case bool():
                self.forms.add("boolean")
            case int():
                self.forms.add("integer")
                self.wide += abs(value) > _EXACT
            case float():
                self.forms.add("number")
            case Decimal():
                self.forms.add("number")
                self.wide += Decimal(repr(float(value))) != value
            case str():
                self._text(value)
            case list():
                self.items = self.items or Seen()
                for item in value:
                    self.items.add(item)
            case Mapping():
                self.objects += 1
                for key, inner in value.items():
                    if (field := self.fields.get(key)) is None:
                        field = self.fields[key] = Seen()
                    field.add(inner)

    def _text(self, text: str) -> None:
        self.forms.add("string")
        self.strings += 1
        if (found := _NUMBER.fullmatch(text)) is not None:
            self.numeric += 1
            self.fractions += found[2] is not None
        elif _is_time(text):
            self.moments += 1


def _is_time(text: str) -> bool:
    try:
        return _TIME.fullmatch(text) is not None and datetime.fromisoformat(text) is not None
    except ValueError:
        return False
