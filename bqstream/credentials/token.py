"""A token, and what a keeper knows about the one that it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..clock import Clock
from ..errors import UsageError


@dataclass(frozen=True, slots=True)
class Token:
    """A token's value and its lifetime in seconds from now (``None``: it never expires, or nobody knows).

    The value never reaches ``repr``.
    """

    value: str = field(repr=False)
    expires_in: float | None = None

    def __post_init__(self) -> None:
        # Environment variables and vaults give None where they hold nothing, whatever the annotation says.
        if not isinstance(self.value, str):
            raise UsageError(f"a token is a string, not {type(self.value).__name__}")
        if (
            not self.value
            or not self.value.isascii()
            or any(c.isspace() or not c.isprintable() for c in self.value)
        ):
            raise UsageError(
                "a token must be a non-empty string of visible ASCII characters: no white space around it, "
                "and no word such as Bearer before it"
            )
        lifetime: object = self.expires_in
        if lifetime is not None and not (isinstance(lifetime, int | float) and lifetime > 0):
            raise UsageError(
                f"a token's expires_in must be a positive number of seconds, not {self.expires_in!r}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class HeldToken:
    """A token in a keeper's hands: its expiry stands on both clocks, and the earlier counts.

    ``generation`` grows by one with every fetch, so that a refusal of an older token is known as such.
    """

    token: Token
    generation: int
    fetched_monotonic: float
    fetched_wall: float

    def remaining(self, clock: Clock) -> float:
        """Seconds until it expires, by the clock that says less; infinite for one that never does."""
        lifetime = self.token.expires_in
        if lifetime is None:
            return float("inf")
        spent = max(clock.monotonic() - self.fetched_monotonic, clock.wall() - self.fetched_wall)
        return lifetime - spent
