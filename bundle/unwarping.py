"""Gradient nonlinearity on the voxels of a grid, and the resampling that removes the distortion, or makes it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from .geometry import Grid, resample, target_grid
from .gradients import WORLD_TO_COIL, GradientField

STEP = 4.0  # mm


class VoxelField(NamedTuple):
    """Where to look in one volume for what belongs into the voxels of another on the same grid.

    Attributes:
        displacement: (3, D, H, W), voxels along the axes of the grid.
        log_jacobian: (1, D, H, W), logarithm of the factor on the intensity, which keeps what a voxel holds in sum.
        outside: share of the voxels that lie beyond the field's valid radius.
    """

    displacement: Tensor
    log_jacobian: Tensor
    outside: float = 0.0


def unwarping_field(
    field: GradientField, grid: Grid, isocentre: Sequence[float] = (0.0, 0.0, 0.0), step: float = STEP
) -> VoxelField:
    """What removes the distortion: from where a thing lies to where the scanner shows it.

    Args:
        field: of the coil.
        grid: of the volume; its affine leads to scanner coordinates (right, anterior, superior, mm).
        isocentre: in these coordinates.
        step: mm between the places where the series is evaluated; it is interpolated between them.
    """
    return _on_grid(field, grid, isocentre, step, inverse=False)


def warping_field(
    field: GradientField, grid: Grid, isocentre: Sequence[float] = (0.0, 0.0, 0.0), step: float = STEP
) -> VoxelField:
    """What makes the distortion, the inverse of :func:`unwarping_field`, with the same arguments."""
    return _on_grid(field, grid, isocentre, step, inverse=True)


def _on_grid(field: GradientField, grid: Grid, isocentre: Sequence[float], step: float, inverse: bool) -> VoxelField:
    coarse = target_grid(grid, [max(s, step) for s in grid.spacing])
    index = np.stack(np.meshgrid(*(np.arange(n) for n in coarse.shape), indexing="ij")).astype(np.float64)
    linear, shift = coarse.affine[:3, :3], coarse.affine[:3, 3] - np.asarray(isocentre)
    signs = WORLD_TO_COIL[:, None, None, None]
    points = signs * (np.einsum("ij,j...->i...", linear, index) + shift[:, None, None, None])
    seen = field.lies_at(points) if inverse else field.shown_at(points)
    determinant = field.jacobian(field.inside(seen if inverse else points))
    to_voxels = np.linalg.inv(np.asarray(grid.affine, dtype=np.float64)[:3, :3])
    displacement = np.einsum("ij,j...->i...", to_voxels, signs * (seen - points))
    log_jacobian = (-1 if inverse else 1) * np.log(np.maximum(determinant, 1e-3))
    both = torch.from_numpy(np.concatenate([displacement, log_jacobian[None]]).astype(np.float32))
    both = resample(both, grid.shape)
    outside = float((np.sqrt((points**2).sum(0)) > field.valid_radius).mean())
    return VoxelField(both[:3], both[3:], outside)


def apply_field(volume: Tensor, field: VoxelField, order: int = 3) -> Tensor:
    """Resample a volume as a field says, and multiply its intensity.

    Args:
        volume: (C, D, H, W); beyond its faces it goes on as it ends there.
        field: on the same grid.
        order: 3, cubic B-spline, or 1, linear, which is fast.
    """
    if order == 1:
        sampled = _linear(volume, field.displacement)
    else:
        shape = volume.shape[1:]
        place = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij"))
        place += field.displacement.cpu().numpy()
        channels = [ndimage.map_coordinates(c, place, order=order, mode="nearest") for c in volume.cpu().numpy()]
        sampled = torch.from_numpy(np.stack(channels)).to(volume)
    return sampled * torch.exp(field.log_jacobian.to(volume))


def _linear(volume: Tensor, displacement: Tensor) -> Tensor:
    """Trilinear sampling of (C, D, H, W) at every voxel plus its displacement (3, D, H, W)."""
    axes = []
    for axis, n in enumerate(volume.shape[1:]):
        index = torch.arange(n, device=volume.device, dtype=volume.dtype)
        place = index.reshape([-1 if a == axis else 1 for a in range(3)]) + displacement[axis].to(volume)
        axes.append(2 * place / (n - 1) - 1)
    grid = torch.stack(axes[::-1], dim=-1)[None]  # grid_sample wants the last axis first
    return F.grid_sample(volume[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0]
