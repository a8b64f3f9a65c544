"""What a tile has to know of the rest of the head: a coarse view of the volume, and a vector made of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VIEW = 64  # largest side of a coarse view, in voxels
CELL, REACH = 8, 15  # voxels in a cell of the surround, and cells that it reaches beyond the tile on each side


def view_step(volume: Tensor, side: int = VIEW) -> int:
    """Voxels along the side of a voxel of the coarse view of (..., D, H, W)."""
    return (max(volume.shape[-3], volume.shape[-2], volume.shape[-1]) + side - 1) // side


def coarse_view(volume: Tensor, side: int = VIEW, least: int = 16) -> Tensor:
    """Mean over cubes of as many voxels as bring the longest side to ``side`` or less.

    Args:
        volume: (B, 1, D, H, W), normalised.
        side: voxels.
        least: voxels, to which air fills shorter sides, since the encoder halves them three times.
    """
    step = view_step(volume, side)
    if step > 1:
        padding = [0, -volume.shape[4] % step, 0, -volume.shape[3] % step, 0, -volume.shape[2] % step]
        volume = F.avg_pool3d(F.pad(volume, padding), step)
    d, h, w = volume.shape[2], volume.shape[3], volume.shape[4]
    return F.pad(volume, [0, max(least - w, 0), 0, max(least - h, 0), 0, max(least - d, 0)])


def surround(volume: Tensor, cell: int = CELL, reach: int = REACH) -> Tensor:
    """The volume and the air around it in means over cells: what a tile sees of its neighbourhood is a cut of this.

    Args:
        volume: (B, 1, D, H, W), normalised, sides multiples of ``cell``.
        cell: voxels along its side.
        reach: cells of air on each side.

    Returns:
        (B, 1, D / cell + 2 reach, ...).
    """
    return F.pad(F.avg_pool3d(volume, cell), [reach] * 6)


def cut_surround(whole: Tensor, tile: Sequence[slice]) -> Tensor:
    """The part of a :func:`surround` that belongs to a tile with corners on multiples of :data:`CELL`."""
    return whole[(..., *(slice(s.start // CELL, s.stop // CELL + 2 * REACH) for s in tile))]


class SurroundEncoder(nn.Module):
    """What lies around a tile, to features on a grid of one cell; dilated convolutions without padding see all of it.

    Args:
        channels: of the result.
        width: channels in between.
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        dilations = (1, 2, 4, REACH - 7)
        self.convolutions = nn.ModuleList(
            nn.Conv3d(1 if i == 0 else width, channels if i == 3 else width, 3, dilation=d)
            for i, d in enumerate(dilations)
        )

    def forward(self, cells: Tensor) -> Tensor:
        """(B, 1, d + 2 REACH, ...) to (B, channels, d, ...)."""
        h = cells
        for convolution in self.convolutions:
            h = F.silu(convolution(h))
        return h


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
