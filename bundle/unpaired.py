"""Unpaired examples: crops of scans whose truth nobody knows, beside crops of sharp volumes of other people."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from monai.data import CacheDataset
from monai.transforms import MapTransform, Orientation
from torch import Tensor
from torch.utils.data import Dataset

from .errors import InputError
from .neighbourhood import cells_around, pad_view, shift_cells
from .networks.context import coarse_view, view_step
from .transforms import LoadVolumed, ToTargetGridd


class PrepareScand(MapTransform):
    """Read a scan and bring it onto its target grid, as the main job does; keep it small.

    Writes ``image`` (1, D, H, W) float16, interpolated and normalised, ``condition`` (6,) of contrast ``input``, and,
    of the whole, ``head`` and ``step`` as :class:`bundle.augmentation.PrepareSourced` does, and ``spacing`` in mm.
    """

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            loaded = LoadVolumed(key)({key: item[key]})
            loaded[key] = Orientation(axcodes="RAS", labels=None)(loaded[key])
            ready = ToTargetGridd(key, contrast="input", modality=item.get("modality", "auto"))(loaded)
            volume = ready[key].as_tensor()
            item |= {key: volume.half(), "condition": ready["condition"]}
            item |= {"head": coarse_view(volume[None])[0], "step": view_step(volume)}
            item["spacing"] = tuple(float(s) for s in ready[key].pixdim)
        return item


class WithHeadd(MapTransform):
    """What a crop of :class:`bundle.augmentation.RandHeadCropd` is told of its head: ``context`` and ``cells``."""

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            size = item[key].shape[-1]
            cells = cells_around(item["head"], item["step"], item["centre"], 1.0, size)[None]
            item |= {"cells": shift_cells(cells[0], (0, 0, 0)), "context": pad_view(item["head"])}
        return item


class Unpaired(Dataset):
    """Crops of scans, each with a crop of a sharp volume of the same modality that is drawn at random.

    Args:
        scans: items of ordinary scans, each with its ``modality``.
        sharp: items of sharp volumes; label maps among them are left out.
        transform: of the scans, to dictionaries with ``image``, ``condition``, ``context`` and ``cells``.
        sharp_transform: of the sharp volumes, to dictionaries with ``image``.
        count: examples in an epoch.

    Raises:
        InputError: no scan, or one of a modality that no sharp volume has.
    """

    def __init__(
        self,
        scans: Sequence[Mapping],
        sharp: Sequence[Mapping],
        transform: Callable,
        sharp_transform: Callable,
        count: int,
    ) -> None:
        sharp = [item for item in sharp if item.get("kind", "sharp") == "sharp"]
        self.partners = [
            [i for i, item in enumerate(sharp) if item.get("modality") == scan.get("modality")] for scan in scans
        ]
        for scan, partners in zip(scans, self.partners, strict=True):
            if not partners:
                raise InputError(f"{scan['image']}: no sharp volume of modality {scan.get('modality')} to learn from")
        if not scans:
            raise InputError("no scans to adapt to; list them in the datalist's section 'adaptation'")
        cached = {"runtime_cache": True, "copy_cache": False}
        self.scans = CacheDataset(list(scans), transform, **cached)
        self.sharp, self.count = CacheDataset(sharp, sharp_transform, **cached), count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        scan = int(torch.randint(len(self.scans), ()))
        partners = self.partners[scan]
        real = self.sharp[partners[int(torch.randint(len(partners), ()))]]["image"]
        shown = self.scans[scan]
        found = {key: torch.as_tensor(shown[key]).float() for key in ("image", "condition", "context", "cells")}
        return found | {"real": torch.as_tensor(real).float()}
