"""Does the simulation look like real scans? Tissue contrast and power spectrum, side by side."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

FREQUENCIES = np.linspace(0.05, 0.4, 15)  # cycles per mm


def fit_mixture(values: np.ndarray, iterations: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means (rising), standard deviations and shares of three Gaussians, by expectation maximisation."""
    values = np.sort(np.asarray(values, dtype=np.float64))[:: max(1, len(values) // 20_000)]
    mean, share = np.quantile(values, (0.1, 0.45, 0.8)), np.full(3, 1 / 3)
    deviation = np.full(3, values.std() / 4)
    for _ in range(iterations):
        density = share * np.exp(-0.5 * ((values[:, None] - mean) / deviation) ** 2) / deviation
        weight = density / density.sum(1, keepdims=True).clip(1e-300)
        total = weight.sum(0).clip(1e-9)
        mean, share = (weight * values[:, None]).sum(0) / total, total / len(values)
        spread = (weight * (values[:, None] - mean) ** 2).sum(0) / total
        deviation = np.sqrt(spread).clip(1e-3 * values.std())
    order = np.argsort(mean)
    return mean[order], deviation[order], share[order]


def tissue_ratios(volume: Tensor, modality: str) -> dict[str, float]:
    """``GM/WM`` and ``CSF/WM`` of a brain-only volume, from a mixture of three classes.

    Args:
        volume: (D, H, W), background zero.
        modality: ``T1w`` (fluid dark) or ``T2w`` (fluid bright).
    """
    inside = volume[volume > 0.02 * volume.max()].numpy()
    inside = inside[inside < np.percentile(inside, 99.5)]
    dark, middle, bright = fit_mixture(inside)[0]
    white, fluid = (bright, dark) if modality == "T1w" else (dark, bright)
    return {"GM/WM": float(middle / white), "CSF/WM": float(fluid / white)}


def power_spectrum(volume: Tensor, spacing: Sequence[float], frequencies: np.ndarray = FREQUENCIES) -> np.ndarray:
    """Radially averaged power at ``frequencies`` (cycles per mm), of the volume over its mean inside the head.

    Frequencies beyond the Nyquist frequency of the coarsest axis are NaN.
    """
    mean = volume[volume > 0.1 * volume.max()].mean()
    power = torch.fft.rfftn(volume / mean).abs().square() / volume.numel()
    axes = [torch.fft.fftfreq(n, s) for n, s in zip(volume.shape[:2], spacing[:2], strict=True)]
    axes.append(torch.fft.rfftfreq(volume.shape[2], spacing[2]))
    radius = torch.sqrt(axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2)
    width = (frequencies[1] - frequencies[0]) / 2
    values = [float(power[(radius - f).abs() < width].mean()) for f in frequencies]
    limit = 0.5 / max(spacing)
    return np.array([v if f <= limit else np.nan for v, f in zip(values, frequencies, strict=True)])
