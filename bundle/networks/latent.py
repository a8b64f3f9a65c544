"""Latent spaces that diffusion works in."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HaarLatent(nn.Module):
    """One level of the orthonormal 3D Haar wavelet: 1 channel to 8 subbands at half size, without loss.

    Subband ``4a + 2b + c`` holds the average (0) or difference (1) along the three axes. The transform is its own
    adjoint's inverse: ``decode(encode(x)) == x`` up to rounding, and it preserves the sum of squares.
    """

    channels = 8
    factor = 2  # voxels per latent voxel, per axis

    def __init__(self) -> None:
        super().__init__()
        pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
        kernel = torch.einsum("ai,bj,ck->abcijk", pair, pair, pair).reshape(8, 1, 2, 2, 2)
        self.register_buffer("kernel", kernel, persistent=False)

    def encode(self, image: Tensor) -> Tensor:
        """(B, 1, D, H, W), all even, to (B, 8, D/2, H/2, W/2)."""
        return F.conv3d(image, self.kernel, stride=2)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, 8, D/2, H/2, W/2) to (B, 1, D, H, W)."""
        return F.conv_transpose3d(latent, self.kernel, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """Same as :meth:`encode`."""
        return self.encode(image)
