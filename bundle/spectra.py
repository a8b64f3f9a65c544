"""Power of a volume by spatial frequency."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

CONE = 0.8  # cosine of the angle within which a direction counts as along an axis


def radial_mean(
    power: Tensor,
    shape: Sequence[int],
    spacing: Sequence[float],
    frequencies: np.ndarray,
    axis: int | None = None,
) -> np.ndarray:
    """Mean of a power spectrum over shells around evenly spaced frequencies; NaN beyond Nyquist's of the coarsest axis.

    Args:
        power: of a real volume, as ``rfftn`` lays it out.
        shape: (D, H, W) of the volume.
        spacing: mm.
        frequencies: cycles per mm; a shell reaches half way to the next.
        axis: only directions along this one (see :data:`CONE`), or None for all.
    """
    axes = [torch.fft.fftfreq(n, s) for n, s in zip(shape[:2], spacing[:2], strict=True)]
    axes.append(torch.fft.rfftfreq(shape[2], spacing[2]))
    radius = torch.sqrt(axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2)
    near = torch.ones_like(radius, dtype=torch.bool)
    if axis is not None:
        near = axes[axis].abs().reshape([-1 if k == axis else 1 for k in range(3)]) > CONE * radius
    width, limit = (frequencies[1] - frequencies[0]) / 2, 0.5 / max(spacing)
    shells = (near & ((radius - f).abs() < width) for f in frequencies)
    means = [float(power[shell].mean()) for shell in shells]
    return np.where(frequencies <= limit, means, np.nan)
