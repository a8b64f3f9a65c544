"""What a tile has to know of the rest of the head: a coarse view of the volume, and a vector made of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VIEW = 64  # largest side of a coarse view, in voxels


def coarse_view(volume: Tensor, side: int = VIEW, least: int = 16) -> Tensor:
    """Mean over cubes of as many voxels as bring the longest side to ``side`` or less.

    Args:
        volume: (B, 1, D, H, W), normalised.
        side: voxels.
        least: voxels, to which air fills shorter sides, since the encoder halves them three times.
    """
    longest = max(volume.shape[2], volume.shape[3], volume.shape[4])
    step = (longest + side - 1) // side
    if step > 1:
        padding = [0, -volume.shape[4] % step, 0, -volume.shape[3] % step, 0, -volume.shape[2] % step]
        volume = F.avg_pool3d(F.pad(volume, padding), step)
    d, h, w = volume.shape[2], volume.shape[3], volume.shape[4]
    return F.pad(volume, [0, max(least - w, 0), 0, max(least - h, 0), 0, max(least - d, 0)])


class ContextEncoder(nn.Module):
    """Coarse view of the head to a vector: features at three scales, averaged over the foreground.

    An average over the head does not care where the field of view ends or how much air there is; the features are
    what a histogram is, with some neighbourhood: how bright white matter, fluid and fat are in this scan.

    Args:
        size: length of the vector.
        widths: features per scale.
    """

    def __init__(self, size: int = 32, widths: Sequence[int] = (16, 32, 48)) -> None:
        super().__init__()
        self.foreground = 0.05  # normalised intensity above which a voxel counts
        self.convolutions = nn.ModuleList(
            nn.Conv3d(a, b, 3, stride=2, padding=1) for a, b in zip((1, *widths[:-1]), widths, strict=True)
        )
        self.layers = nn.Sequential(nn.Linear(sum(widths), 2 * size), nn.SiLU(), nn.Linear(2 * size, size))

    def forward(self, view: Tensor) -> Tensor:
        """(B, 1, d, h, w), of :func:`coarse_view`, to (B, size)."""
        weight = (view > self.foreground).to(view.dtype)
        means: list[Tensor] = []
        h = view
        for convolution in self.convolutions:
            h = F.silu(convolution(h))
            weight = F.avg_pool3d(weight, 3, stride=2, padding=1)
            means.append((h * weight).sum((2, 3, 4)) / (weight.sum((2, 3, 4)) + 1e-3))
        return self.layers(torch.cat(means, dim=1))
