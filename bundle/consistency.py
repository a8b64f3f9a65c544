"""Projection of a result back onto its input: what the degraded result lacks of the input is put back.

Also the classical reconstructions without any network: interpolation and iterative back-projection
(Irani and Peleg, CVGIP 1991).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import apply_axes
from .simulation.acquisition import Acquisition, AcquisitionOperator

_MAD_TO_SIGMA = 1 / 0.6745
_WIDTHS, _MIDDLE = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2), 64  # that are tried, over so many input voxels
_NARROWEST, _NOISY, _COARSE = 0.6, 0.022, 3.5  # of widths, noise and factors


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


def default_operator(
    high_shape: tuple[int, ...], low_shape: tuple[int, ...], width: float = 1.0
) -> AcquisitionOperator:
    """The acquisition assumed for scans of unknown protocol: Gaussian, so many input voxels wide along blurred axes."""
    return Acquisition(width=(width,) * 3).operator(high_shape, low_shape)


def assumed_width(high: Tensor, low: Tensor, rule: Sequence[float]) -> float:
    """Width of the point-spread function to be assumed between a result and its input, in input voxels.

    A network that has learnt on inputs of many widths makes, of a sharper input, a result that explains it best by a
    narrower point-spread function; but it leans towards what it expects, so what least squares find is drawn out.
    Noise hides it, and so do large factors, where results are smooth themselves: above :data:`_NOISY` and
    :data:`_COARSE` one voxel is assumed. What was measured on training volumes stands in docs/results.md.

    Args:
        high: (1, 1, D, H, W), result of a network, normalised.
        low: (1, 1, d, h, w), input, normalised.
        rule: the network's ``width_rule``: what is found where one voxel is right, and how far differences from that
            are drawn out; 0 assumes one voxel of every scan.
    """
    expected, drawn = (float(v) for v in rule)
    if drawn == 0 or max(n / m for n, m in zip(high.shape[2:], low.shape[2:], strict=True)) > _COARSE:
        return 1.0
    found, noise = fit_width(high, low)
    width = 1.0 if noise > _NOISY else 1 + drawn * (found - expected)
    return round(min(max(width, _NARROWEST), 1.0), 2)


def agree(high: Tensor, low: Tensor, rule: Sequence[float], iterations: int = 2) -> tuple[Tensor, float]:
    """A network's result, projected onto its input under the acquisition that the two let believe, and its width.

    See :func:`project_back` and :func:`assumed_width`.
    """
    width = assumed_width(high, low, rule)
    operator = default_operator(tuple(high.shape[2:]), tuple(low.shape[2:]), width)
    return project_back(high, low, operator, iterations), width


def fit_width(high: Tensor, low: Tensor) -> tuple[float, float]:
    """Width of the Gaussian that makes ``high`` most like ``low``, by least squares over the middle of the head.

    Args:
        high: (1, 1, D, H, W).
        low: (1, 1, d, h, w).

    Returns:
        Full width at half maximum in input voxels, within :data:`_WIDTHS` (1 where there is nothing to see), and the
        standard deviation of the noise.
    """
    rows = [slice(max(0, (n - _MIDDLE) // 2), (n + _MIDDLE) // 2) for n in low.shape[2:]]
    part = low[(..., *rows)]
    mask, residuals = part > 0.1, []
    if not mask.any():
        return 1.0, 0.0
    for width in _WIDTHS:
        matrices = default_operator(tuple(high.shape[2:]), tuple(low.shape[2:]), width).matrices
        residuals.append(part - apply_axes(high, [m[r] for m, r in zip(matrices, rows, strict=True)]))
    errors = [float(residual[mask].square().mean()) for residual in residuals]
    k = min(max(errors.index(min(errors)), 1), len(_WIDTHS) - 2)
    left, least, right = errors[k - 1 : k + 2]
    bend = left - 2 * least + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    width = _WIDTHS[k] + shift * (_WIDTHS[1] - _WIDTHS[0])
    return min(max(width, _WIDTHS[0]), _WIDTHS[-1]), noise_level(residuals[k], mask)
