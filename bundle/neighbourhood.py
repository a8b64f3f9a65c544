"""What a training crop is told of the head it was cut from: a coarse view of all of it, and a surround of the crop."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import apply_axes
from .networks.context import CELL, REACH, VIEW

_EXTRA = 1  # cells more on each side, to shift within


def pad_view(view: Tensor) -> Tensor:
    """A coarse view in a cube of one size, so that views stack: (1, d, h, w) to (1, VIEW, VIEW, VIEW)."""
    return F.pad(view, [v for n in reversed(view.shape[1:]) for v in (0, VIEW - n)])


def cells_around(view: Tensor, step: float, centre: Sequence[float], voxel: float, size: int) -> Tensor:
    """The surround of a crop, as :func:`bundle.networks.context.surround` gives it at inference, one cell larger.

    Every cell is the mean of the view over its extent, with air beyond the view.

    Args:
        view: (1, d, h, w), coarse view of the head.
        step: source voxels along the side of a view voxel.
        centre: of the crop, in source voxels from the corner of the head.
        voxel: source voxels along the side of a voxel of the crop.
        size: side of the crop.

    Returns:
        (1, n, n, n) with ``n = size / CELL + 2 (REACH + 1)``.
    """
    n = size // CELL + 2 * (REACH + _EXTRA)
    width, matrices = CELL * voxel, []
    for middle, count in zip(centre, view.shape[1:], strict=True):
        begin = middle + (torch.arange(n) - n / 2) * width
        left = torch.arange(count) * step
        overlap = torch.minimum(begin[:, None] + width, left + step) - torch.maximum(begin[:, None], left)
        matrices.append(overlap.clamp_min(0).float() / width)
    return apply_axes(view, matrices)


def shift_cells(cells: Tensor, shift: Sequence[int]) -> Tensor:
    """Move a surround by whole voxels, at most a cell, and drop the cells that were there for that.

    Args:
        cells: (1, n, n, n), of :func:`cells_around`.
        shift: voxels along each axis, of what is kept against what was drawn.
    """
    for axis, voxels in enumerate(shift, start=1):
        n = cells.shape[axis] - 2 * _EXTRA
        whole, part = divmod(voxels / CELL, 1)
        near, far = (cells.narrow(axis, _EXTRA + int(whole) + k, n) for k in (0, min(1, _EXTRA - int(whole))))
        cells = (1 - part) * near + part * far
    return cells
