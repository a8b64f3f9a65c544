"""The whole network: latent, anatomy prior, intensity modulation, denoiser."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffusion import clean_from_prediction, sampling_times, start_time, step
from .anatomy import TISSUES, AnatomyExtractor
from .context import coarse_view, surround
from .denoiser import Denoiser
from .experts import MixtureDenoiser
from .gate import TOKEN, WINDOW
from .latent import LATENTS
from .modulation import IntensityModulator
from .scale import ScaleHead

CONTRASTS = ("input", "7T")
MODALITIES = ("other", "T1w", "T2w")
PREDICTIONS = ("v", "epsilon", "sample")
FIELDS = ("correction", "log_bias", "log_jacobian")  # guidance maps, see :mod:`bundle.guidance`; all 0: none
CONDITION_SIZE = 6  # 7 T?, T1w?, T2w?, log2 of the three factors

# widths per scale and residual blocks per scale
SIZES = {
    "small": ((16, 32, 64), (1, 1, 2)),
    "experts": ((16, 32, 52), (1, 1, 2)),  # with its experts as many parameters as "small" without
    "student": ((32, 64, 128), (1, 1, 2)),
    "teacher": ((48, 96, 192), (1, 1, 2)),
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
    (``residual_std``), so that every subband counts the same. ``spread_scale`` turns the spread of samples into an
    uncertainty that covers the errors, per contrast and modality. ``width_rule`` says how the width of a scan's
    point-spread function follows from the network's result, see :func:`bundle.consistency.assumed_width`; a network of
    which that was not measured has zeros, and one voxel is assumed.

    Args:
        size: row of :data:`SIZES`.
        factors: of the condition that :meth:`forward` assumes.
        prior: whether the denoiser sees the anatomy prior; the extractor is trained by itself and frozen here.
        modulation: whether the denoiser's features are scaled and shifted by the intensity modulation.
        prior_dropout: share of training examples that see no prior.
        prediction: what the denoiser says: ``v``, ``epsilon`` (the noise; it has no temperature 0) or ``sample``.
        uncertainty: whether a head tells in the same step how large the error is likely to be.
        latent: ``haar``, or ``autoencoder``: learned, trained by itself and frozen here.
        experts: whether a mixture of experts stands in the denoiser's place.
        routing: threshold of their sparse routing, see :class:`bundle.networks.experts.MixtureDenoiser`.
        guided: whether the denoiser sees guidance maps, :data:`FIELDS`, where it would see the prior.
        guidance_dropout: share of training examples that see no guidance maps.
    """

    def __init__(
        self,
        size: str = "student",
        factors: Sequence[float] = (2.0, 2.0, 2.0),
        prior: bool = False,
        modulation: bool = False,
        prior_dropout: float = 0.1,
        prediction: str = "v",
        latent: str = "haar",
        uncertainty: bool = False,
        experts: bool = False,
        routing: float = 0.0,
        guided: bool = False,
        guidance_dropout: float = 0.15,
    ) -> None:
        super().__init__()
        if size not in SIZES or prediction not in PREDICTIONS:
            raise ValueError(f"size {size!r} of {', '.join(SIZES)}, prediction {prediction!r} of {PREDICTIONS}")
        widths, blocks = SIZES[size]
        self.latent = LATENTS[latent]().requires_grad_(False)
        channels = self.latent.channels
        prior_channels = (channels + len(TISSUES) if prior else 0) + (channels + len(FIELDS) - 1 if guided else 0)
        parts = (channels, widths, blocks, prior_channels, CONDITION_SIZE)
        self.denoiser = MixtureDenoiser(*parts, threshold=routing) if experts else Denoiser(*parts)
        self.anatomy = AnatomyExtractor().requires_grad_(False) if prior else None
        self.modulator = IntensityModulator(channels, widths) if modulation else None
        self.scale_head = ScaleHead(widths[0], channels, len(CONTRASTS), len(MODALITIES)) if uncertainty else None
        self.split = 0 if self.anatomy is None else self.anatomy.context_size  # where the context's two vectors meet
        self.prior_dropout, self.prediction = prior_dropout, prediction
        self.guided, self.guidance_dropout, self.field_count = guided, guidance_dropout, len(FIELDS)
        self.multiple = self.latent.factor * 2 ** (len(widths) - 1)  # sides of a tile are multiples of this
        self.tile_step = self.latent.factor * TOKEN * WINDOW if experts else 8  # corners of tiles are multiples of this
        self.framed = not (prior or experts or guided)  # inference frames the head; these learnt it as scans show it
        # activations, measured on the student with a margin of 1.5; the prior's probabilities are at full resolution
        self.bytes_per_voxel = (6 if experts else 3) * widths[0] + (16 * len(TISSUES) if prior else 0)
        shape = (len(CONTRASTS), len(MODALITIES), channels)
        self.register_buffer("residual_std", torch.ones(shape))
        self.register_buffer("spread_scale", torch.ones(shape[:2]))
        self.register_buffer("width_rule", torch.zeros(2))
        self.register_buffer("default_condition", encode_condition("input", "other", factors), persistent=False)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *others: Any) -> None:
        state.setdefault(f"{prefix}width_rule", torch.zeros(2))  # weights of before 0.11.0 have none
        super()._load_from_state_dict(state, prefix, *others)

    @torch.jit.export
    def std(self, condition: Tensor) -> Tensor:
        """Standard deviation of the residual's subbands for the given condition, (B, 8, 1, 1, 1)."""
        contrast = condition[:, 0].long()
        modality = (condition[:, 1] + 2 * condition[:, 2]).long()
        return self.residual_std[contrast, modality][:, :, None, None, None]

    @torch.jit.export
    def calibrate(self, spread: Tensor, condition: Tensor) -> Tensor:
        """The uncertainty that a spread of samples (B, 1, D, H, W) means, see :mod:`bundle.calibration`."""
        scale = self.spread_scale[condition[:, 0].long(), (condition[:, 1] + 2 * condition[:, 2]).long()]
        return scale[:, None, None, None, None] * spread

    @torch.jit.export
    def encode_residual(self, low_res: Tensor, high_res: Tensor, condition: Tensor) -> Tensor:
        """z_0: the normalised latent of ``high_res - low_res``."""
        return self.latent.residual(low_res, high_res) / self.std(condition)

    @torch.jit.export
    def decode_residual(self, low_res: Tensor, clean: Tensor, condition: Tensor) -> Tensor:
        """Image of a normalised latent residual, on top of ``low_res``."""
        return self.latent.apply_residual(low_res, clean * self.std(condition))

    @torch.jit.export
    def context(self, volume: Tensor) -> Tensor:
        """What the whole head tells every tile, computed once per head.

        Args:
            volume: (B, 1, D, H, W), the whole input on the target grid, or a coarse view of it.

        Returns:
            (B, n): the vectors of the anatomy extractor and of the modulation; n is 0 without them.
        """
        view = coarse_view(volume)
        parts = [volume.new_zeros((volume.shape[0], 0))]
        if self.anatomy is not None:
            parts.append(self.anatomy.encoder(view))
        if self.modulator is not None:
            parts.append(self.modulator.encoder(view))
        return torch.cat(parts, dim=1)

    @torch.jit.export
    def guidance(
        self, tile: Tensor, cells: Tensor | None, context: Tensor, condition: Tensor, fields: Tensor | None = None
    ) -> tuple[Tensor | None, list[Tensor] | None]:
        """Prior (B, n, d, h, w), at the latent's size, and modulation maps of a tile: the same for every step."""
        parts: list[Tensor] = []
        maps: list[Tensor] | None = None
        if self.anatomy is not None:
            cells = surround(tile) if cells is None else cells
            template, tissue = self.anatomy(tile, cells, context[:, : self.split], condition)
            prior = torch.cat([self.latent.encode(template.to(tile.dtype)), F.avg_pool3d(tissue, 2).to(tile.dtype)], 1)
            parts.append(self._drop(prior, self.prior_dropout))
        if self.guided:
            parts.append(self._drop(self._encode_fields(tile, fields), self.guidance_dropout))
        if self.modulator is not None:
            maps = self.modulator(self.latent.encode(tile), context[:, self.split :], condition)
        return torch.cat(parts, 1) if len(parts) > 0 else None, maps

    def _drop(self, maps: Tensor, share: float) -> Tensor:
        """In training, the maps of a share of the examples set to zero."""
        if not self.training:
            return maps
        return maps * (torch.rand(maps.shape[0], 1, 1, 1, 1, device=maps.device) >= share)

    def _encode_fields(self, tile: Tensor, fields: Tensor | None) -> Tensor:
        """Guidance maps (B, 3, D, H, W) at the latent's size: the correction as a latent, the smooth ones averaged."""
        if fields is None:
            fields = torch.zeros_like(tile).repeat(1, self.field_count, 1, 1, 1)
        return torch.cat([self.latent.encode(fields[:, :1]), F.avg_pool3d(fields[:, 1:], 2)], 1)

    @torch.jit.export
    def predict(
        self,
        tile: Tensor,
        noisy: Tensor,
        t: Tensor,
        context: Tensor,
        condition: Tensor,
        cells: Tensor | None = None,
        fields: Tensor | None = None,
    ) -> Tensor:
        """What the denoiser says of a tile and its noisy latent, (B, 8, D/2, H/2, W/2); see :meth:`sample`."""
        prior, maps = self.guidance(tile, cells, context, condition, fields)
        return self.denoiser(noisy, self.latent.encode(tile), t, condition, prior, maps)

    @torch.jit.export
    def predict_with_scale(
        self,
        tile: Tensor,
        noisy: Tensor,
        t: Tensor,
        context: Tensor,
        condition: Tensor,
        cells: Tensor | None = None,
        fields: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What :meth:`predict` says, and the log-scale of the error, see :class:`bundle.networks.scale.ScaleHead`."""
        prior, maps = self.guidance(tile, cells, context, condition, fields)
        low = self.latent.encode(tile)
        output, features = self.denoiser.both(noisy, low, t, condition, prior, maps)
        return output, torch.zeros_like(noisy) if self.scale_head is None else self.scale_head(features, low, output)

    @torch.jit.export
    def uncertainty(self, log_scale: Tensor, condition: Tensor) -> Tensor:
        """The uncertainty (B, 1, D, H, W) that the second result of :meth:`predict_with_scale` means, calibrated."""
        if self.scale_head is None:
            raise ValueError("this network has no head for its uncertainty")
        return self.scale_head.uncertainty(log_scale, condition)

    @torch.jit.export
    def clean(self, noisy: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The clean latent that an output of :meth:`predict` means."""
        return clean_from_prediction(self.prediction, noisy, output, t)

    @torch.jit.export
    def sample(
        self,
        tile: Tensor,
        context: Tensor,
        noise: Tensor,
        condition: Tensor,
        steps: int,
        cells: Tensor | None = None,
        fields: Tensor | None = None,
    ) -> Tensor:
        """Super-resolve a tile in ``steps`` denoising steps from ``noise`` at t = 1 (zero noise: the mean).

        Args:
            tile: (B, 1, D, H, W), ``low_res``, sides multiples of ``self.multiple``.
            context: of the whole head, from :meth:`context`.
            noise: (B, 8, D/2, H/2, W/2).
            condition: (B, 6).
            steps: 1 or more.
            cells: the tile's part of :func:`bundle.networks.context.surround`; None where the tile is the whole.
            fields: (B, 3, D, H, W), guidance maps of the tile, see :data:`FIELDS`; None: none. Networks that are not
                guided do without them.
        """
        times = sampling_times(steps, start_time(self.prediction))
        latent = self.latent.encode(tile)
        prior, maps = self.guidance(tile, cells, context, condition, fields)
        z = noise
        for i in range(steps):
            t = torch.full([tile.shape[0]], times[i], device=tile.device)
            output = self.denoiser(z, latent, t, condition, prior, maps).to(tile.dtype)
            z = step(z, self.clean(z, output, t), t, torch.full_like(t, times[i + 1]))
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
        return self.sample(tile, self.context(tile), noise, condition, 1, None, None)[:, :, :d, :h, :w]
