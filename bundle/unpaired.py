"""Unpaired examples: crops of scans whose truth nobody knows, beside crops of sharp volumes of other people."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from monai.data import CacheDataset
from monai.transforms import MapTransform, Orientation
from torch import Tensor
from torch.utils.data import Dataset

from .errors import InputError
from .geometry import is_thick
from .io import read_volume
from .neighbourhood import cells_around, pad_view, shift_cells
from .networks.context import coarse_view, view_step
from .transforms import LoadVolumed, ToTargetGridd

SHOWN = ("image", "condition", "context", "cells")


def sharp_volumes(items: Sequence[Mapping]) -> list[Mapping]:
    """Items that show what a sharp volume looks like: neither label maps nor scans with thick slices.

    (Training degrades those further, too, so a datalist may call them sharp.)
    """
    sharp = [item for item in items if item.get("kind", "sharp") == "sharp"]
    return [item for item in sharp if not is_thick(read_volume(item["image"]).pixdim.tolist())]


class PrepareScand(MapTransform):
    """Read a scan and bring it onto its target grid, as the main job does; keep it small.

    Writes ``image`` (1, D, H, W) float16, interpolated and normalised, ``low`` (1, d, h, w) float16, not interpolated,
    ``condition`` (6,) of contrast ``input``, and, of the whole, ``head`` and ``step`` as
    :class:`bundle.augmentation.PrepareSourced` does, and ``spacing`` in mm.
    """

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        for key in self.key_iterator(item):
            loaded = LoadVolumed(key)({key: item[key]})
            loaded[key] = Orientation(axcodes="RAS", labels=None)(loaded[key])
            ready = ToTargetGridd(key, contrast="input", modality=item.get("modality", "auto"))(loaded)
            volume = ready[key].as_tensor()
            item |= {key: volume.half(), "condition": ready["condition"]}
            item["low"] = ready["source"].as_tensor().half()
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
    """Crops of scans, each with a crop of a sharp volume of the same modality, and with a pair made of such a volume.

    Sharp volumes are drawn by their ``weight``.

    Args:
        scans: items of ordinary scans, each with its ``modality``.
        sharp: items of sharp volumes, see :func:`sharp_volumes`.
        transform: of the scans, to dictionaries with :data:`SHOWN`.
        sharp_transform: of the sharp volumes, to dictionaries with ``image``.
        pair_transform: of the sharp volumes, to dictionaries with :data:`SHOWN` and ``label``.
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
        pair_transform: Callable,
        count: int,
    ) -> None:
        if not scans:
            raise InputError("no scans to adapt to; list them in the datalist's section 'adaptation'")
        self.weights = []
        for scan in scans:
            fits = [item.get("modality") == scan.get("modality") for item in sharp]
            if not any(fits):
                raise InputError(f"{scan['image']}: no sharp volume of modality {scan.get('modality')} to learn from")
            weights = [fit * float(item.get("weight", 1)) for fit, item in zip(fits, sharp, strict=True)]
            self.weights.append(torch.tensor(weights))
        self.scans, self.sharp, self.pairs = (
            CacheDataset(list(items), how, runtime_cache=True, copy_cache=False)
            for items, how in ((scans, transform), (sharp, sharp_transform), (sharp, pair_transform))
        )
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor | dict[str, Tensor]]:
        scan = int(torch.randint(len(self.scans), ()))
        real, pair = torch.multinomial(self.weights[scan], 2, replacement=True).tolist()
        return {
            **_tensors(self.scans[scan], SHOWN),
            "real": torch.as_tensor(self.sharp[real]["image"]).float(),
            "pair": _tensors(self.pairs[pair], (*SHOWN, "label")),
        }


def _tensors(item: Mapping, keys: Sequence[str]) -> dict[str, Tensor]:
    return {key: torch.as_tensor(item[key]).float() for key in keys}
