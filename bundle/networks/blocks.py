"""Building blocks of the denoiser."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Embedding(nn.Module):
    """Time and condition to one vector: Fourier features of ``t``, joined to the condition, through two layers.

    Args:
        condition_size: length of the condition vector.
        size: length of the embedding.
        frequencies: Fourier features of the time, half of them sines.
    """

    def __init__(self, condition_size: int, size: int = 64, frequencies: int = 16) -> None:
        super().__init__()
        self.register_buffer("frequency", math.pi / 2 * 2.0 ** torch.linspace(0, 4, frequencies // 2), persistent=False)
        self.layers = nn.Sequential(nn.Linear(frequencies + condition_size, size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, t: Tensor, condition: Tensor) -> Tensor:
        """``t`` of shape (B,) and ``condition`` (B, C) to (B, size)."""
        angle = t[:, None] * self.frequency[None]
        return F.silu(self.layers(torch.cat([torch.cos(angle), torch.sin(angle), condition], dim=1)))


class ShiftedConv3d(nn.Conv3d):
    """A convolution whose output is shifted by a vector per example; of a single one it becomes part of the bias."""

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        """(N, in_channels, D, H, W) and a shift (N or 1, out_channels) to (N, out_channels, ...)."""
        bias = self.bias
        if bias is not None and shift.shape[0] == 1:
            return F.conv3d(x, self.weight, bias + shift[0], self.stride, self.padding)
        return F.conv3d(x, self.weight, bias, self.stride, self.padding) + shift[:, :, None, None, None]


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions around a shift from the embedding and, where given, scale-and-shift maps.

    For intensities, layers without normalisation, the second convolution starting at zero, train fastest and leave
    levels alone. For labels, batch normalisation does; unlike others it makes no difference between tile and volume.

    Args:
        channels: in and out.
        embedding_size: length of the vector that shifts the features.
        norm: batch normalisation of what comes in.
    """

    def __init__(self, channels: int, embedding_size: int, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(channels) if norm else nn.Identity()
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.shift = nn.Linear(embedding_size, channels)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, embedding: Tensor, modulation: Tensor | None = None) -> Tensor:
        """``x`` (B, C, D, H, W), ``embedding`` (B, E), ``modulation`` (B, 2C, D, H, W) as scale and shift, or None."""
        h = self.first(F.silu(self.norm(x)))
        h += self.shift(embedding)[:, :, None, None, None]
        inference = not torch.is_grad_enabled()  # then nothing is kept, and a volume's worth of new memory is saved
        if modulation is not None:
            scale, shift = modulation.chunk(2, dim=1)
            h = h.addcmul_(h, scale) if inference else torch.addcmul(h, h, scale)
            h += shift
        h = self.second(F.silu(h, inplace=inference))
        h += x
        return h
