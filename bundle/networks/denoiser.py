"""The U-Net trunk, and the denoiser made of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .blocks import Embedding, ResidualBlock

LARGEST = 40.0  # of the denoiser's coarsest features; heads' reach 21, those of the mixture 37


class UNet(nn.Module):
    """Strided convolutions go down, transposed 2x2x2 convolutions come up, skips are added.

    Args:
        channels: of the input.
        out_channels: of the output, which begins as zero.
        widths: channels per scale, finest first; each scale has half the size of the one before.
        blocks: residual blocks per scale, on the way down and on the way up (once at the coarsest scale).
        embedding_size: length of the vector that enters every block.
        norm: batch normalisation in every block.
        largest: magnitude at which, in evaluation, features of the coarsest scale are cut off, 0 for never.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        embedding_size: int,
        norm: bool = False,
        largest: float = 0.0,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(f"widths {tuple(widths)} and blocks {tuple(blocks)} need the same length")
        self.largest = largest
        self.entry = nn.Conv3d(channels, widths[0], 3, padding=1)
        self.down, self.enter, self.up, self.leave = (nn.ModuleList() for _ in range(4))
        for scale, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            last = scale == len(widths) - 1
            self.enter.append(nn.ModuleList(ResidualBlock(width, embedding_size, norm) for _ in range(count)))
            if not last:
                self.leave.insert(0, nn.ModuleList(ResidualBlock(width, embedding_size, norm) for _ in range(count)))
                self.down.append(nn.Conv3d(width, widths[scale + 1], 3, stride=2, padding=1))
                self.up.insert(0, nn.ConvTranspose3d(widths[scale + 1], width, 2, stride=2))
        self.exit = nn.Conv3d(widths[0], out_channels, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)

    def body(
        self, x: Tensor, embedding: Tensor, modulation: list[Tensor] | None, coarse: Tensor | None = None
    ) -> Tensor:
        """All but the last convolution: (B, channels, d, h, w) to (B, widths[0], d, h, w).

        Args:
            x: sides multiples of ``2 ** (len(widths) - 1)``.
            embedding: (B, embedding_size).
            modulation: one (B, 2 * width, ...) map of scale and shift per scale, finest first, or None.
            coarse: (B, widths[-1], ...), added at the coarsest scale, or None.
        """
        h = self.entry(x)
        skips: list[Tensor] = []
        for scale, blocks in enumerate(self.enter):
            if coarse is not None and scale == len(self.down):
                h = h + coarse
            for block in blocks:
                h = block(h, embedding, None if modulation is None else modulation[scale])
            skips.append(h)
            for index, down in enumerate(self.down):  # TorchScript indexes module lists by constants only
                if index == scale:
                    h = down(h)
        if self.largest > 0 and not self.training:
            h = h.clamp(-self.largest, self.largest)
        for index, (up, blocks) in enumerate(zip(self.up, self.leave)):  # noqa: B905 (TorchScript knows no strict)
            scale = len(self.up) - 1 - index
            h = up(h)
            h += skips[scale]
            for block in blocks:
                h = block(h, embedding, None if modulation is None else modulation[scale])
        return h

    def forward(
        self, x: Tensor, embedding: Tensor, modulation: list[Tensor] | None = None, coarse: Tensor | None = None
    ) -> Tensor:
        """(B, out_channels, d, h, w); arguments as of :meth:`body`."""
        return self.exit(self.body(x, embedding, modulation, coarse))


class Denoiser(UNet):
    """f_theta(z_t, x, a, i~, t, c): predicts the velocity of the latent residual.

    The noisy latent, the latent of the low-resolution input and, where there is one, the prior are joined at the
    input; modulation maps enter every residual block of their scale. An absent prior or modulation costs nothing.
    In evaluation features of the coarsest scale are bounded, so that what is no head can't make them explode.

    Args:
        latent_channels: channels of the latent.
        widths: channels per scale, finest first.
        blocks: residual blocks per scale.
        prior_channels: channels of the prior, 0 for none.
        condition_size: length of the condition vector.
        embedding_size: length of the embedding of time and condition.
    """

    def __init__(
        self,
        latent_channels: int = 8,
        widths: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] = (1, 1, 2),
        prior_channels: int = 0,
        condition_size: int = 6,
        embedding_size: int = 64,
    ) -> None:
        channels = 2 * latent_channels + prior_channels
        super().__init__(channels, latent_channels, widths, blocks, embedding_size, largest=LARGEST)
        self.widths = tuple(widths)
        self.embedding = Embedding(condition_size, embedding_size)

    def forward(
        self,
        noisy: Tensor,
        low_res: Tensor,
        t: Tensor,
        condition: Tensor,
        prior: Tensor | None = None,
        modulation: list[Tensor] | None = None,
    ) -> Tensor:
        """Velocity for one noise level.

        Args:
            noisy: (B, C, d, h, w), z_t.
            low_res: (B, C, d, h, w), latent of the input; d, h, w multiples of ``2 ** (len(widths) - 1)``.
            t: (B,), time in [0, 1].
            condition: (B, condition_size).
            prior: (B, prior_channels, d, h, w) or None.
            modulation: one (B, 2 * width, ...) map per scale, finest first, or None.

        Returns:
            (B, C, d, h, w).
        """
        return self.exit(self.features(noisy, low_res, t, condition, prior, modulation))

    def features(
        self,
        noisy: Tensor,
        low_res: Tensor,
        t: Tensor,
        condition: Tensor,
        prior: Tensor | None = None,
        modulation: list[Tensor] | None = None,
    ) -> Tensor:
        """What the velocity is read from, (B, widths[0], d, h, w); arguments as of :meth:`forward`."""
        return self.body(self.joined(noisy, low_res, prior), self.embedding(t, condition), modulation)

    def joined(self, noisy: Tensor, low_res: Tensor, prior: Tensor | None) -> Tensor:
        """What enters the U-Net, in the precision of ``low_res``: fp32 would be copied there to be rounded."""
        parts = [noisy.to(low_res.dtype), low_res]
        if prior is not None:
            parts.append(prior.to(low_res.dtype))
        return torch.cat(parts, dim=1)

    def both(
        self,
        noisy: Tensor,
        low_res: Tensor,
        t: Tensor,
        condition: Tensor,
        prior: Tensor | None = None,
        modulation: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What :meth:`forward` says, and the :meth:`features` that it is read from."""
        features = self.features(noisy, low_res, t, condition, prior, modulation)
        return self.exit(features), features

    def last_blocks(self) -> list[nn.Module]:
        """The block of every scale whose output is nearest to the result, coarsest first."""
        return [self.enter[-1][-1], *(blocks[-1] for blocks in self.leave)]
