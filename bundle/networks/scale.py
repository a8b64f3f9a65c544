"""The log-scale head: how large the error of the mean is likely to be, voxel by voxel, in the same single step."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ScaleHead(nn.Module):
    """From the denoiser's last features, the input and what the denoiser predicts, to the expected absolute error.

    Trained by likelihood (:mod:`bundle.engines.uncertainty`); ``factor`` makes it cover the errors, per contrast and
    modality (:mod:`bundle.calibration`).

    Args:
        features: channels of the features.
        latent: channels of the latent; the input and the prediction have as many each.
        contrasts: rows of ``factor``.
        modalities: columns of ``factor``.
        widths: channels at the resolution of the latent and at half of that.
    """

    def __init__(
        self, features: int, latent: int, contrasts: int, modalities: int, widths: tuple[int, int] = (32, 48)
    ) -> None:
        super().__init__()
        fine, coarse = widths
        self.inner = nn.Conv3d(features + 2 * latent, fine, 3, padding=1)
        self.around = nn.Sequential(
            nn.Conv3d(fine, coarse, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv3d(coarse, coarse, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose3d(coarse, fine, 2, stride=2),
        )
        self.outer = nn.Conv3d(fine, 8, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.constant_(self.outer.bias, -3.5)  # exp(-3.5) = 0.03, a common error
        self.register_buffer("factor", torch.ones(contrasts, modalities))

    def forward(self, features: Tensor, low: Tensor, predicted: Tensor) -> Tensor:
        """Log-scale of the eight voxels in each of the latent's, (B, 8, d, h, w).

        Args:
            features: (B, features, d, h, w), sides even.
            low: (B, latent, d, h, w), of the input.
            predicted: (B, latent, d, h, w), the denoiser's output.
        """
        h = F.silu(self.inner(torch.cat([features, low.to(features.dtype), predicted.to(features.dtype)], dim=1)))
        return self.outer(F.silu(h + self.around(h)))

    @torch.jit.export
    def volume(self, log_scale: Tensor) -> Tensor:
        """The log-scale of every voxel, (B, 1, 2d, 2h, 2w)."""
        b, d, h, w = log_scale.shape[0], log_scale.shape[2], log_scale.shape[3], log_scale.shape[4]
        blocks = log_scale.float().clamp(-7, 2).reshape(b, 2, 2, 2, d, h, w)
        return blocks.permute(0, 4, 1, 5, 2, 6, 3).reshape(b, 1, 2 * d, 2 * h, 2 * w)

    @torch.jit.export
    def uncertainty(self, log_scale: Tensor, condition: Tensor) -> Tensor:
        """The calibrated uncertainty, (B, 1, 2d, 2h, 2w), for a condition (B, 6)."""
        factor = self.factor[condition[:, 0].long(), (condition[:, 1] + 2 * condition[:, 2]).long()]
        return factor[:, None, None, None, None] * self.volume(log_scale).exp()
