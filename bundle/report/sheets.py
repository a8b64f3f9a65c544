"""Volumes as sheets of pictures: all axial slices of a volume on a few JPEG or PNG files, as data URIs.

A browser cuts slices of any plane out of the sheets, so three planes cost the bytes of one.
"""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

_SIDE = 2048  # pixels of a sheet: every browser shows pictures of this size
_BLOCK = 8  # of JPEG: a slice begins at a block, so that it does not ring into its neighbour
Encode = Callable[[np.ndarray], str]


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """A picture as ``data:`` address; ``options`` are those of Pillow's ``save``."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def jpeg(quality: int) -> Encode:
    """Encoder of grey values, uint8."""
    return lambda plane: data_uri(Image.fromarray(plane), "JPEG", quality=quality, optimize=True)


def png(colours: Sequence[tuple[int, int, int, int]]) -> Encode:
    """Encoder of indices, uint8, into a palette of red, green, blue and opacity."""

    def encode(plane: np.ndarray) -> str:
        image = Image.new("P", plane.shape[::-1])
        image.frombytes(plane.tobytes())
        image.putpalette([value for colour in colours for value in colour[:3]])
        return data_uri(image, "PNG", transparency=bytes(colour[3] for colour in colours), optimize=True)

    return encode


def make_sheets(volume: np.ndarray, encode: Encode) -> dict[str, Any]:
    """Sheets of a volume (X, Y, Z) uint8, slices along the last axis, row by row.

    Returns:
        ``shape``; ``tile``, width and height in pixels that a slice takes; ``columns`` and ``rows`` of a sheet;
        ``images``.
    """
    width, height, depth = volume.shape
    tile = [-(-n // _BLOCK) * _BLOCK for n in (width, height)]
    columns, rows = (max(1, min(_SIDE // n, limit)) for n, limit in zip(tile, (depth, depth), strict=True))
    images = []
    for first in range(0, depth, columns * rows):
        part = volume[:, :, first : first + columns * rows]
        sheet = np.zeros((-(-part.shape[2] // columns) * tile[1], columns * tile[0]), np.uint8)
        for k in range(part.shape[2]):
            y, x = k // columns * tile[1], k % columns * tile[0]
            sheet[y : y + height, x : x + width] = part[:, :, k].T
        images.append(encode(sheet))
    return {"shape": [width, height, depth], "tile": tile, "columns": columns, "rows": rows, "images": images}
