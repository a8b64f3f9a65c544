"""The gate of the mixture: patch embeddings of three sizes, a transformer over the tokens, a share for every expert."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import ShiftedConv3d

TOKEN = 4  # latent voxels along the side of a token
WINDOW = 4  # tokens along the side of a window of attention
PATCHES = (4, 8, 12)  # latent voxels along the sides of the patches that a token sees, all about the same centre


class PatchEmbeddings(nn.Module):
    """Patches of three sizes about every token, the larger ones in coarser voxels, to one sum of embeddings.

    Args:
        channels: of the latent.
        width: of a token.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv3d(channels, width, TOKEN, stride=TOKEN)
        self.middle = nn.Conv3d(channels, width, 4, stride=2, padding=1)  # of means over 2 voxels: patches of 8
        self.coarse = nn.Conv3d(channels, width, 3, padding=1)  # of means over 4 voxels: patches of 12

    def forward(self, latent: Tensor) -> Tensor:
        """(B, channels, d, h, w), sides multiples of TOKEN, to (B, width, d / TOKEN, ...)."""
        half = F.avg_pool3d(latent, 2)
        return self.fine(latent) + self.middle(half) + self.coarse(F.avg_pool3d(half, 2))


class Evidence(nn.Module):
    """What a small neighbourhood of every voxel says, in the light of the condition: white matter is bright or dark.

    Args:
        channels: of the latent.
        experts: how many there are.
        condition_size: length of the condition vector.
        hidden: channels in between.
    """

    def __init__(self, channels: int, experts: int, condition_size: int, hidden: int = 12) -> None:
        super().__init__()
        self.first = ShiftedConv3d(channels, hidden, 3, padding=1)
        self.shift = nn.Linear(condition_size, hidden)
        self.second = nn.Conv3d(hidden, hidden, 3, padding=1)
        self.logits = nn.Conv3d(hidden, experts, 1, bias=False)

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """(B, channels, d, h, w) and (B, condition_size) to logits (B, experts, d, h, w)."""
        inference = not torch.is_grad_enabled()
        h = self.first(latent, self.shift(condition.to(latent.dtype)))
        h = self.second(F.silu(h, inplace=inference))
        return self.logits(F.silu(h, inplace=inference))


class Gate(nn.Module):
    """From the latent of the input to the share of every expert at every voxel of it; the shares sum to one.

    MONAI's transformer blocks let the tokens of a window see each other; what each token says is brought to the latent
    grid by linear interpolation and joined, as logarithms of shares, to the evidence of a small neighbourhood of every
    voxel, since cortex and its border to white matter are thinner than a token. The noise does not enter, so the shares
    are the same in every denoising step. Windows lie on a grid fixed to the corner of a tile: tiles whose corners are
    multiples of TOKEN * WINDOW latent voxels see the same windows as the whole volume.

    Args:
        channels: of the latent.
        experts: how many there are.
        condition_size: length of the condition vector.
        width: of a token.
        layers: transformer blocks.
        heads: of attention.
    """

    def __init__(
        self,
        channels: int = 8,
        experts: int = 3,
        condition_size: int = 6,
        width: int = 48,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        from monai.networks.blocks import TransformerBlock  # imported here: it wants einops, which others can spare

        self.window = WINDOW  # TorchScript reads no numbers of a module
        self.side = TOKEN * WINDOW
        self.patches = PatchEmbeddings(channels, width)
        self.condition = nn.Linear(condition_size, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, WINDOW**3, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, 2 * width, heads, use_flash_attention=True) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, experts)
        self.evidence = Evidence(channels, experts, condition_size)

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Shares (B, experts, d, h, w) of a latent (B, channels, d, h, w) of any size, for a condition (B, C)."""
        d, h, w, side = latent.shape[2], latent.shape[3], latent.shape[4], self.side
        padded = F.pad(latent, [0, -w % side, 0, -h % side, 0, -d % side], mode="replicate")
        tokens = self.patches(padded) + self.condition(condition.to(latent.dtype))[:, :, None, None, None]
        logits = self.logits(self.norm(self.attend(tokens).permute(0, 2, 3, 4, 1))).permute(0, 4, 1, 2, 3)
        size = [padded.shape[2], padded.shape[3], padded.shape[4]]
        smooth = F.interpolate(logits.float(), size, mode="trilinear", align_corners=False)[:, :, :d, :h, :w]
        return torch.softmax(smooth + self.evidence(latent, condition).float(), dim=1)

    def attend(self, tokens: Tensor) -> Tensor:
        """Tokens (B, width, nd, nh, nw), sides multiples of WINDOW, after attention within windows."""
        b, c, n = tokens.shape[0], tokens.shape[1], self.window
        nd, nh, nw = tokens.shape[2] // n, tokens.shape[3] // n, tokens.shape[4] // n
        split = tokens.reshape(b, c, nd, n, nh, n, nw, n).permute(0, 2, 4, 6, 3, 5, 7, 1)
        h = split.reshape(b * nd * nh * nw, n * n * n, c) + self.position
        for block in self.blocks:
            h = block(h)
        split = h.reshape(b, nd, nh, nw, n, n, n, c).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return split.reshape(b, c, nd * n, nh * n, nw * n)
