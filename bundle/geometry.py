"""Grids in world space, and separable linear maps between grids that share their field of view.

Every resampling here keeps the outer voxel edges of the field of view where they are, so that voxel ``i`` of ``n_out``
has its centre at ``(i + 0.5) * n_in / n_out - 0.5`` in input voxels. A map along one axis is a dense matrix of shape
``(n_out, n_in)``; a map of a volume is three of them. That makes resampling exact, differentiable, batched and the
same on every device, and its adjoint is three transposed matrices.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from .errors import InputError

MIN_VOXELS = 16  # per axis, below which there is no anatomy to sharpen
SPACING_LIMITS = (0.1, 15.0)  # mm, plausible for a head scan
FINEST_SPACING = 0.4  # mm, the default never asks for less
MAX_SHEAR = 1e-3  # cosine between axes; a qform can hold none, and 256 voxels would be off by a quarter of one
ANISOTROPY = 1.5  # coarsest over finest spacing above which a volume counts as thick-slice


class Grid(NamedTuple):
    """Voxel grid: ``shape`` in voxels and a 4x4 ``affine`` from voxel index to world millimetres (RAS+)."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size per axis in mm."""
        return tuple(float(s) for s in np.linalg.norm(np.asarray(self.affine)[:3, :3], axis=0))


class CanonicalAxes(NamedTuple):
    """How a file's axes turn into right, anterior, superior: ``order`` of the axes, then ``flips`` of the new ones."""

    order: tuple[int, int, int]
    flips: tuple[int, ...]

    @classmethod
    def of(cls, affine: np.ndarray) -> "CanonicalAxes":
        """Those of a 4x4 affine: every axis goes to the direction it is nearest to."""
        codes = nib.io_orientation(np.asarray(affine))
        order = tuple(int(i) for i in np.argsort(codes[:, 0]))
        return cls(order, tuple(axis for axis, i in enumerate(order) if codes[i, 1] < 0))

    def enter(self, volume: Tensor) -> Tensor:
        """``(..., D, H, W)`` from the file's axes to canonical ones."""
        lead = volume.ndim - 3
        turned = volume.permute(*range(lead), *(lead + axis for axis in self.order))
        return turned.flip([lead + axis for axis in self.flips])

    def leave(self, volume: Tensor) -> Tensor:
        """The way back of :meth:`enter`."""
        lead = volume.ndim - 3
        turned = volume.flip([lead + axis for axis in self.flips])
        return turned.permute(*range(lead), *(lead + self.order.index(axis) for axis in range(3)))


def check_grid(shape: Sequence[int], affine: np.ndarray, name: str) -> None:
    """Refuse a header that no brain volume has.

    Args:
        shape: voxels per axis, as stored.
        affine: 4x4 voxel-to-world matrix in mm.
        name: file, for the message.

    Raises:
        InputError: not 3D, too few voxels, a singular, sheared or non-finite affine, implausible spacing.
    """
    shape = tuple(int(n) for n in shape)
    if len(shape) != 3:
        raise InputError(
            f"{name}: shape {shape} has {len(shape)} axes; a single 3D volume is needed (split time series)"
        )
    if min(shape) < MIN_VOXELS:
        raise InputError(f"{name}: shape {shape} is too small; every axis needs at least {MIN_VOXELS} voxels")
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    if not np.isfinite(affine).all():
        raise InputError(f"{name}: the affine holds NaN or Inf; repair the header")
    spacing = np.linalg.norm(linear, axis=0)
    if spacing.min() == 0 or abs(np.linalg.det(linear / spacing)) < 1e-3:
        raise InputError(f"{name}: the affine is singular (axes {linear.round(4).tolist()}); repair the header")
    low, high = SPACING_LIMITS
    if spacing.min() < low or spacing.max() > high:
        text = " x ".join(f"{s:.4g}" for s in spacing)
        raise InputError(f"{name}: voxel size {text} mm is outside {low} to {high} mm; check the header's units")
    axes = linear / spacing
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > MAX_SHEAR:
        angle = float(np.degrees(np.arcsin(min(1.0, shear))))
        raise InputError(
            f"{name}: the affine is sheared, axes are {angle:.2g} degrees off a right angle; resample the volume "
            "onto a rectangular grid first"
        )


def is_thick(spacing: Sequence[float]) -> bool:
    """Whether slices are thick: the coarsest spacing more than :data:`ANISOTROPY` times the finest."""
    return max(spacing) / min(spacing) > ANISOTROPY


def default_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    """Target spacing in mm for an input: half of its spacing, or isotropic at the finest axis if slices are thick.

    Never below 0.4 mm, and never coarser than the input itself.
    """
    wanted = [min(spacing) if is_thick(spacing) else s / 2 for s in spacing]
    return tuple(min(s, max(w, FINEST_SPACING)) for s, w in zip(spacing, wanted, strict=True))


def target_grid(grid: Grid, spacing: Sequence[float]) -> Grid:
    """Grid over the same field of view with ``n_out = round(n * s_in / s_out)`` voxels per axis.

    The spacing is then ``n * s_in / n_out``, which differs from the one asked for by less than half a voxel over the
    whole field of view: the outer voxel edges coincide exactly.
    """
    shape = tuple(max(1, round(n * s / t)) for n, s, t in zip(grid.shape, grid.spacing, spacing, strict=True))
    scale = np.array(grid.shape, dtype=np.float64) / shape
    affine = np.array(grid.affine, dtype=np.float64)
    affine[:3, 3] = affine[:3, :3] @ (0.5 * scale - 0.5) + affine[:3, 3]
    affine[:3, :3] = affine[:3, :3] * scale
    return Grid(shape, affine)


def centres(n_in: int, n_out: int) -> np.ndarray:
    """Centres of ``n_out`` voxels in the index coordinates of ``n_in`` voxels over the same field of view."""
    return (np.arange(n_out) + 0.5) * n_in / n_out - 0.5


@lru_cache(maxsize=128)
def resample_matrix(n_in: int, n_out: int, order: int = 3) -> Tensor:
    """Interpolation along one axis as a float32 matrix ``(n_out, n_in)``.

    Args:
        n_in: input voxels.
        n_out: output voxels.
        order: 1 is linear, 3 the interpolating cubic B-spline (Unser, IEEE Signal Processing Magazine 1999); edges
            are mirrored.
    """
    if order not in (1, 3):
        raise ValueError(f"order {order}: 1 (linear) or 3 (cubic B-spline)")
    matrix = _spline_weights(centres(n_in, n_out), n_in, order)
    if order == 3:
        matrix = matrix @ np.linalg.inv(_spline_weights(np.arange(n_in, dtype=np.float64), n_in, order))
    return torch.from_numpy(matrix.astype(np.float32))


def _spline_weights(position: np.ndarray, n: int, order: int) -> np.ndarray:
    """B-spline basis at ``position``, with taps outside the axis mirrored at the voxel edges."""
    matrix = np.zeros((len(position), n))
    rows = np.arange(len(position))
    base = np.floor(position).astype(int)
    for tap in range(-1, 3):
        d = np.abs(position - (base + tap))
        near, far = 2 / 3 - d**2 + d**3 / 2, np.clip(2 - d, 0, None) ** 3 / 6
        weight = np.clip(1 - d, 0, None) if order == 1 else np.where(d < 1, near, far)
        index = (base + tap) % (2 * n)
        np.add.at(matrix, (rows, np.where(index < n, index, 2 * n - 1 - index)), weight)
    return matrix


@lru_cache(maxsize=256)
def gaussian_matrix(n_in: int, n_out: int, fwhm: float) -> Tensor:
    """Gaussian weights of ``n_in`` voxels around the centres of ``n_out``: ``(n_out, n_in)``, float32, rows of sum one.

    Args:
        n_in: input voxels.
        n_out: output voxels, fewer (blur and sampling), as many (blur) or more (smooth interpolation).
        fwhm: full width at half maximum in input voxels.
    """
    offset = np.arange(n_in)[None] - centres(n_in, n_out)[:, None]
    weights = np.exp(-4 * np.log(2) * (offset / fwhm) ** 2)
    return torch.from_numpy((weights / weights.sum(1, keepdims=True)).astype(np.float32))


def apply_axes(volume: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Apply one matrix ``(n_out, n_in)`` per spatial axis to ``(..., D, H, W)``; smallest intermediate first."""
    d, h, w = (m.to(volume) for m in matrices)
    steps = sorted(range(3), key=lambda axis: matrices[axis].shape[0] / matrices[axis].shape[1])
    for axis in steps:
        if axis == 0:
            volume = (d @ volume.flatten(-2)).unflatten(-1, volume.shape[-2:])
        elif axis == 1:
            volume = h @ volume
        else:
            volume = volume @ w.T
    return volume


def blur(volume: Tensor, fwhm: float) -> Tensor:
    """Gaussian blur of ``(..., D, H, W)``, ``fwhm`` in voxels."""
    return apply_axes(volume, [gaussian_matrix(n, n, fwhm) for n in volume.shape[-3:]])


def resample(volume: Tensor, shape: Sequence[int], order: int = 3) -> Tensor:
    """Resample ``(..., D, H, W)`` to ``shape`` over the same field of view (see :func:`resample_matrix`)."""
    return apply_axes(volume, [resample_matrix(n, m, order) for n, m in zip(volume.shape[-3:], shape, strict=True)])
