"""The whole network: latent, denoiser and the slots for anatomy prior and intensity modulation."""

import os
import pickle
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffusion import clean_from_velocity, sampling_times, step
from ..errors import InputError
from .denoiser import Denoiser
from .latent import HaarLatent

CONTRASTS = ("input", "7T")
MODALITIES = ("other", "T1w", "T2w")
CONDITION_SIZE = 6  # 7 T?, T1w?, T2w?, log2 of the three factors

# widths per scale and residual blocks per scale
SIZES = {
    "small": ((16, 32, 64), (1, 1, 2)),
    "student": ((32, 64, 128), (1, 1, 2)),
    "teacher": ((64, 128, 256), (1, 2, 4)),
}


def encode_condition(contrast: str, modality: str, factors: Sequence[float]) -> Tensor:
    """Condition vector of shape (6,).

    Args:
        contrast: wanted, ``input`` or ``7T``.
        modality: of the input, ``T1w``, ``T2w`` or ``other``.
        factors: input spacing over target spacing per axis.
    """
    if contrast not in CONTRASTS or modality not in MODALITIES:
        raise ValueError(f"contrast {contrast!r} of {CONTRASTS}, modality {modality!r} of {MODALITIES}")
    flags = [float(contrast == "7T"), float(modality == "T1w"), float(modality == "T2w")]
    return torch.cat([torch.tensor(flags), torch.log2(torch.tensor([float(f) for f in factors]))])


class SuperResolver(nn.Module):
    """Conditional latent diffusion of the residual between a sharp volume and its interpolated low-resolution input.

    The residual's latent is divided, subband by subband, by its standard deviation over the training set
    (``residual_std``), so that every subband counts the same.

    Args:
        size: row of :data:`SIZES`.
        factors: of the condition that :meth:`forward` assumes.
    """

    def __init__(self, size: str = "student", factors: Sequence[float] = (2.0, 2.0, 2.0)) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"size {size!r}: one of {', '.join(SIZES)}")
        widths, blocks = SIZES[size]
        self.latent = HaarLatent()
        self.denoiser = Denoiser(self.latent.channels, widths, blocks, condition_size=CONDITION_SIZE)
        self.multiple = self.latent.factor * 2 ** (len(widths) - 1)  # sides of a tile are multiples of this
        shape = (len(CONTRASTS), len(MODALITIES), self.latent.channels)
        self.register_buffer("residual_std", torch.ones(shape))
        self.register_buffer("default_condition", encode_condition("input", "other", factors), persistent=False)

    @torch.jit.export
    def std(self, condition: Tensor) -> Tensor:
        """Standard deviation of the residual's subbands for the given condition, (B, 8, 1, 1, 1)."""
        contrast = condition[:, 0].long()
        modality = (condition[:, 1] + 2 * condition[:, 2]).long()
        return self.residual_std[contrast, modality][:, :, None, None, None]

    @torch.jit.export
    def encode_residual(self, low_res: Tensor, high_res: Tensor, condition: Tensor) -> Tensor:
        """z_0: the normalised latent of ``high_res - low_res``."""
        return self.latent.encode(high_res - low_res) / self.std(condition)

    @torch.jit.export
    def decode_residual(self, low_res: Tensor, clean: Tensor, condition: Tensor) -> Tensor:
        """Image of a normalised latent residual, on top of ``low_res``."""
        return low_res + self.latent.decode(clean * self.std(condition))

    @torch.jit.export
    def context(self, low_res: Tensor) -> Tensor:
        """What the whole head tells every tile, computed once per head.

        Args:
            low_res: (B, 1, D, H, W), the whole input on the target grid.

        Returns:
            (B, 0): this network has no branch that looks at the whole head.
        """
        return low_res.new_zeros((low_res.shape[0], 0))

    @torch.jit.export
    def velocity(self, tile: Tensor, noisy: Tensor, t: Tensor, context: Tensor, condition: Tensor) -> Tensor:
        """Velocity for a tile of ``low_res`` (B, 1, D, H, W) and its noisy latent (B, 8, D/2, H/2, W/2)."""
        return self.denoiser(noisy, self.latent.encode(tile), t, condition)

    @torch.jit.export
    def sample(self, tile: Tensor, context: Tensor, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
        """Super-resolve a tile in ``steps`` denoising steps from ``noise`` at t = 1 (zero noise: the mean).

        Args:
            tile: (B, 1, D, H, W), ``low_res``, sides multiples of ``self.multiple``.
            context: of the whole head, from :meth:`context`.
            noise: (B, 8, D/2, H/2, W/2).
            condition: (B, 6).
            steps: 1 or more.
        """
        times = sampling_times(steps)
        z = noise
        for i in range(steps):
            t = torch.full([tile.shape[0]], times[i], device=tile.device)
            v = self.velocity(tile, z, t, context, condition).to(tile.dtype)
            clean = clean_from_velocity(z, v, t)
            z = step(z, clean, t, torch.full_like(t, times[i + 1]))
        return self.decode_residual(tile, z, condition)

    def forward(self, image: Tensor) -> Tensor:
        """Sharpen a whole volume in one step at temperature 0, for the condition the network was built with.

        Args:
            image: (B, 1, D, H, W), the input resampled onto the target grid and normalised; any size.
        """
        d, h, w = image.shape[2], image.shape[3], image.shape[4]
        m = self.multiple
        padding = [0, (m - w % m) % m, 0, (m - h % m) % m, 0, (m - d % m) % m]
        tile = F.pad(image, padding, mode="replicate")
        condition = self.default_condition[None].expand(image.shape[0], -1)
        noise = torch.zeros_like(self.latent.encode(tile))
        return self.sample(tile, self.context(tile), noise, condition, 1)[:, :, :d, :h, :w]


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Plain tensors by name.

    Raises:
        InputError: no such file, or not weights.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the weights belong there, they come with the repository") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: these are not weights; fetch the file again") from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: these are not weights; fetch the file again")
    return state


def start_from(network: SuperResolver, weights: str | os.PathLike | None) -> SuperResolver:
    """The network with the weights of a file (half or single precision), or as it is when that is None.

    Raises:
        InputError: no such file, or not the weights of this network.
    """
    if weights is not None:
        try:
            network.load_state_dict(read_weights(weights))
        except RuntimeError as error:
            raise InputError(f"{weights}: these are not the weights of this network") from error
    return network


def load_super_resolver(path: str | os.PathLike, size: str = "student") -> SuperResolver:
    """A SuperResolver with the weights of a file, in evaluation mode; errors as in :func:`start_from`."""
    return start_from(SuperResolver(size), path).eval()
