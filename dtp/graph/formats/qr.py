"""Chunks as QR codes, by segno: `pip install 'dtp-sockets[qr]'`."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from dtp.graph.errors import GraphError, StoreError

if TYPE_CHECKING:
    from segno import QRCode


def _code(chunk: str) -> QRCode:
    try:
        import segno
    except ImportError as error:
        raise GraphError("QR codes need segno: pip install 'dtp-sockets[qr]'") from error
    # What a screen shows isn't dirty, and smaller codes are read more easily: the lowest error correction that fits.
    return segno.make(chunk, mode="alphanumeric", error="l", micro=False)


def to_terminal(chunk: str) -> str:
    """Return the code in block characters, two rows a line."""
    out = io.StringIO()
    _code(chunk).terminal(out=out, compact=True)
    return out.getvalue().rstrip("\n")


def to_svg(chunk: str, path: str | os.PathLike[str]) -> None:
    """Write the code as an SVG. Raises `StoreError`."""
    try:
        _code(chunk).save(os.fspath(path), kind="svg", scale=4)
    except OSError as error:
        raise StoreError(f"{os.fspath(path)} could not be written: {error.strerror}") from error
