"""The intensity modulation h_psi(x): scale-and-shift maps that set local contrast at every scale of the U-Net."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import ShiftedConv3d
from .context import ContextEncoder

LONGEST = 16.0  # of the head's vector; of 128 heads in training one's was longer (17)


class IntensityModulator(nn.Module):
    """Local features of the input, shifted by what the whole head tells, to maps for every scale of the denoiser.

    The head's vector is the same for all of its tiles, so tiles agree about contrast; the condition says which one
    is wanted. What is no head can have a vector longer than any head's, whose maps would make the denoiser's features
    grow without limit; it is shortened. The maps begin as zero, which modulates nothing.

    Args:
        latent_channels: channels of the input's latent.
        widths: channels of the denoiser per scale, finest first.
        condition_size: length of the condition vector.
        features: channels of the local features at the finest scale; twice that below.
        context_size: length of the vector that sums up the head.
    """

    def __init__(
        self,
        latent_channels: int,
        widths: Sequence[int],
        condition_size: int = 6,
        features: int = 16,
        context_size: int = 32,
    ) -> None:
        super().__init__()
        self.encoder, self.longest = ContextEncoder(context_size), LONGEST
        sizes = [features, *[2 * features] * (len(widths) - 1)]
        self.local = nn.ModuleList(
            ShiftedConv3d(a, b, 3, stride=1 if scale == 0 else 2, padding=1)
            for scale, (a, b) in enumerate(zip([latent_channels, *sizes[:-1]], sizes, strict=True))
        )
        self.shift = nn.ModuleList(nn.Linear(context_size + condition_size, n) for n in sizes)
        self.maps = nn.ModuleList(nn.Conv3d(n, 2 * width, 1) for n, width in zip(sizes, widths, strict=True))
        for layer in self.maps:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, latent: Tensor, context: Tensor, condition: Tensor) -> list[Tensor]:
        """Maps of a tile.

        Args:
            latent: (B, C, d, h, w), of the input.
            context: (B, context_size), of the whole head.
            condition: (B, condition_size).

        Returns:
            One (B, 2 * width, ...) map of scale and shift per scale, finest first.
        """
        maps: list[Tensor] = []
        length = context.square().sum(1, keepdim=True).clamp_min(self.longest**2).sqrt()
        context = context * self.longest / length  # one of 16 at most stays the same to the last bit
        h, vector = latent, torch.cat([F.silu(context), condition.to(context.dtype)], dim=1)
        for local, shift, last in zip(self.local, self.shift, self.maps):  # noqa: B905 (TorchScript knows no strict)
            h = F.silu(local(h, shift(vector)), inplace=not torch.is_grad_enabled())
            maps.append(last(h))
        return maps
