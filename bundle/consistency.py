"""Projection of a result back onto its input: what the degraded result lacks of the input is put back.

Also the classical reconstructions without any network: interpolation and iterative back-projection
(Irani and Peleg, CVGIP 1991).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .simulation.acquisition import Acquisition, AcquisitionOperator

_MAD_TO_SIGMA = 1 / 0.6745


def noise_level(volume: Tensor, mask: Tensor) -> float:
    """Standard deviation of white noise, from the median absolute finest diagonal Haar detail inside ``mask``.

    Donoho and Johnstone, Biometrika 1994. Apply it to a residual, where there is little anatomy left.

    Args:
        volume: (1, 1, D, H, W).
        mask: same shape, boolean.
    """
    even = [n // 2 * 2 for n in volume.shape[2:]]
    crop = (..., *(slice(n) for n in even))
    sign = torch.tensor([1.0, -1.0], device=volume.device)
    kernel = torch.einsum("i,j,k->ijk", sign, sign, sign)[None, None] / 8**0.5
    detail = F.conv3d(volume[crop], kernel, stride=2)
    inside = F.avg_pool3d(mask[crop].float(), 2) == 1
    values = detail[inside].abs()
    return float(values.median()) * _MAD_TO_SIGMA if values.numel() else 0.0


def project_back(high: Tensor, low: Tensor, operator: AcquisitionOperator, iterations: int = 2) -> Tensor:
    """Correct ``high`` so that degrading it gives ``low``, as far as the difference stands above the noise.

    Each iteration adds ``U(g (x - A y))`` where ``U`` is cubic interpolation and ``g = max(0, 1 - s^2 / e)`` is the
    Wiener gain of the residual's local energy ``e`` (5x5x5 voxels) over the noise variance ``s^2``. Where the residual
    is noise the gain is near zero, so nothing is put back that the network took out for good reason.

    Args:
        high: (1, 1, D, H, W), result ``y``.
        low: (1, 1, d, h, w), input ``x``, normalised.
        operator: the acquisition that is assumed between them.
        iterations: 0 leaves ``high`` alone.
    """
    mask = low > 0.1
    for _ in range(iterations):
        residual = low - operator(high)
        variance = noise_level(residual, mask) ** 2
        energy = F.avg_pool3d(residual**2, 5, stride=1, padding=2, count_include_pad=False)
        high = high + operator.upsample(residual * (1 - variance / energy.clamp_min(1e-12)).clamp_min(0))
    return high


def back_project(low: Tensor, operator: AcquisitionOperator, iterations: int, damping: float = 1.0) -> Tensor:
    """Iterative back-projection from cubic interpolation: ``y <- y + damping U(x - A y)``."""
    high = operator.upsample(low)
    for _ in range(iterations):
        high = high + damping * operator.upsample(low - operator(high))
    return high


def default_operator(high_shape: tuple[int, ...], low_shape: tuple[int, ...]) -> AcquisitionOperator:
    """The acquisition assumed for scans of unknown protocol: Gaussian, one input voxel wide per axis."""
    return Acquisition().operator(high_shape, low_shape)
