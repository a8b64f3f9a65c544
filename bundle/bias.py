"""The bias field of a scan: smooth shading by coils, estimated by N4 (Tustison et al., IEEE TMI 2010)."""

from collections.abc import Sequence

import numpy as np
import SimpleITK
import torch
from torch import Tensor

from .geometry import Grid, apply_axes, gaussian_matrix, resample
from .metrics import head_mask

LARGEST = 2.0  # of the absolute log-field; what N4 says beyond is an accident outside its mask


class BiasEstimator:
    """SimpleITK's N4 on a coarse view of the volume; the smooth field is then interpolated onto any grid.

    Args:
        step: mm along the sides of the coarse view's voxels: how far the volume is shrunk.
        iterations: at most so many per level; every level halves the distance of the control points.
        convergence: change of the field at which a level ends.
        control_points: per axis, of the first level.
        width: full width at half maximum, in log-intensity, of the blur that the deconvolution of the histogram undoes.

    Beyond voxels of 8 mm and the small convergence, which lets all iterations run, the defaults are N4's own. A larger
    width removes shading faster, but takes differences of tissue for it (docs/guidance.md).
    """

    def __init__(
        self,
        step: float = 8.0,
        iterations: Sequence[int] = (50, 50, 50, 50),
        convergence: float = 1e-6,
        control_points: int = 4,
        width: float = 0.15,
    ) -> None:
        if step <= 0 or convergence <= 0 or not iterations or min(iterations) < 1 or control_points < 4 or width <= 0:
            raise ValueError(
                f"step {step}, convergence {convergence}, width {width}: above 0; iterations {tuple(iterations)}: "
                f"one or more of 1 or more; control_points {control_points}: 4 or more"
            )
        self.step, self.iterations, self.convergence = step, tuple(iterations), convergence
        self.control_points, self.width = control_points, width

    def __call__(self, volume: Tensor, grid: Grid, mask: Tensor | None = None) -> Tensor:
        """Logarithm of the bias field on a coarse grid over the same field of view, zero on average inside the mask.

        :func:`bundle.geometry.resample` brings it to any grid.

        Args:
            volume: (D, H, W), background near 0.
            grid: of the volume.
            mask: (D, H, W), what N4 looks at; default: the head without its darkest parts.
        """
        shape = [max(8, min(n, round(n * s / self.step))) for n, s in zip(grid.shape, grid.spacing, strict=True)]
        matrices = [gaussian_matrix(n, m, n / m) for n, m in zip(grid.shape, shape, strict=True)]
        coarse = apply_axes(volume.float(), matrices).clamp_min(0)
        inside = tissue_mask(coarse) if mask is None else apply_axes(mask.float(), matrices) > 0.5
        if not inside.any():
            return torch.zeros(shape)
        image, region = (SimpleITK.GetImageFromArray(v.numpy()) for v in (coarse, inside.to(torch.uint8)))
        spacing = [n * s / m for n, s, m in zip(grid.shape, grid.spacing, shape, strict=True)]
        for picture in (image, region):
            picture.SetSpacing(spacing[::-1])
        n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
        n4.SetNumberOfWorkUnits(1)
        n4.SetMaximumNumberOfIterations(self.iterations)
        n4.SetConvergenceThreshold(self.convergence)
        n4.SetNumberOfControlPoints([self.control_points] * 3)
        n4.SetBiasFieldFullWidthAtHalfMaximum(self.width)
        n4.Execute(image, region)
        field = torch.from_numpy(SimpleITK.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).astype(np.float32))
        return (field - field[inside].mean()).clamp(-LARGEST, LARGEST)


def tissue_mask(volume: Tensor) -> Tensor:
    """The head (D, H, W) without air, bone and what else is dark in it, where there is nothing to tell shading by."""
    head = head_mask(volume)
    smooth = apply_axes(volume, [gaussian_matrix(n, n, min(25, n / 2)) for n in volume.shape])  # what shading does
    weight = apply_axes(head.float(), [gaussian_matrix(n, n, min(25, n / 2)) for n in volume.shape])
    return head & (volume > 0.4 * smooth / weight.clamp_min(1e-3))


def remove_bias(volume: Tensor, log_field: Tensor) -> Tensor:
    """The volume (..., D, H, W) divided by the field of a :class:`BiasEstimator`, on any grid of the field of view."""
    return volume * torch.exp(-resample(log_field, volume.shape[-3:]).to(volume))
