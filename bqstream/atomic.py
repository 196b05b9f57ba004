"""A file that is replaced as a whole: a crash, or a loss of power, leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, content: bytes, *, staged: Callable[[], object] | None = None) -> None:
    """Make ``content`` the file's. ``staged`` is called when the new file is there, but for its name; what it raises
    leaves the old one. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if staged is not None:
            staged()
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    sync_folder(path.parent)


def sweep(path: Path) -> None:
    """Remove what processes left that were killed while they replaced the file. Raises OSError."""
    for left in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """A new name is safe once its folder is; some systems cannot open one."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _prefix(path: Path) -> str:
    return f".{path.name}."
