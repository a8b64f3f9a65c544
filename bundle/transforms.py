"""MONAI dictionary transforms of the main job: read, put on the target grid, and back to the units of the file."""

import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from .compute import free_memory
from .consistency import agree
from .errors import InputError
from .forecast import needed
from .geometry import Grid, default_spacing, resample, target_grid
from .inferer import RAN_OUT, TILE, WIDTH_RULE
from .intensity import Intensity, fit_intensity
from .io import name_parts, read_volume
from .modality import modality_by_histogram, modality_by_name
from .networks.super_resolver import encode_condition
from .scan import saturation
from .simulation.acquisition import Acquisition
from .simulation.protocol import MODALITIES as PAIRED


class LoadVolumed(MapTransform):
    """Replace a path, or the paths of a DICOM series, by its volume (see :func:`bundle.io.read_volume`).

    Writes ``path`` (what messages call it), ``stem`` and ``suffix`` (of the names of results) where no
    :class:`bundle.records.Record` has done so, ``warnings`` (lines), ``started`` (seconds), ``axes`` (nibabel's
    orientation array of the file, to go back to) and ``spacing`` (mm along the axes of the file) beside it.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            item["path"], item["started"] = item.get("path", str(item[key])), time.time()
            if "stem" not in item:
                item["stem"], item["suffix"] = name_parts(Path(item["path"]))
            volume = item[key] = read_volume(item[key])
            volume.meta["acquisition"] |= item.pop("acquisition", {})
            if volume.meta["stored_as"] == "uint8":
                volume.meta["warnings"] += saturation(volume.numpy(), item["path"])
            item["warnings"] = "\n".join(volume.meta.pop("warnings"))
            item["axes"] = torch.from_numpy(nib.io_orientation(item[key].affine.numpy()))
            item["spacing"] = item[key].pixdim
        return item


class ToTargetGridd(MapTransform):
    """Normalise a volume and interpolate it onto the target grid: what the network takes.

    Keeps what the way back needs: ``source`` (the normalised volume on its own grid), ``intensity`` (offset and scale)
    and ``condition`` (see :func:`bundle.networks.super_resolver.encode_condition`).

    Args:
        keys: (1, D, H, W) MetaTensor, canonical orientation.
        spacing: of the target in mm along the axes of the file, or None for :func:`bundle.geometry.default_spacing`.
        contrast: wanted, ``7T`` or ``input``; what is neither T1w nor T2w keeps the input's.
        modality: of the input; ``auto`` goes by name, then histogram.

    Raises:
        InputError: NaN, Inf, a constant volume, a target that is nowhere finer than the input or too large for memory.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing: Sequence[float] | None = None,
        contrast: str = "input",
        modality: str = "auto",
    ) -> None:
        super().__init__(keys)
        self.spacing, self.contrast, self.modality = spacing, contrast, modality

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            volume = item[key]
            name = item.get("path", str(key))
            grid = Grid(tuple(volume.shape[1:]), volume.affine.numpy())
            target = self._target(grid, item["axes"], name)
            plain = volume.as_tensor()
            intensity = fit_intensity(plain, name)
            modality = self.modality
            if modality == "auto":
                modality = volume.meta.get("acquisition", {}).get("modality") or modality_by_name(Path(name))
                modality = modality or modality_by_histogram(plain, grid.spacing)
            source, grid = _not_finer(intensity.normalise(plain), grid, target)
            factors = [n / m for n, m in zip(target.shape, grid.shape, strict=True)]
            meta = {k: v for k, v in volume.meta.items() if k in ("filename_or_obj", "form_codes")}
            item["source"] = MetaTensor(source, affine=torch.from_numpy(grid.affine), meta=dict(meta))
            contrast = self.contrast if modality in PAIRED else "input"
            item["condition"] = encode_condition(contrast, modality, factors)
            item["intensity"] = torch.tensor(intensity, dtype=torch.float64)
            meta["condition"] = item["condition"]  # for engines that hand an inferer nothing but the image
            item[key] = MetaTensor(resample(source, target.shape), affine=torch.from_numpy(target.affine), meta=meta)
        return item

    def _target(self, grid: Grid, axes: torch.Tensor, name: str) -> Grid:
        """Target grid, if it makes sense and fits."""
        wanted = self._wanted(grid, axes)
        target = target_grid(grid, wanted)
        asked = " x ".join(f"{s:.3g}" for s in wanted)
        if all(n <= m for n, m in zip(target.shape, grid.shape, strict=True)):
            own = " x ".join(f"{s:.3g}" for s in grid.spacing)
            raise InputError(
                f"{name}: target spacing {asked} mm is nowhere finer than the input's {own} mm; choose less"
            )
        need, free = needed(target.shape), free_memory("cpu")
        if need > free:
            size = " x ".join(map(str, target.shape))
            reason = f"{size} voxels at {asked} mm need {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
            raise InputError(f"{name}: {reason}; choose a larger --target_spacing")
        return target

    def _wanted(self, grid: Grid, axes: torch.Tensor) -> Sequence[float]:
        """Target spacing in the order of the canonical axes."""
        if self.spacing is None:
            return default_spacing(grid.spacing)
        wanted = dict(zip(axes[:, 0].int().tolist(), self.spacing, strict=True))
        return [wanted[axis] for axis in range(3)]


def _not_finer(source: torch.Tensor, grid: Grid, target: Grid) -> tuple[torch.Tensor, Grid]:
    """The source with the axes on which it is finer than the target reduced to the target's voxels."""
    shape = tuple(min(n, m) for n, m in zip(grid.shape, target.shape, strict=True))
    if shape == grid.shape:
        return source, grid
    spacing = [s * n / m for s, n, m in zip(grid.spacing, grid.shape, shape, strict=True)]
    return Acquisition().operator(grid.shape, shape)(source), target_grid(grid, spacing)


class ProjectBackd(MapTransform):
    """Make the result agree with its input under the acquisition that the two let believe, where the contrast is kept.

    Writes ``width``, of its point-spread function in input voxels.

    Args:
        keys: (C, D, H, W), the image in channel 0; its meta data hold the network's ``width_rule``, else one voxel is
            assumed.
        iterations: see :func:`bundle.consistency.project_back`.
    """

    def __init__(self, keys: KeysCollection, iterations: int = 2) -> None:
        super().__init__(keys)
        self.iterations = iterations

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            if item["condition"][0] > 0:  # another contrast than the input's
                continue
            high = item[key].as_tensor()[None, :1]
            low = item["source"].as_tensor()[None].to(high)
            rule = torch.as_tensor(item[key].meta.get(WIDTH_RULE, (0.0, 0.0)))
            rule = rule.reshape(-1, 2)[0]  # MONAI Label leaves a batch's axis
            result, item["width"] = agree(high, low, rule, self.iterations)
            item[key][:1] = result[0]
        return item


class RestoreIntensityd(MapTransform):
    """Back to the input's units: the image in channel 0, and the spread in channel 1 if there is one."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            intensity = Intensity(*(float(v) for v in item["intensity"]))
            item[key][:1] = intensity.restore(item[key][:1])
            item[key][1:] = item[key][1:] * intensity.scale
        return item


class RestoreOrientationd(MapTransform):
    """Back from canonical axes to those of the file."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            volume = item[key]
            canonical = nib.orientations.axcodes2ornt("RAS")
            back = nib.orientations.ornt_transform(canonical, item["axes"].cpu().numpy())
            affine = volume.affine.numpy() @ nib.orientations.inv_ornt_aff(back, volume.shape[1:])
            array = np.stack([nib.apply_orientation(channel, back) for channel in volume.cpu().numpy()])
            kept = {k: volume.meta[k] for k in (TILE, RAN_OUT) if k in volume.meta}
            item[key] = MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(affine), meta=kept)
        return item
