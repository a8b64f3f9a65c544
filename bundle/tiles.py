"""Tiles of a volume, and how much of each is believed."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

TILE_STEP = 8  # tiles begin on multiples of this, so that every scale of the U-Net sees the same phase


def tile_slices(
    shape: tuple[int, ...], side: int | Sequence[int], overlap: int, grid: int = TILE_STEP
) -> Iterator[tuple[slice, ...]]:
    """Tiles of at most ``side`` voxels that cover ``shape``, begin on multiples of ``grid``, share ``overlap`` or more.

    Where ``grid`` is more than ``side`` less ``overlap`` they share less. ``side`` may be one for each axis.
    """
    starts, sides = [], [side] * len(shape) if isinstance(side, int) else side
    for n, s in zip(shape, sides, strict=True):
        last = max(0, -(-(n - s) // grid) * grid)
        stride = max(grid, (s - overlap) // grid * grid)
        starts.append([*range(0, last, stride), last])
    for corner in product(*starts):
        yield tuple(slice(c, min(c + s, n)) for c, n, s in zip(corner, shape, sides, strict=True))


def even_sides(shape: Sequence[int], voxels: int, overlap: int) -> list[int]:
    """Sides of few and equal tiles of at most ``voxels`` voxels, or as near to that as ``overlap`` lets them be.

    The longest side is halved, divided by three and so on, and the overlap added, as long as tiles are too large.
    """
    counts, sides = [1] * len(shape), list(shape)
    while math.prod(sides) > voxels and max(sides) > overlap + TILE_STEP:
        axis = sides.index(max(sides))
        counts[axis] += 1
        share = (shape[axis] + (counts[axis] - 1) * overlap) / counts[axis]
        sides[axis] = math.ceil(share / TILE_STEP) * TILE_STEP
    return sides


def ramp(shape: tuple[int, ...], overlap: int) -> Tensor:
    """Blending weight: 1 inside, falling over the middle half of the overlap; next to nothing at the faces.

    What a tile says near its faces lacks context, so its neighbour is believed there; where there is no neighbour,
    at the border of the volume, any weight above zero will do.
    """
    weight = torch.ones(tuple(shape))
    for axis, n in enumerate(shape):
        distance = torch.minimum(torch.arange(n), torch.arange(n - 1, -1, -1)) + 0.5
        slope = ((distance - overlap / 4) / (overlap / 2)).clamp(1e-4, 1)
        weight = weight * slope.reshape([-1 if a == axis else 1 for a in range(3)])
    return weight
