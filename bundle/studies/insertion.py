"""Spheres and lesions of known size, put into a volume at places where it is flat."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..metrics import head_mask, local_deviation
from ..simulation.tissues import CLASSES

RADII = (1.0, 2.0, 3.0)  # mm
CONTRASTS = (-0.3, -0.15, 0.15, 0.3)  # of the range
REPEATS = 6  # spheres of each radius and contrast
CONTROLS = 30  # places of each radius where nothing is put
_APART = 10.0  # mm between the centres
_OVERSAMPLING = 4  # per axis, of voxels at the surface of a sphere


class Place(NamedTuple):
    """A sphere: where (voxels of the sharp volume), how large (mm), and its contrast as a share of the range.

    A contrast of 0 is a control: nothing is put there. NaN is a lesion, whose contrast follows from the physics.
    """

    centre: tuple[float, float, float]
    radius: float
    contrast: float


def pick_places(candidates: Tensor, spacing: Sequence[float], count: int, seed: int) -> list[tuple[float, ...]]:
    """Up to ``count`` points in the voxels of a mask (D, H, W), at random, about :data:`_APART` mm or more apart."""
    random = np.random.RandomState(seed)
    index = candidates.nonzero().numpy()
    index = index[random.permutation(len(index))[:50_000]]
    world, picked = index * np.array(spacing), []
    free = np.ones(len(index), dtype=bool)
    while len(picked) < count and free.any():
        first = int(np.argmax(free))
        picked.append(tuple(float(i) for i in index[first] + random.uniform(-0.5, 0.5, 3)))
        free &= np.linalg.norm(world - world[first], axis=1) >= _APART
    return picked


def flat_places(sharp: Tensor) -> Tensor:
    """Where a sharp volume (D, H, W) has tissue but no edge: its local deviation is among the lowest third there."""
    mask = head_mask(sharp / sharp.abs().max())
    deviation = local_deviation(sharp.float())
    bright = sharp > 0.5 * sharp[mask].median()
    limit = torch.quantile(deviation[mask & bright][::50], 0.33)
    inside = mask & bright & (deviation < limit)
    for axis, n in enumerate(inside.shape):  # nothing near the faces
        edge = min(8, n // 4)
        inside.narrow(axis, 0, edge).zero_()
        inside.narrow(axis, n - edge, edge).zero_()
    return inside


def plan_spheres(sharp: Tensor, spacing: Sequence[float], seed: int) -> list[Place]:
    """Spheres of every radius and contrast, ``REPEATS`` of each, and controls."""
    return _spread_out(flat_places(sharp), spacing, list(product(RADII, CONTRASTS)), REPEATS, seed)


def plan_lesions(fine: Tensor, spacing: Sequence[float], seed: int) -> list[Place]:
    """White-matter lesions of every radius in a fine class map, and controls; centres in voxels twice as large."""
    white = fine[::2, ::2, ::2] == CLASSES.index("WM")
    deep = F.avg_pool3d(white[None, None].float(), 7, stride=1, padding=3)[0, 0] > 0.999
    kinds = [(radius, float("nan")) for radius in RADII]
    return _spread_out(deep, [2 * s for s in spacing], kinds, 2 * REPEATS, seed)


def _spread_out(
    candidates: Tensor, spacing: Sequence[float], kinds: list[tuple[float, float]], repeats: int, seed: int
) -> list[Place]:
    """Places for all kinds and controls; where there is too little room, less of each."""
    wanted = repeats * kinds + CONTROLS * [(radius, 0.0) for radius in RADII]
    centres = pick_places(candidates, spacing, len(wanted), seed)
    order = np.random.RandomState(seed).permutation(len(wanted))[: len(centres)]
    return [Place(centre, *wanted[k]) for centre, k in zip(centres, order, strict=True)]


def ball(shape: Sequence[int], place: Place, spacing: Sequence[float], radius: float | None = None) -> tuple:
    """The part of a volume that a sphere touches: slices, and the share of every voxel there that lies inside."""
    radius = place.radius if radius is None else radius
    slices, squares = [], []
    offsets = (np.arange(_OVERSAMPLING) + 0.5) / _OVERSAMPLING - 0.5
    for n, centre, s in zip(shape, place.centre, spacing, strict=True):
        reach = int(np.ceil(radius / s)) + 1
        own = slice(max(0, int(round(centre)) - reach), min(n, int(round(centre)) + reach + 1))
        slices.append(own)
        squares.append((((np.arange(own.start, own.stop)[:, None] + offsets).ravel() - centre) * s) ** 2)
    inside = (squares[0][:, None, None] + squares[1][:, None] + squares[2] <= radius**2).astype(np.float32)
    k = _OVERSAMPLING
    share = inside.reshape(len(squares[0]) // k, k, len(squares[1]) // k, k, len(squares[2]) // k, k).mean((1, 3, 5))
    return tuple(slices), torch.from_numpy(share)


def put_spheres(sharp: Tensor, places: Sequence[Place], spacing: Sequence[float], span: float) -> Tensor:
    """A copy of a sharp volume with the spheres of ``places`` added."""
    result = sharp.clone()
    for place in places:
        if place.contrast:
            slices, share = ball(sharp.shape, place, spacing)
            result[slices] += place.contrast * span * share
    return result


def put_lesions(fine: Tensor, places: Sequence[Place], spacing: Sequence[float]) -> Tensor:
    """A copy of a fine class map with white-matter lesions at ``places``, controls left out."""
    result, lesion = fine.clone(), CLASSES.index("WM lesion")
    for place in places:
        if place.contrast == 0:
            continue
        fine_place = place._replace(centre=tuple(2 * c + 0.5 for c in place.centre))
        slices, share = ball(fine.shape, fine_place, spacing)
        part = result[slices]
        result[slices] = torch.where((share > 0.5) & (part == CLASSES.index("WM")), lesion, part)
    return result
