"""One gapless stream out of what links bring; knows messages and opaque source numbers, never links."""
