"""What a scanner does to a sharp volume: blurring, sampling, truncation of k-space, shading and noise.

The same functions make training pairs, check a result against its input, and degrade test volumes for evaluation.
All of it is separable: along each axis the point-spread function and the sampling are one matrix
(see :mod:`bundle.geometry`), so factors need not be whole numbers and need not be equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..geometry import apply_axes, centres, gaussian_matrix, resample_matrix

PROFILES = ("gaussian", "box")


@dataclass(frozen=True)
class Acquisition:
    """Parameters of an acquisition; widths are in low-resolution voxels, so they hold for any factor.

    Args:
        profile: point-spread function per axis, ``gaussian`` or ``box`` (an ideal slice profile).
        width: full width at half maximum of that profile; a box below 1 leaves a gap between slices.
        truncation: share of k-space that is kept per axis, 1 for all of it (less gives Gibbs ringing).
        noise: standard deviation of Rician noise, in the volume's own units.
    """

    profile: tuple[str, str, str] = ("gaussian", "gaussian", "gaussian")
    width: tuple[float, float, float] = (1.0, 1.0, 1.0)
    truncation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.0

    def operator(self, high_shape: Sequence[int], low_shape: Sequence[int]) -> "AcquisitionOperator":
        """The noise-free linear part, from a grid of ``high_shape`` to one of ``low_shape`` voxels."""
        return AcquisitionOperator(self, tuple(high_shape), tuple(low_shape))

    def __call__(self, volume: Tensor, low_shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Acquire ``(..., D, H, W)`` on ``low_shape`` voxels, with noise."""
        low = self.operator(volume.shape[-3:], low_shape)(volume)
        return rician(low, self.noise, generator) if self.noise else low


class AcquisitionOperator:
    """Linear map ``A`` of an acquisition between two grids over the same field of view."""

    def __init__(self, acquisition: Acquisition, high_shape: tuple[int, ...], low_shape: tuple[int, ...]) -> None:
        axes = zip(high_shape, low_shape, acquisition.profile, acquisition.width, acquisition.truncation, strict=True)
        self.matrices = [acquisition_matrix(*axis) for axis in axes]
        self.high_shape, self.low_shape = tuple(high_shape), tuple(low_shape)

    def __call__(self, volume: Tensor) -> Tensor:
        """``A y``: ``(..., *high_shape)`` to ``(..., *low_shape)``."""
        return apply_axes(volume, self.matrices)

    def upsample(self, volume: Tensor) -> Tensor:
        """Cubic interpolation from the low grid to the high one."""
        return apply_axes(volume, [resample_matrix(m, n) for n, m in zip(self.high_shape, self.low_shape, strict=True)])


@lru_cache(maxsize=256)
def acquisition_matrix(n_high: int, n_low: int, profile: str, width: float, truncation: float = 1.0) -> Tensor:
    """Blur and sampling along one axis, ``(n_low, n_high)``; every row sums to one.

    An axis that keeps its sampling (``n_high <= n_low``) is only resampled: its profile is already in the volume.

    Args:
        n_high: voxels of the sharp volume.
        n_low: voxels of the acquired one.
        profile: one of :data:`PROFILES`.
        width: full width at half maximum in low-resolution voxels.
        truncation: share of the frequencies that the low grid can hold which are kept.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r}: one of {', '.join(PROFILES)}")
    if n_low >= n_high:
        matrix = resample_matrix(n_high, n_low).numpy().astype(np.float64)
    elif profile == "gaussian":
        matrix = gaussian_matrix(n_high, n_low, width * n_high / n_low).numpy().astype(np.float64)
    else:
        offset = np.arange(n_high)[None] - centres(n_high, n_low)[:, None]
        span = max(width * n_high / n_low, 1.0)
        matrix = np.clip(np.minimum(offset + 0.5, span / 2) - np.maximum(offset - 0.5, -span / 2), 0, None)
        matrix /= matrix.sum(1, keepdims=True)
    if truncation < 1:
        matrix = _low_pass(n_low, truncation) @ matrix
    return torch.from_numpy(matrix.astype(np.float32))


def _low_pass(n: int, kept: float) -> np.ndarray:
    """Truncation of k-space on ``n`` samples: mirror the axis, drop the outer frequencies, go back."""
    mirrored = np.concatenate([np.eye(n), np.eye(n)[::-1]])
    spectrum = np.fft.rfft(mirrored, axis=0)
    spectrum[np.arange(len(spectrum)) > kept * n] = 0
    return np.fft.irfft(spectrum, n=2 * n, axis=0)[:n]


def rician(volume: Tensor, sigma: float | Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Magnitude of the volume plus complex Gaussian noise (Gudbjartsson and Patz, MRM 1995).

    The sign of interpolation undershoots is kept as it would be in a magnitude image: gone.
    """
    real, imaginary = (
        torch.randn(volume.shape, generator=generator, device=volume.device, dtype=volume.dtype) for _ in range(2)
    )
    return torch.hypot(volume + sigma * real, sigma * imaginary)


def ghost(volume: Tensor, axis: int, strength: float, copies: int) -> Tensor:
    """Motion ghosts: faint copies along the phase-encoding axis, shifted by the field of view over ``copies``.

    What periodic motion of ``copies`` lines of k-space per cycle leaves (Wood and Henkelman, Medical Physics 1985).

    Args:
        volume: ``(..., D, H, W)``.
        axis: 0, 1 or 2.
        strength: of each of the two copies, relative to the image; negative where they are out of phase.
        copies: lines per cycle.
    """
    dimension = axis - 3
    shift = max(1, volume.shape[dimension] // copies)
    shifted = torch.roll(volume, shift, dimension) + torch.roll(volume, -shift, dimension)
    return (volume + strength * shifted).abs()


def bias_field(shape: Sequence[int], coefficients: Tensor) -> Tensor:
    """Smooth multiplicative field ``exp(sum c_ijk cos(pi i u) cos(pi j v) cos(pi k w))`` over the field of view.

    Args:
        shape: voxels per axis.
        coefficients: ``(I, J, K)``, log-amplitudes of the cosine basis; the constant term is ignored.
    """
    coefficients = coefficients.clone()
    coefficients[0, 0, 0] = 0
    bases = []
    for n, order in zip(shape, coefficients.shape, strict=True):
        position = (torch.arange(n, device=coefficients.device, dtype=coefficients.dtype) + 0.5) / n
        bases.append(torch.cos(torch.pi * position[:, None] * torch.arange(order, device=coefficients.device)[None]))
    return torch.exp(apply_axes(coefficients, bases))
