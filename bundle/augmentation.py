"""MONAI dictionary transforms that make training pairs, over :mod:`bundle.simulation`, intensity and geometry."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor
from torch.nn import functional as F

from .geometry import apply_axes, resample
from .intensity import fit_intensity
from .networks.super_resolver import encode_condition
from .simulation.acquisition import Acquisition, acquisition_matrix, bias_field
from .simulation.tissues import CLASSES, to_classes


class PrepareSourced(MapTransform):
    """Make a loaded training volume small and ready: a sharp image normalised, a label map as tissue classes.

    What it is stands in the item under ``kind``: ``sharp`` (float16 out) or ``label_map`` (uint8 out).
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
                item[key] = to_classes(plain, name)
            else:
                item[key] = fit_intensity(plain, name).normalise(plain.float()).half()
        return item


class RandHeadCropd(Randomizable, MapTransform):
    """Cubic crop whose centre lies in the head, found by looking for a voxel that is not background.

    Volumes shorter than the crop on an axis are mirrored at their edge.

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
            item[key] = self._crop(volume, centre, self.sizes[item.get("kind", "sharp")])
        return item

    def _crop(self, volume: Tensor, centre: Sequence[int], size: int) -> Tensor:
        for axis, (n, c) in enumerate(zip(volume.shape[-3:], centre, strict=True), start=1):
            start = min(max(c - size // 2, 0), max(n - size, 0))
            volume = volume.narrow(axis, start, min(size, n))
            if n < size:
                index = np.arange(size) % (2 * n)
                volume = volume.index_select(axis, torch.from_numpy(np.where(index < n, index, 2 * n - 1 - index)))
        return volume


class RandRenderd(Randomizable, MapTransform):
    """Turn a crop of tissue classes into a sharp volume of random contrast; leave images as they are.

    Every class gets a random mean: half the time in the order of a T1-weighted or T2-weighted scan, half the time
    freely. Texture is smooth noise within tissue, partial volume a small blur of the borders. Some volumes are then
    cut down to the brain, as skull-stripping tools leave them: with a hard edge.

    Args:
        texture: largest standard deviation of the texture, relative to white matter.
        blur: range of the blur's full width at half maximum in voxels.
        stripped: share of volumes without skull.
    """

    BRAIN = ("GM", "WM", "pallidum", "brainstem", "choroid")
    ORDERS = {"T1w": {"CSF": 0.2, "GM": 0.6, "WM": 0.95}, "T2w": {"CSF": 0.95, "GM": 0.55, "WM": 0.35}}

    def __init__(
        self,
        keys: KeysCollection,
        texture: float = 0.06,
        blur: tuple[float, float] = (1.4, 2.4),
        stripped: float = 0.3,
    ) -> None:
        super().__init__(keys)
        self.texture, self.blur, self.stripped = texture, blur, stripped

    def means(self, modality: str) -> np.ndarray:
        """A mean per class."""
        means = self.R.uniform(0, 1, len(CLASSES))
        if modality in self.ORDERS:
            for index, name in enumerate(CLASSES):
                tissue = next((t for t in ("CSF", "GM", "WM") if t in name), None)
                tissue = {"brainstem": "WM", "pallidum": "WM", "spinal cord": "WM"}.get(name, tissue)
                if tissue:
                    means[index] = self.ORDERS[modality][tissue] + self.R.normal(0, 0.06)
        means[CLASSES.index("background")] = 0
        means[CLASSES.index("compact bone")] *= 0.2
        return means

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        if item.get("kind") != "label_map":
            return item
        item["modality"] = ("T1w", "T2w", "other", "other")[self.R.randint(4)]
        for key in self.key_iterator(item):
            volume = torch.from_numpy(self.means(item["modality"]).astype(np.float32))[item[key].long()]
            n = volume.shape[-1]
            noise = torch.from_numpy(self.R.standard_normal((1, n, n, n)).astype(np.float32))
            texture = _blur(noise, self.R.uniform(1, 3))
            amplitude = self.R.uniform(0, self.texture) / texture.std().clamp_min(1e-6)
            volume = torch.where(item[key] > 0, volume + amplitude * texture, volume)
            volume = _blur(volume, self.R.uniform(*self.blur)).clamp_min(0)
            item[key] = volume * self._brain(item[key]) if self.R.rand() < self.stripped else volume
        return item

    def _brain(self, classes: Tensor) -> Tensor:
        """Brain tissue and the fluid that a closing by a few voxels takes in."""
        wanted = torch.tensor([float(any(word in name for word in self.BRAIN)) for name in CLASSES])
        grow, shrink = int(self.R.randint(2, 5)), int(self.R.randint(1, 4))
        grown = F.max_pool3d(wanted[classes.long()], 2 * grow + 1, stride=1, padding=grow)
        return 1 - F.max_pool3d(1 - grown, 2 * shrink + 1, stride=1, padding=shrink)


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
    - ``label``: (1, size, size, size), the sharp crop,
    - ``condition``: (6,), see :func:`bundle.networks.super_resolver.encode_condition`.

    The crop that comes in is larger than ``size``: what lies outside feeds the point-spread function at the border,
    or is used to shrink the crop, so that one volume teaches several voxel sizes.

    Args:
        keys: the sharp volume.
        size: side of the pair.
        margin: voxels on each side that feed the border.
        factors: largest factors in plane and through plane.
        width: range of the point-spread function's full width at half maximum, in low-resolution voxels.
        noise: largest noise standard deviation, relative to bright tissue.
        fixed: factor of a fixed acquisition without augmentation (for validation), or None.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: int,
        margin: int = 16,
        factors: tuple[float, float] = (4.0, 8.0),
        width: tuple[float, float] = (0.8, 1.25),
        noise: float = 0.05,
        fixed: float | None = None,
    ) -> None:
        super().__init__(keys)
        self.size, self.margin, self.factors, self.width, self.noise = size, margin, factors, width, noise
        self.fixed = fixed

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        modality = item.get("modality", "other")
        sharp = item[self.keys[0]].float()
        if min(sharp.shape[1:]) < self.size + 2 * self.margin:
            need = f"size {self.size} + 2 x margin {self.margin}"
            raise ValueError(f"crop of {tuple(sharp.shape[1:])} voxels is smaller than {need}")
        acquisition, factors = Acquisition(noise=0.01), [self.fixed] * 3
        generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        if self.fixed is None:
            sharp = self._vary(self._shrink(sharp, item.get("kind", "sharp")))
            acquisition, factors = self._draw()
            modality = modality if self.R.rand() < 0.8 else "other"
        low_shape = [max(4, round(n / f)) for n, f in zip(sharp.shape[1:], factors, strict=True)]
        low = acquisition(sharp, low_shape, generator)
        true_factors = [n / m for n, m in zip(sharp.shape[1:], low_shape, strict=True)]
        pair = torch.stack([resample(low, sharp.shape[1:]), sharp])
        half = self.margin // 2
        for axis in (2, 3, 4):
            start = self.margin if self.fixed else half + int(self.R.randint(2 * half + 1))
            pair = pair.narrow(axis, start, self.size)
        item["image"], item["label"] = pair.contiguous().unbind(0)
        item["condition"] = encode_condition("input", modality, true_factors)
        return {key: item[key] for key in ("image", "label", "condition")}

    def _shrink(self, sharp: Tensor, kind: str) -> Tensor:
        """Half the time, use the whole crop at a coarser voxel size; else its middle."""
        inner, n = self.size + 2 * self.margin, sharp.shape[-1]
        if kind == "sharp" and self.R.rand() < 0.5:
            matrix = acquisition_matrix(n, inner, "gaussian", 0.7)
            return apply_axes(sharp, [matrix] * 3)
        start = (n - inner) // 2
        return sharp[:, start : start + inner, start : start + inner, start : start + inner]

    def _vary(self, sharp: Tensor) -> Tensor:
        """Flips, axis permutations, gamma, gain and shading, for input and target alike."""
        axes = [1 + int(a) for a in self.R.permutation(3)]
        sharp = sharp.permute(0, *axes).flip([a for a in (1, 2, 3) if self.R.rand() < 0.5])
        gain = float(np.exp(self.R.uniform(-0.35, 0.2)))
        sharp = gain * sharp.sign() * sharp.abs() ** float(np.exp(self.R.uniform(-0.4, 0.4)))
        coefficients = torch.from_numpy(self.R.normal(0, 0.08, (3, 3, 3)).astype(np.float32))
        return sharp * bias_field(sharp.shape[1:], coefficients)

    def _draw(self) -> tuple[Acquisition, tuple[float, ...]]:
        """Factors (isotropic, thick-slice, or free) and acquisition."""
        plane, through = self.factors
        kind = self.R.choice(4, p=(0.35, 0.15, 0.3, 0.2))
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


def _blur(volume: Tensor, fwhm: float) -> Tensor:
    """Gaussian blur of (1, n, n, n) with ``fwhm`` in voxels."""
    n = volume.shape[-1]
    offset = np.arange(n)[None] - np.arange(n)[:, None]
    weights = np.exp(-4 * np.log(2) * (offset / fwhm) ** 2)
    matrix = torch.from_numpy((weights / weights.sum(1, keepdims=True)).astype(np.float32))
    return apply_axes(volume, [matrix] * 3)
