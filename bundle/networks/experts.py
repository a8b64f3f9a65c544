"""A mixture of denoising experts in the denoiser's place: one trunk, three experts for regions of anatomy, a gate."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import ShiftedConv3d
from .denoiser import Denoiser
from .gate import Gate

EXPERTS = ("centrum semiovale", "cortex", "junction")  # the region that each expert is for
HALO = 2  # latent voxels that an expert looks beyond its tile
TILE = 24  # latent voxels, about, along the side of a tile of sparse routing
_AT_ONCE = 8  # tiles that an expert is given together


class Expert(nn.Module):
    """Two wide 3x3x3 convolutions and a direct path, without padding, from the trunk's features to a prediction.

    Args:
        channels: of the features.
        hidden: channels in between.
        out_channels: of the prediction, which begins as zero.
        embedding_size: length of the vector of time and condition.
    """

    def __init__(self, channels: int, hidden: int, out_channels: int, embedding_size: int) -> None:
        super().__init__()
        self.first = ShiftedConv3d(channels, hidden, 3)
        self.shift = nn.Linear(embedding_size, hidden)
        self.second = nn.Conv3d(hidden, out_channels, 3)
        self.direct = nn.Conv3d(channels, out_channels, 1, bias=False)
        for weight in (self.second.weight, self.second.bias, self.direct.weight):
            nn.init.zeros_(weight)

    def forward(self, features: Tensor, inside: Tensor, embedding: Tensor) -> Tensor:
        """Prediction (N, out_channels, d, h, w).

        Args:
            features: (N, channels, d + 4, h + 4, w + 4).
            inside: (N or 1, 1, d + 2, h + 2, w + 2), 1 where there is volume, 0 beyond its border.
            embedding: (N, embedding_size), or (1, embedding_size) of all of them.
        """
        h = self.first(F.silu(features), self.shift(embedding))
        inference = not torch.is_grad_enabled()  # then nothing is kept
        h = F.silu(h, inplace=inference)
        h = self.second(h.mul_(inside) if inference else h * inside)
        h += self.direct(features[:, :, 2:-2, 2:-2, 2:-2])  # without the halo
        return h


class MixtureDenoiser(Denoiser):
    """Mixture of experts with the interface of :class:`bundle.networks.denoiser.Denoiser`.

        output = sum_k gate_k(low_res) expert_k(trunk(noisy, low_res, t, condition, prior, modulation))

    The trunk is the denoiser's U-Net without residual blocks and exit at the finest scale, where they would cost most;
    there the experts work. In evaluation, where ``threshold`` is above zero, an expert runs only in tiles in which its
    mean share is at least that, or the largest; the shares of those that run are scaled to one.

    Args:
        latent_channels, widths, blocks, prior_channels, condition_size, embedding_size: as of the denoiser; no blocks
            are made at the finest scale.
        hidden: channels inside an expert; None for three times ``widths[0]``.
        threshold: of sparse routing; 0 runs every expert everywhere.
    """

    def __init__(
        self,
        latent_channels: int = 8,
        widths: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] = (1, 1, 2),
        prior_channels: int = 0,
        condition_size: int = 6,
        embedding_size: int = 64,
        hidden: int | None = None,
        threshold: float = 0.0,
    ) -> None:
        super().__init__(latent_channels, widths, (0, *blocks[1:]), prior_channels, condition_size, embedding_size)
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold {threshold} of sparse routing: from 0 to below 1")
        self.exit = nn.Identity()  # the experts take its place
        self.finest = nn.Identity()  # distillation listens here
        self.threshold, self.out_channels = threshold, latent_channels
        self.tile, self.halo, self.at_once = TILE, HALO, _AT_ONCE  # TorchScript reads no numbers of a module
        hidden = 3 * widths[0] if hidden is None else hidden
        self.experts = nn.ModuleList(Expert(widths[0], hidden, latent_channels, embedding_size) for _ in EXPERTS)
        self.gate = Gate(latent_channels, len(EXPERTS), condition_size)

    def last_blocks(self) -> list[nn.Module]:
        """The module of every scale whose output is nearest to the result, coarsest first."""
        return [self.enter[-1][-1], *(blocks[-1] for blocks in self.leave[:-1]), self.finest]

    def features(
        self,
        noisy: Tensor,
        low_res: Tensor,
        t: Tensor,
        condition: Tensor,
        prior: Tensor | None = None,
        modulation: list[Tensor] | None = None,
    ) -> Tensor:
        """What the experts are given, (B, widths[0], d, h, w); arguments as of the denoiser's ``forward``."""
        h = self.body(self.joined(noisy, low_res, prior), self.embedding(t, condition), modulation)
        if modulation is not None:
            scale, shift = modulation[0].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.finest(h)

    def both(
        self,
        noisy: Tensor,
        low_res: Tensor,
        t: Tensor,
        condition: Tensor,
        prior: Tensor | None = None,
        modulation: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The mixture's prediction and the features behind it; arguments as of the denoiser's ``forward``."""
        features = self.features(noisy, low_res, t, condition, prior, modulation)
        shares, embedding = self.gate(low_res, condition), self.embedding(t, condition)
        if self.threshold > 0 and not self.training:
            return self.route(features, shares, embedding), features
        return (shares[:, :, None] * self.each(features, embedding)).sum(1), features

    @torch.jit.export
    def parts(
        self,
        noisy: Tensor,
        low_res: Tensor,
        t: Tensor,
        condition: Tensor,
        prior: Tensor | None = None,
        modulation: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Shares (B, experts, d, h, w) and what every expert says everywhere (B, experts, C, d, h, w)."""
        features = self.features(noisy, low_res, t, condition, prior, modulation)
        return self.gate(low_res, condition), self.each(features, self.embedding(t, condition))

    def forward(
        self,
        noisy: Tensor,
        low_res: Tensor,
        t: Tensor,
        condition: Tensor,
        prior: Tensor | None = None,
        modulation: list[Tensor] | None = None,
    ) -> Tensor:
        """Velocity for one noise level, (B, C, d, h, w); arguments as of the denoiser's."""
        return self.both(noisy, low_res, t, condition, prior, modulation)[0]

    def each(self, features: Tensor, embedding: Tensor) -> Tensor:
        """What every expert says everywhere, (B, experts, C, d, h, w)."""
        inside = F.pad(torch.ones_like(features[:1, :1]), [1] * 6)
        padded = F.pad(features, [self.halo] * 6)
        return torch.stack([expert(padded, inside, embedding) for expert in self.experts], dim=1)

    @torch.jit.export
    def routed(self, shares: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Which experts run in which tiles, those that have the mean share or the largest, and how they share.

        Tiles are of one size, as many as those of :data:`TILE` would about be, and may end beyond the volume.

        Args:
            shares: (B, experts, d, h, w).
            threshold: of the mean share.

        Returns:
            Shares of those that run, scaled to sum one, of whole tiles, and one boolean a tile, (B, experts, ...).
        """
        d, h, w = shares.shape[2], shares.shape[3], shares.shape[4]
        sides = [(n - 1) // max(1, (2 * n + self.tile) // (2 * self.tile)) + 1 for n in (d, h, w)]
        shares = F.pad(shares, [0, -w % sides[2], 0, -h % sides[1], 0, -d % sides[0]])
        mean = F.avg_pool3d(shares, sides)
        mean = mean / mean.sum(1, keepdim=True)
        run = (mean >= threshold) | (mean == mean.amax(1, keepdim=True))
        kept = run
        for axis, n in enumerate(sides):
            kept = kept.repeat_interleave(n, axis + 2)
        shares = shares * kept
        return shares / shares.sum(1, keepdim=True).clamp_min(1e-6), run

    def route(self, features: Tensor, shares: Tensor, embedding: Tensor) -> Tensor:
        """The mixture of those experts that :meth:`routed` lets run, tile by tile, (B, C, d, h, w)."""
        d, h, w = features.shape[2], features.shape[3], features.shape[4]
        shares, run = self.routed(shares, self.threshold)
        b, nd, nh, nw = run.shape[0], run.shape[2], run.shape[3], run.shape[4]
        sd, sh, sw = shares.shape[2] // nd, shares.shape[3] // nh, shares.shape[4] // nw
        sides = [sd, sh, sw]
        far = [shares.shape[4] - w, shares.shape[3] - h, shares.shape[2] - d]
        weights = _tiles(shares, sides, 0)
        tiles = _tiles(F.pad(features, _around(far, self.halo)), sides, self.halo)
        inside = _tiles(F.pad(torch.ones_like(features[:, :1]), _around(far, 1)), sides, 1)
        result = features.new_zeros((b, nd, nh, nw, sd, sh, sw, self.out_channels))
        for row in range(b):
            for k, expert in enumerate(self.experts):
                for part in torch.nonzero(run[row, k]).split(self.at_once):
                    z, y, x = part[:, 0], part[:, 1], part[:, 2]
                    seen, there = _channels_first(tiles[row, z, y, x]), _channels_first(inside[row, z, y, x])
                    found = expert(seen, there, embedding[row : row + 1]).permute(0, 2, 3, 4, 1)
                    result[row, z, y, x] += (found * weights[row, z, y, x][..., k : k + 1]).to(result.dtype)
        volume = result.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, nd * sd, nh * sh, nw * sw, self.out_channels)
        return _channels_first(volume[:, :d, :h, :w])


def _around(far: list[int], halo: int) -> list[int]:
    """Padding that makes a volume whole tiles with a halo."""
    return [halo, halo + far[0], halo, halo + far[1], halo, halo + far[2]]


def _tiles(volume: Tensor, sides: list[int], halo: int) -> Tensor:
    """A view of (B, C, d, h, w) as overlapping tiles, (B, nd, nh, nw, *sides, C), each longer by twice a halo."""
    tiles = volume.permute(0, 2, 3, 4, 1)
    for axis, n in enumerate(sides):
        tiles = tiles.unfold(axis + 1, n + 2 * halo, n)
    return tiles.permute(0, 1, 2, 3, 5, 6, 7, 4)


def _channels_first(tiles: Tensor) -> Tensor:
    """A view of (N, d, h, w, C), dense with channels last, as (N, C, d, h, w)."""
    return tiles.permute(0, 4, 1, 2, 3)
