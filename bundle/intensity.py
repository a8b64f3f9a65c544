"""Robust, invertible intensity normalisation."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import InputError

_SAMPLES = 2_000_000  # voxels looked at for percentiles: enough for three digits, and fast on any volume


class Intensity(NamedTuple):
    """Linear map between scanner units and the network's: ``normalised = (value - offset) / scale``."""

    offset: float
    scale: float

    def normalise(self, volume: Tensor) -> Tensor:
        """Scanner units to network units."""
        return (volume - self.offset) / self.scale

    def restore(self, volume: Tensor) -> Tensor:
        """Network units to scanner units."""
        return volume * self.scale + self.offset


def percentiles(volume: Tensor, q: tuple[float, ...]) -> list[float]:
    """Percentiles ``q`` (0 to 100) of the voxels, from an even subsample of large volumes."""
    flat = volume.detach().reshape(-1)
    flat = flat[:: max(1, flat.numel() // _SAMPLES)].float().cpu().numpy()
    return [float(v) for v in np.percentile(flat, q)]


def fit_intensity(volume: Tensor, name: str = "volume") -> Intensity:
    """Offset and scale that take background to about 0 and bright tissue to about 1.

    The offset is the 0.1 percentile, the scale the distance from there to the 99th percentile of the foreground,
    where foreground is what lies above the mean. Nothing is clipped.

    Raises:
        InputError: NaN, Inf or a constant volume.
    """
    if not torch.isfinite(volume).all():
        bad = int((~torch.isfinite(volume)).sum())
        raise InputError(f"{name}: {bad} voxels are NaN or Inf; replace them (for example by 0) first")
    low, high = percentiles(volume, (0.1, 99.9))
    if not high > low:
        raise InputError(f"{name}: all voxels have about the same value ({low:g}); this is not an image")
    foreground = volume[volume > volume.mean()]
    bright = percentiles(foreground, (99.0,))[0]
    return Intensity(low, max(bright - low, 1e-6 * (high - low)))


def match_linearly(image: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """``a image + b`` with the least squared distance to the reference inside the mask."""
    x, y = image[mask].double(), reference[mask].double()
    a = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum().clamp_min(1e-12)
    return (a * image + (y.mean() - a * x.mean())).to(image)
