"""What is seen of a collector's process over HTTP: the page, metrics, and whether it lives and is ready."""

from .server import serve

__all__ = ["serve"]
