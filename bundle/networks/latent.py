"""Latent spaces that diffusion works in: each turns a pair of images into a residual, and a residual into an image."""

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

    @torch.jit.export
    def residual(self, low_res: Tensor, high_res: Tensor) -> Tensor:
        """Latent of the difference of two images."""
        return self.encode(high_res - low_res)

    @torch.jit.export
    def apply_residual(self, low_res: Tensor, residual: Tensor) -> Tensor:
        """The image that differs from ``low_res`` by a residual."""
        return low_res + self.decode(residual)

    def forward(self, image: Tensor) -> Tensor:
        """Same as :meth:`encode`."""
        return self.encode(image)


class AutoencoderLatent(nn.Module):
    """A learned latent, the mean of MONAI's AutoencoderKL times ``scale``: 1 channel to 8 at half size.

    ``scale``, a saved buffer, brings latents to unit standard deviation (Rombach et al., CVPR 2022). Being not linear,
    it takes the difference of two latents for the residual, and adds to the image what the residual changes in the
    decoded one, so that no residual means no change. AutoencoderKL does not script; the network around it does neither.

    Args:
        widths: channels per scale of the autoencoder.
    """

    channels = 8
    factor = 2

    def __init__(self, widths: tuple[int, int] = (16, 32)) -> None:
        super().__init__()
        from monai.networks.nets import AutoencoderKL  # imported here: it takes a second that Haar need not pay

        self.autoencoder = AutoencoderKL(
            spatial_dims=3,
            in_channels=1,
            out_channels=1,
            num_res_blocks=(1, 1),
            channels=widths,
            attention_levels=(False, False),
            latent_channels=self.channels,
            norm_num_groups=8,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        self.register_buffer("scale", torch.ones(()))

    def encode(self, image: Tensor) -> Tensor:
        """(B, 1, D, H, W), all even, to (B, 8, D/2, H/2, W/2)."""
        return self.scale * self.autoencoder.encode(image)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """(B, 8, D/2, H/2, W/2) to (B, 1, D, H, W)."""
        return self.autoencoder.decode(latent / self.scale)

    def residual(self, low_res: Tensor, high_res: Tensor) -> Tensor:
        """Difference of the latents of two images."""
        return self.encode(high_res) - self.encode(low_res)

    def apply_residual(self, low_res: Tensor, residual: Tensor) -> Tensor:
        """The image that differs from ``low_res`` by what a residual changes in the decoded one."""
        latent = self.encode(low_res)
        return low_res + self.decode(latent + residual) - self.decode(latent)

    def forward(self, image: Tensor) -> Tensor:
        """The image as it comes back, (B, 1, D, H, W)."""
        return self.decode(self.encode(image))


LATENTS = {"haar": HaarLatent, "autoencoder": AutoencoderLatent}
