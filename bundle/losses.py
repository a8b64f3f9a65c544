"""Losses of images, each with its formula."""

import torch
from torch import Tensor, nn


def gradient_difference(pred: Tensor, target: Tensor) -> Tensor:
    """Gradient consistency, the mean over axes of ``mean |d pred - d target|`` with forward differences ``d``.

    (Mathieu et al., ICLR 2016, without the absolute values inside, so that edges keep their direction.)

    Args:
        pred: (B, C, D, H, W).
        target: of the same shape.
    """
    difference = pred - target
    return torch.stack([difference.diff(dim=axis).abs().mean() for axis in (2, 3, 4)]).mean()


def soft_histogram(volume: Tensor, centres: Tensor) -> Tensor:
    """Differentiable histogram: ``h_b = mean_i max(0, 1 - |x_i - c_b| / w)``, (B, bins), rows sum to one.

    A voxel counts for the two bins it lies between; what lies beyond the first or last centre counts there.

    Args:
        volume: (B, ...).
        centres: (bins,), ascending, ``w`` apart.
    """
    width = centres[1] - centres[0]
    x = volume.flatten(1).clamp(centres[0], centres[-1])
    return torch.stack([(1 - (x - c).abs() / width).clamp_min(0).mean(1) for c in centres], dim=1)


def histogram_distance(pred: Tensor, target: Tensor, centres: Tensor) -> Tensor:
    """Mean over the batch of the earth mover's distance of two soft histograms, ``w sum_b |H_b - G_b|``.

    ``H`` and ``G`` are cumulative; the distance is in units of intensity (Rubner et al., IJCV 2000, in one dimension).
    """
    difference = soft_histogram(pred, centres) - soft_histogram(target, centres)
    return (centres[1] - centres[0]) * difference.cumsum(1).abs().sum(1).mean()


class IntensityLoss(nn.Module):
    """Weighted sum of squared error, :func:`gradient_difference` and :func:`histogram_distance` of two images.

    Args:
        squared: weight of the squared error. The loss of the normalised latent counts every subband the same; this one
            counts them as the image does, so that levels matter.
        gradient: weight of the gradients.
        histogram: weight of the histogram.
        bins: of the histogram.
        limits: of its centres, normalised intensity.
    """

    def __init__(
        self,
        squared: float = 10.0,
        gradient: float = 0.5,
        histogram: float = 0.5,
        bins: int = 32,
        limits: tuple[float, float] = (0.0, 2.5),
    ) -> None:
        super().__init__()
        self.squared, self.gradient, self.histogram = squared, gradient, histogram
        self.register_buffer("centres", torch.linspace(*limits, bins), persistent=False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of ``pred`` and ``target``, (B, 1, D, H, W) each."""
        loss = self.squared * (pred - target).square().mean() + self.gradient * gradient_difference(pred, target)
        if self.histogram:
            loss = loss + self.histogram * histogram_distance(pred, target, self.centres.to(pred))
        return loss
