"""The part of a volume that holds anything: skull-stripped, defaced and template volumes are padded with one value, and
scans have more or less air around the head."""

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from .networks.context import CELL

AIR = 0.01  # of normalised intensity: what differs less from the level of the border is empty
_HEAD, _CELL, _FRAME = 0.1, 4, 8  # brightness of a head's cells, voxels along their side, and around the head
_PAYS = 0.9  # share of the volume above which a box is not worth it

Box = tuple[slice, slice, slice]


def content_box(volume: Tensor, margin: int, grid: int = CELL) -> Box:
    """Where the volume differs from its padding, and a margin around it; all of it where that saves too little.

    Noise above one percent counts as content, so that no border shows between air with and without its noise.

    Args:
        volume: (B, 1, D, H, W), normalised, sides multiples of 8.
        margin: voxels around the content, as wide as the network sees.
        grid: the box begins on multiples of this, itself a multiple of 8.
    """
    shape, air = volume.shape[2:], border(volume)
    occupied = (F.max_pool3d((volume - air).abs_(), CELL) > AIR).any(0)[0]
    box = []
    for n, (first, last) in zip(shape, _extents(occupied), strict=False):
        start = max(0, first * CELL - margin) // grid * grid
        box.append(slice(start, min(n, -(-((last + 1) * CELL + margin) // CELL) * CELL)))
    if not box:
        return _whole(shape)
    saves = math.prod(s.stop - s.start for s in box) <= _PAYS * math.prod(shape)
    return tuple(box) if saves else _whole(shape)


def border(volume: Tensor) -> float:
    """The level of the border of a volume (B, 1, D, H, W)."""
    faces = [volume.select(axis, index).flatten() for axis in (2, 3, 4) for index in (0, -1)]
    return float(torch.cat(faces).median())


def air_level(volume: Tensor) -> float:
    """The level of the air of a head (B, 1, D, H, W): the darkest corner's."""
    corners = product((slice(4), slice(-4, None)), repeat=3)
    return min(float(volume[(..., *corner)].mean()) for corner in corners)


def framed(volume: Tensor) -> Tensor:
    """A head with eight voxels of air on each side, whatever it had: how much there is must not matter to its view.

    Args:
        volume: (B, 1, D, H, W), normalised.

    Returns:
        (B, 1, D', H', W'); the volume itself where nothing in it is bright.
    """
    ends = _extents((F.avg_pool3d(volume, _CELL, ceil_mode=True) > _HEAD).any(0)[0])
    padding = [
        v
        for n, (first, last) in zip(volume.shape[:1:-1], ends[::-1], strict=False)
        for v in (_FRAME - first * _CELL, min(n, (last + 1) * _CELL) + _FRAME - n)
    ]
    return F.pad(volume, padding, value=air_level(volume)) if padding else volume


def _extents(occupied: Tensor) -> list[tuple[int, int]]:
    """First and last index along every axis of what is occupied, (D, H, W); empty for nothing."""
    extents = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        where = occupied.any(others[1]).any(others[0]).nonzero().flatten()
        if len(where):
            extents.append((int(where[0]), int(where[-1])))
    return extents


def paste(volume: Tensor, box: Box, part: Tensor) -> Tensor:
    """The volume with what was made of its box: around it stay the image, and the outermost values of other channels.

    Args:
        volume: (B, 1, D, H, W).
        box: of :func:`content_box`.
        part: (B, C, d, h, w), the image in channel 0.
    """
    if part.shape[2:] == volume.shape[2:]:
        return part
    padding = [v for s, n in zip(box[::-1], volume.shape[:1:-1], strict=True) for v in (s.start, n - s.stop)]
    others = F.pad(part[:, 1:], padding, mode="replicate") if part.shape[1] > 1 else part.new_empty(())
    image = volume.clone()
    image[(..., *box)] = part[:, :1]
    return image if part.shape[1] == 1 else torch.cat([image, others], dim=1)


def _whole(shape: Sequence[int]) -> Box:
    return tuple(slice(0, n) for n in shape)
