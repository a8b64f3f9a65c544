"""From a low-resolution volume on the target grid to samples of the sharp one, whole or in tiles."""

from collections.abc import Callable

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor
from torch.nn import functional as F

from .compute import autocast, free_memory
from .cropping import Box, content_box, framed, paste
from .diffusion import sampling_times, start_time, step
from .errors import InputError
from .geometry import apply_axes, gaussian_matrix
from .memory import with_smaller_tiles
from .networks.context import cut_surround, surround
from .tiles import TILE_STEP, ramp, tile_slices

_SMOOTHING = 3.0  # voxels, full width at half maximum: a few samples tell a variance badly, their neighbours help
_LEAST_SPREAD = 0.003  # of normalised intensity: no voxel is certain
TILE, RAN_OUT = "tile", "memory_ran_out"  # meta data of a result: side of its tiles, 0 for none; whether it fell back
WIDTH_RULE = "width_rule"  # likewise: the network's, for the projection


class SuperResolutionInferer(Inferer):
    """Few-step conditional diffusion of a whole volume.

    One noise field is drawn for the whole volume, and tiles are blended after every denoising step, so a tiled result
    is nearly that of the whole volume: what differs is what a tile cannot see beyond its margin. Padding around the
    head, of one value and without noise, stays as it is: half an overlap away from the head, the network is not run.

    Args:
        steps: denoising steps of a sample.
        samples: volumes drawn; the result is their mean.
        temperature: 0 gives the mean in one step; 1 samples; in between ``mean + temperature (sample - mean)``.
        seed: of the noise; sample ``k`` uses ``seed + k``.
        max_memory: bytes that activations may take; None for 80 % of what is free.
        tile: side of a tile in voxels; None chooses the whole volume, or what fits.
        overlap: voxels that neighbouring tiles share.
        uncertainty: whether a single sample comes with the uncertainty that the network's head predicts.
        amp: bf16 where it is fast.
    """

    def __init__(
        self,
        steps: int = 1,
        samples: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        max_memory: int | None = None,
        tile: int | None = None,
        overlap: int = 48,
        uncertainty: bool = False,
        amp: bool = True,
    ) -> None:
        super().__init__()
        if overlap < 8 or overlap % TILE_STEP or (tile is not None and (tile % TILE_STEP or tile <= overlap)):
            raise ValueError(f"tile {tile}, overlap {overlap}: multiples of 8, the tile larger than the overlap")
        self.steps, self.samples, self.temperature, self.seed = steps, samples, temperature, seed
        self.max_memory, self.tile, self.overlap, self.amp = max_memory, tile, overlap, amp
        self.uncertainty = uncertainty and samples == 1

    @torch.no_grad()
    def __call__(
        self,
        inputs: Tensor,
        network: torch.nn.Module,
        condition: Tensor | None = None,
        context: Tensor | None = None,
        cells: Tensor | None = None,
        fields: Tensor | None = None,
    ) -> Tensor:
        """Super-resolve ``inputs``.

        Args:
            inputs: (B, 1, D, H, W), resampled onto the target grid and normalised.
            network: a :class:`bundle.networks.super_resolver.SuperResolver`, scripted or not.
            condition: (B, 6), or None for what the meta data of ``inputs`` say, else the network's default.
            context: coarse view of the head (B, 1, d, h, w) that ``inputs`` is a part of; None where it is the whole,
                brought to one frame first (:func:`bundle.cropping.framed`) if the network was trained for that.
            cells: surround of that part, see :func:`bundle.networks.context.surround`; None where it is the whole.
            fields: (B, 3, D, H, W), guidance maps, see :data:`bundle.networks.super_resolver.FIELDS`; None: none.

        Returns:
            (B, 1, D, H, W), or (B, 2, D, H, W) when ``samples > 1`` or with ``uncertainty``: the mean, and the
            uncertainty, the smoothed deviation of the samples or what the head says, scaled as
            :mod:`bundle.calibration` found.

        The meta data of a MetaTensor say which tiles it became, and whether those came of memory that ran out; and
        the network's ``width_rule``.

        Raises:
            InputError: ``uncertainty`` of a single sample is asked of a network without the head, or the smallest tiles
                are too large for the memory.
        """
        if self.uncertainty and getattr(network, "scale_head", None) is None:
            raise InputError("this network tells no uncertainty in one step; draw samples (--samples 8) instead")
        draw = self.prepare(inputs, network, condition, context, cells, fields)
        first, shape = draw.tile, draw.volume.shape[2:]
        part, tile = with_smaller_tiles(lambda t: self._combine(draw.cut(t)), first, shape, 2 * self.overlap)
        pred = draw.whole(part)[(..., *(slice(n) for n in inputs.shape[2:]))]
        if not isinstance(inputs, MetaTensor):
            return pred
        told = {TILE: tile or 0, RAN_OUT: int(tile != first)}
        meta = {**inputs.meta, **{k: torch.full((len(pred),), v) for k, v in told.items()}}
        meta[WIDTH_RULE] = network.width_rule.cpu().expand(len(pred), 2)
        return MetaTensor(pred, meta=meta)

    def prepare(
        self,
        inputs: Tensor,
        network: torch.nn.Module,
        condition: Tensor | None,
        context: Tensor | None = None,
        cells: Tensor | None = None,
        fields: Tensor | None = None,
        crop: bool = True,
    ) -> "Draw":
        """Everything that the samples of a volume share; arguments as of the call, ``crop`` leaves padding out."""
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        padding = [v for n in reversed(image.shape[2:]) for v in (0, -n % network.multiple)]
        volume = F.pad(image, padding, mode="replicate")
        if condition is None:
            meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
            condition = torch.as_tensor(meta.get("condition", network.default_condition))
            condition = condition.reshape(-1, condition.shape[-1]).expand(image.shape[0], -1)
        if context is None:
            context = framed(image) if getattr(network, "framed", True) else image
        context = network.context(context.to(image))
        cells = surround(volume) if cells is None else torch.as_tensor(cells).to(volume)
        if fields is not None:
            fields = F.pad(torch.as_tensor(fields).to(image), padding, mode="replicate")
        grid = getattr(network, "tile_step", TILE_STEP)
        box = content_box(volume, self.overlap // 2, grid) if crop else tuple(slice(0, n) for n in volume.shape[2:])
        return Draw(self, network, volume, context, cells, torch.as_tensor(condition).to(image), box, fields)

    def _combine(self, draw: "Draw") -> Tensor:
        """Mean and spread of the samples; computed with running sums, so N samples need the memory of two."""
        centre, scale = draw.mean()
        if self.temperature == 0:
            return torch.cat([centre, scale], dim=1) if self.uncertainty else centre
        mean, square = torch.zeros_like(centre), torch.zeros_like(centre)
        for k in range(self.samples):
            delta = self.temperature * (draw(self.seed + k, self.steps) - centre)
            mean += delta / self.samples
            square += delta**2 / self.samples
        if self.samples == 1:
            return torch.cat([centre + mean, scale], dim=1) if self.uncertainty else centre + mean
        variance = (square - mean**2).clamp_min(0) * (self.samples / (self.samples - 1))
        window = [gaussian_matrix(n, n, _SMOOTHING).to(variance) for n in variance.shape[2:]]
        spread = apply_axes(variance, window).clamp_min(0).sqrt() + _LEAST_SPREAD
        return torch.cat([centre + mean, draw.network.calibrate(spread, draw.condition)], dim=1)

    def tiles(self, shape: tuple[int, ...], device: torch.device, bytes_per_voxel: int) -> int | None:
        """Side of the tiles for a volume of ``shape`` and activations of so many bytes a voxel, None for one tile."""
        if self.tile is not None:
            return None if max(shape) <= self.tile else self.tile
        budget = self.max_memory if self.max_memory is not None else int(0.8 * free_memory(device))
        if bytes_per_voxel * shape[0] * shape[1] * shape[2] <= budget:
            return None
        side = int((budget / bytes_per_voxel) ** (1 / 3)) // TILE_STEP * TILE_STEP
        return max(side, 2 * self.overlap)


class Draw:
    """Draws of one volume: everything that the samples share."""

    def __init__(
        self,
        inferer: SuperResolutionInferer,
        network: torch.nn.Module,
        volume: Tensor,
        context: Tensor,
        cells: Tensor,
        condition: Tensor,
        box: Box,
        fields: Tensor | None = None,
    ) -> None:
        self.inferer, self.network, self.context, self.condition = inferer, network, context, condition
        self.all, self.box = volume, box
        self.volume, self.cells = volume[(..., *box)], cut_surround(cells, box)
        self.fields = None if fields is None else fields[(..., *box)]
        self.tile = inferer.tiles(tuple(self.volume.shape[2:]), volume.device, network.bytes_per_voxel)
        self.noise_shape = (volume.shape[0], 8, *(n // 2 for n in volume.shape[2:]))  # one field for the whole volume
        self.inner = (..., *(slice(s.start // 2, s.stop // 2) for s in box))

    def whole(self, part: Tensor) -> Tensor:
        """The whole volume, with what was made of the part of it that holds anything."""
        return paste(self.all, self.box, part)

    def cut(self, tile: int | None) -> "Draw":
        """These draws in tiles of another side."""
        self.tile = tile
        return self

    def mean(self) -> tuple[Tensor, Tensor]:
        """The mean prediction, one step at temperature 0, and its uncertainty where that is wanted, else nothing."""
        z = self.volume.new_zeros((*self.noise_shape[:2], *(n // 2 for n in self.volume.shape[2:])))
        t = torch.full((z.shape[0],), start_time(self.network.prediction), device=z.device)
        both = self.blend(self._clean_and_scale if self.inferer.uncertainty else self._clean, z, t)
        image = self.network.decode_residual(self.volume, both[:, :8], self.condition)
        if not self.inferer.uncertainty:
            return image, image[:, :0]
        return image, self.network.uncertainty(both[:, 8:], self.condition)

    def __call__(self, seed: int, steps: int) -> Tensor:
        """One sample."""
        z = torch.randn(self.noise_shape, generator=torch.Generator().manual_seed(seed))
        z = z[self.inner].to(self.volume)
        times = sampling_times(steps, start_time(self.network.prediction))
        for now, then in zip(times[:-1], times[1:], strict=True):
            t, s = (torch.full((z.shape[0],), value, device=z.device) for value in (now, then))
            z = step(z, self.blend(self._clean, z, t), t, s)
        return self.network.decode_residual(self.volume, z, self.condition)

    def blend(self, predict: Callable[..., Tensor], z: Tensor, t: Tensor) -> Tensor:
        """What ``predict`` says of the volume and its noisy latent, (B, n, D / 2, H / 2, W / 2), blended over tiles."""
        if self.tile is None:
            return predict(self.volume, z, t, self.cells, self.fields)
        total, weight = z.new_zeros(()), torch.zeros_like(z[:1, :1])
        slices = tile_slices(
            tuple(self.volume.shape[2:]),
            self.tile,
            self.inferer.overlap,
            getattr(self.network, "tile_step", TILE_STEP),
        )
        for tile in slices:
            inner = tuple(slice(s.start // 2, s.stop // 2) for s in tile)
            fields = None if self.fields is None else self.fields[(..., *tile)]
            part = predict(self.volume[(..., *tile)], z[(..., *inner)], t, cut_surround(self.cells, tile), fields)
            believed = ramp(part.shape[2:], self.inferer.overlap // 2).to(part)
            if not total.ndim:
                total = part.new_zeros((*part.shape[:2], *z.shape[2:]))
            total[(..., *inner)] += believed * part
            weight[(..., *inner)] += believed
        return total / weight

    def _clean(self, tile: Tensor, z: Tensor, t: Tensor, cells: Tensor, fields: Tensor | None) -> Tensor:
        with autocast(z.device, self.inferer.amp):
            output = self.network.predict(tile, z, t, self.context, self.condition, cells, fields)
        return self.network.clean(z, output.float(), t)

    def _clean_and_scale(self, tile: Tensor, z: Tensor, t: Tensor, cells: Tensor, fields: Tensor | None) -> Tensor:
        with autocast(z.device, self.inferer.amp):
            output, scale = self.network.predict_with_scale(tile, z, t, self.context, self.condition, cells, fields)
        return torch.cat([self.network.clean(z, output.float(), t), scale.float()], dim=1)
