"""What is drawn in a browser, for the collector's page and the notebook's live view alike: a script, a stylesheet, and
uPlot, which draws charts (its licence is beside it)."""

from importlib import resources


def read(name: str) -> str:
    """The text of one of these files."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
