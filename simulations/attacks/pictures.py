"""Windows as pictures: grey PNG files, made of bytes alone, for a report or a file.

Source: PNG, RFC 2083, sections 2 and 4.1.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_WHITE: Final = 255


def png(image: NDArray[np.uint8]) -> bytes:
    """A grey picture [row, column] as a PNG file."""
    rows, columns = image.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), image], axis=1).tobytes()  # 0: no filter
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines, 9)) + _chunk(b"IEND", b"")


def grid(rows: Sequence[Sequence[NDArray[np.floating]]], *, scale: int = 6, gap: int = 4) -> NDArray[np.uint8]:
    """Windows [time, feature] as one picture, dark for large values; each row as bright as its first window.

    Args:
        rows: windows of one size; a row's first is what the others are compared with.
        scale: pixels of one reading.
        gap: pixels between windows.
    """
    height, width = (side * scale for side in rows[0][0].shape)
    size = (len(rows) * (height + gap) + gap, max(map(len, rows)) * (width + gap) + gap)
    found = np.full(size, _WHITE, np.uint8)
    for down, row in enumerate(rows):
        low, high = float(np.min(row[0])), float(np.max(row[0]))
        for across, window in enumerate(row):
            part = np.clip((np.asarray(window, np.float64) - low) / max(high - low, 1e-12), 0.0, 1.0)
            shade = np.rint(_WHITE * (1.0 - part)).astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
            top, left = gap + down * (height + gap), gap + across * (width + gap)
            found[top : top + height, left : left + width] = shade
    return found


def embedded(image: NDArray[np.uint8]) -> str:
    """The picture as a data URI, for a page that stands alone."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
