"""MONAI dictionary transforms that make training pairs, over :mod:`bundle.simulation`, intensity and geometry."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from .geometry import apply_axes, resample
from .intensity import fit_intensity
from .neighbourhood import cells_around, pad_view, shift_cells
from .networks.context import CELL, coarse_view, view_step
from .networks.super_resolver import encode_condition
from .simulation.acquisition import Acquisition, acquisition_matrix, bias_field, ghost
from .simulation.protocol import IMAGE
from .simulation.rendering import prepare_map
from .simulation.tissues import to_classes

UNKNOWN = 255  # tissue that no label map says


class PrepareSourced(MapTransform):
    """Make a loaded training volume small and ready: a sharp image normalised, a label map as fine tissue classes.

    What it is stands in the item under ``kind``: ``sharp`` (float16 out) or ``label_map`` (uint8 out, in voxels half
    as large, see :mod:`bundle.simulation.rendering`). Under ``head`` comes the whole of it, small: the coarse view of
    an image, every fourth voxel of the fine classes; under ``step`` how many voxels go along the side of one of these.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            volume = item[key]
            name = str(volume.meta.get("filename_or_obj", key)) if isinstance(volume, MetaTensor) else str(key)
            plain = torch.as_tensor(np.asarray(volume))
            if item.get("kind", "sharp") == "label_map":
                item[key] = prepare_map(to_classes(plain, name)[0], volume_spacing(volume))[None]
                item["head"], item["step"] = item[key][:, ::4, ::4, ::4].clone(), 4
            else:
                normalised = fit_intensity(plain, name).normalise(plain.float())
                item[key], item["head"] = normalised.half(), coarse_view(normalised[None])[0]
                item["step"] = view_step(normalised)
        return item


def volume_spacing(volume: Tensor) -> tuple[float, float, float]:
    """Voxel size in mm of a MetaTensor, 1 mm for a plain tensor."""
    return tuple(float(s) for s in volume.pixdim) if isinstance(volume, MetaTensor) else (1.0, 1.0, 1.0)


class RandHeadCropd(Randomizable, MapTransform):
    """Cubic crop whose centre lies in the head, found by looking for a voxel that is not background.

    Volumes shorter than the crop on an axis are mirrored at their edge. Writes ``centre``, where the crop's middle
    lies, in voxels from the corner of the volume.

    Args:
        sizes: side of the crop for every ``kind`` of volume.
        tries: places looked at before background is accepted.
    """

    def __init__(self, keys: KeysCollection, sizes: Mapping[str, int], tries: int = 10) -> None:
        super().__init__(keys)
        self.sizes, self.tries = dict(sizes), tries

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            volume = item[key]
            for _ in range(self.tries):
                centre = [self.R.randint(n) for n in volume.shape[-3:]]
                if volume[(0, *centre)] > 0.1:
                    break
            size = self.sizes[item.get("kind", "sharp")]
            starts = [
                min(max(c - size // 2, 0), max(n - size, 0)) for n, c in zip(volume.shape[-3:], centre, strict=True)
            ]
            item[key], item["centre"] = self._crop(volume, starts, size), [s + size / 2 for s in starts]
        return item

    def _crop(self, volume: Tensor, starts: Sequence[int], size: int) -> Tensor:
        for axis, (n, start) in enumerate(zip(volume.shape[-3:], starts, strict=True), start=1):
            volume = volume.narrow(axis, start, min(size, n))
            if n < size:
                index = np.arange(size) % (2 * n)
                volume = volume.index_select(axis, torch.from_numpy(np.where(index < n, index, 2 * n - 1 - index)))
        return volume


class RandCutd(Randomizable, MapTransform):
    """Set a part of a sharp crop to zero, along a smooth surface: the hard edge of a skull-stripped volume.

    Args:
        keys: (1, n, n, n).
        prob: share of crops that are cut.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.15) -> None:
        super().__init__(keys)
        self.prob = prob

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            if item.get("kind", "sharp") == "sharp" and self.R.rand() < self.prob:
                coefficients = torch.from_numpy(self.R.normal(0, 1, (4, 4, 4)).astype(np.float32))
                field = bias_field(item[key].shape[1:], coefficients)
                item[key] = item[key] * (field > field.median() * self.R.uniform(0.5, 1.2))
        return item


class RandAcquired(Randomizable, MapTransform):
    """Make a training pair of one sharp crop.

    Draws an acquisition (factors, point-spread function, noise), the contrast and shading that both volumes share,
    flips and axis permutations; writes

    - ``image``: (1, size, size, size), the acquired crop back on the sharp grid by cubic interpolation,
    - ``label``: (1, size, size, size), the sharp crop: of the same contrast, or at 7 T where the item holds the low
      field's view of it under ``low``,
    - ``condition``: (6,), see :func:`bundle.networks.super_resolver.encode_condition`,
    - ``context``: (1, 64, 64, 64), the coarse view of the whole head, air around it,
    - ``cells``: (1, n, n, n), the surround of the crop, see :mod:`bundle.neighbourhood`,
    - ``tissue``: (1, size, size, size) uint8, index into ``GROUPS``, :data:`UNKNOWN` where no label map says it,
    - ``level``: () how bright white matter is at 7 T, in the units of ``image``; NaN where that is unknown.

    The crop that comes in is larger than ``size``: what lies outside feeds the point-spread function at the border,
    or is used to shrink the crop, so that one volume teaches several voxel sizes.

    Args:
        keys: the sharp volume.
        size: side of the pair.
        margin: voxels on each side that feed the border.
        factors: largest factors in plane and through plane.
        width: range of the point-spread function's full width at half maximum, in low-resolution voxels.
        noise: largest noise standard deviation, relative to bright tissue.
        turn: permute axes and flip; False mirrors left and right only, for what has to know up from down.
        fixed: factor of a fixed acquisition without augmentation (for validation), or None.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: int,
        margin: int = 16,
        factors: tuple[float, float] = (4.0, 8.0),
        width: tuple[float, float] = IMAGE["width"],
        noise: float = 0.05,
        turn: bool = True,
        fixed: float | None = None,
    ) -> None:
        super().__init__(keys)
        self.size, self.margin, self.factors, self.width, self.noise = size, margin, factors, width, noise
        self.turn, self.fixed = turn, fixed

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        modality, kind = item.get("modality", "other"), item.get("kind", "sharp")
        sharp = item[self.keys[0]].float()
        if min(sharp.shape[1:]) < self.size + 2 * self.margin:
            need = f"size {self.size} + 2 x margin {self.margin}"
            raise ValueError(f"crop of {tuple(sharp.shape[1:])} voxels is smaller than {need}")
        contrast = "7T" if "low" in item else "input"
        views = torch.stack([item["low"].float() if "low" in item else sharp, sharp])
        views, voxel = self._shrink(views, kind, item.get("voxel", 1.0))
        tissue = self._inner(item["tissue"])[None] if "tissue" in item else None
        tissue = torch.full_like(views[:1], UNKNOWN, dtype=torch.uint8) if tissue is None else tissue
        head, step = item["head"].float(), item["step"]
        centre = item.get("centre", [n * step / 2 for n in head.shape[1:]])
        cells = cells_around(head, step, centre, voxel, self.size)[None]
        acquisition, factors = Acquisition(noise=0.01), [self.fixed] * 3
        generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        if self.fixed is None:
            views, tissue, cells = self._turn(views, tissue, cells)
            if contrast == "input":
                views, head, cells = self._restain(views, head, cells)
            views = self._scan(views, item, voxel)
            acquisition, factors = self._draw()
            modality = modality if contrast == "7T" or self.R.rand() < 0.8 else "other"
        low_shape = [max(4, round(n / f)) for n, f in zip(views.shape[2:], factors, strict=True)]
        low = acquisition(views[0], low_shape, generator)
        if contrast == "7T" and self.R.rand() < IMAGE["ghost_share"]:
            low = ghost(low, int(self.R.randint(3)), float(self.R.uniform(*IMAGE["ghost"])), int(self.R.randint(2, 9)))
        true_factors = [n / m for n, m in zip(views.shape[2:], low_shape, strict=True)]
        volumes = [resample(low, views.shape[2:]), views[1], tissue[0]]
        half = min(self.margin // 2, CELL)
        shift = [0 if self.fixed else int(self.R.randint(-half, half + 1)) for _ in range(3)]
        volumes += self._maps(volumes[0], item, voxel)
        for axis, voxels in enumerate(shift, start=1):
            volumes = [volume.narrow(axis, self.margin + voxels, self.size) for volume in volumes]
        image, label, tissue, *maps = (volume.contiguous() for volume in volumes)
        return {
            **{"image": image, "label": label, "tissue": tissue, "context": pad_view(head)},
            **dict(zip(("fields",), maps, strict=False)),
            "cells": shift_cells(cells[0], shift),
            "condition": encode_condition(contrast, modality, true_factors),
            "level": torch.as_tensor(item.get("level", float("nan"))),
        }

    def _inner(self, volume: Tensor) -> Tensor:
        """The middle of a crop, with its margin."""
        inner, n = self.size + 2 * self.margin, volume.shape[-1]
        middle = slice((n - inner) // 2, (n - inner) // 2 + inner)
        return volume[..., middle, middle, middle]

    def _shrink(self, views: Tensor, kind: str, voxel: float) -> tuple[Tensor, float]:
        """Half the time, use the whole crop of an image at a coarser voxel size; else its middle."""
        inner, n = self.size + 2 * self.margin, views.shape[-1]
        if self.fixed is None and kind == "sharp" and self.R.rand() < 0.5:
            matrix = acquisition_matrix(n, inner, "gaussian", 0.7)
            return apply_axes(views, [matrix] * 3), voxel * n / inner
        return (views if self.fixed is not None else self._inner(views)), voxel

    def _turn(self, *volumes: Tensor) -> list[Tensor]:
        """Flips and axis permutations, the same for all."""
        axes = [2 + int(a) for a in self.R.permutation(3)] if self.turn else [2, 3, 4]
        flips = [a for a in ((2, 3, 4) if self.turn else (2,)) if self.R.rand() < 0.5]
        return [volume.permute(0, 1, *axes).flip(flips) for volume in volumes]

    def _restain(self, *volumes: Tensor) -> list[Tensor]:
        """Gain and gamma, the same for all."""
        gain, gamma = float(np.exp(self.R.uniform(-0.35, 0.2))), float(np.exp(self.R.uniform(-0.4, 0.4)))
        return [gain * volume.sign() * volume.abs() ** gamma for volume in volumes]

    def _shading(self, shape: Sequence[int]) -> Tensor:
        return bias_field(shape, torch.from_numpy(self.R.normal(0, IMAGE["bias"][1], (3, 3, 3)).astype(np.float32)))

    def _scan(self, views: Tensor, item: Mapping[Hashable, object], voxel: float) -> Tensor:
        """What the scanner does to both views besides blurring and noise: the same shading."""
        return views * self._shading(views.shape[2:])

    def _maps(self, image: Tensor, item: Mapping[Hashable, object], voxel: float) -> list[Tensor]:
        """Guidance maps of the interpolated image, where a subclass has some."""
        return []

    def _draw(self) -> tuple[Acquisition, tuple[float, ...]]:
        """Factors (isotropic, thick-slice, or free) and acquisition."""
        plane, through = self.factors
        kind = self.R.choice(4, p=(0.25, 0.35, 0.25, 0.15))
        if kind == 0:
            factors = [float(np.exp(self.R.uniform(np.log(1.5), np.log(3))))] * 3
        elif kind == 1:
            factors = [2.0] * 3
        else:
            factors = [1.0 if kind == 2 else float(self.R.uniform(1, plane / 2)) for _ in range(3)]
            factors[self.R.randint(3)] = float(np.exp(self.R.uniform(np.log(1.5), np.log(through))))
        if self.R.rand() < 0.1:
            factors = [float(self.R.uniform(1, plane)) for _ in range(3)]
        width = tuple(float(w) for w in self.R.uniform(*self.width, 3))
        noise = float(self.noise * self.R.rand() ** 2)
        return Acquisition(width=width, noise=noise), tuple(factors)
