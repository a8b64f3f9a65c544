"""Training on real pairs: a low-field and a high-field scan of one person."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from torch import Tensor

from .augmentation import pad_view
from .data import check_files, check_weights, path_inside, read_sections
from .errors import InputError
from .intensity import fit_intensity, match_linearly
from .io import read_volume
from .metrics import head_mask
from .neighbourhood import cells_around, shift_cells
from .networks.context import coarse_view, view_step
from .networks.super_resolver import CONTRASTS, MODALITIES, encode_condition
from .registration import EDGE_AGREEMENT, register

KEYS = ("low", "high", "subject")


def read_pairs(path: str, section: str, dataset_dir: str) -> list[dict]:
    """Pairs of one section of a datalist, ``{"low": file, "high": file, "subject": name}``, files made absolute.

    An item may also hold ``modality`` (``T1w``, ``T2w`` or ``other``, the default), ``contrast`` (``7T``, the default,
    or ``input`` where both scans have the same) and ``weight``.

    Raises:
        InputError: missing list or section, an incomplete item, or a person in more than one section.
    """
    sections = read_sections(path, section)
    _check_people(sections, path)
    items = []
    for item in sections[section]:
        contrast, modality = item.get("contrast", "7T"), item.get("modality", "other")
        if contrast not in CONTRASTS or modality not in MODALITIES:
            raise InputError(
                f"{path}: contrast {contrast!r}, modality {modality!r} of {item['subject']}; allowed are "
                f"{', '.join(CONTRASTS)} and {', '.join(MODALITIES)}"
            )
        files = {key: str(path_inside(dataset_dir, item[key], path, absolute=True)) for key in ("low", "high")}
        items.append({**item, **files, "contrast": contrast, "modality": modality})
    return items


def _check_people(sections: Mapping[str, object], path: str) -> None:
    """Every item is whole, and every person in one section only."""
    home: dict[str, str] = {}
    for section, items in sections.items():
        for item in items if isinstance(items, list) else []:
            if not isinstance(item, dict) or any(key not in item for key in KEYS):
                raise InputError(f"{path}: section {section!r} holds {item!r}; every pair needs {', '.join(KEYS)}")
            if home.setdefault(str(item["subject"]), section) != section:
                raise InputError(
                    f"{path}: subject {item['subject']} is in {home[str(item['subject'])]!r} and in {section!r}; "
                    "split by person, or the test is not one"
                )


def preflight(path: str, dataset_dir: str, weights: Sequence[str | None] = ()) -> None:
    """See that lists, files and weights are there before a training starts.

    Raises:
        SystemExit: they are not; the message is one line.
    """
    try:
        for section in ("training", "validation"):
            pairs = read_pairs(path, section, dataset_dir)
            if not pairs:
                raise InputError(f"{path}: section {section!r} is empty; it needs at least one pair")
            check_files(pairs, ("low", "high"))
        check_weights(*weights)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


class RegisterPaird(Transform):
    """Make a pair of files one array: the low scan moved onto the grid of the high one, intensities matched.

    Writes ``pair`` (2, D, H, W) float16, low and high, ``head``, a coarse view of the low one, and ``factors``
    (low over high spacing along the axes of the high scan). The low scan is normalised as it would be at inference;
    of the high one the linear map that is nearest to the low one is taken. What only one of them has seen is zero in
    both.
    """

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        item = dict(data)
        low, high = read_volume(item["low"]), read_volume(item["high"])
        found = register(high, low)
        if found.agreement < EDGE_AGREEMENT:
            raise InputError(
                f"{item['low']} and {item['high']}: after registration their edges agree to {found.agreement:.2f}, at "
                f"least {EDGE_AGREEMENT} is needed; these are two people, or one scan is spoilt"
            )
        moved = fit_intensity(low.as_tensor(), item["low"]).normalise(found.volume)
        sharp = high.as_tensor()[0]
        mask = found.seen & head_mask(moved)
        sharp = match_linearly(sharp, moved, mask)
        item["pair"] = (torch.stack([moved, sharp]) * found.seen).half()
        item["head"] = coarse_view(item["pair"][None, :1].float())[0]
        item["factors"] = spacing_factors(low.affine.numpy(), high.affine.numpy())
        item["agreement"] = found.agreement
        return item


def spacing_factors(low: np.ndarray, high: np.ndarray) -> list[float]:
    """Low over high spacing along each axis of the high grid, by the axis of the low grid that points the same way."""
    low_spacing, high_spacing = (np.linalg.norm(a[:3, :3], axis=0) for a in (low, high))
    cosines = np.abs((high[:3, :3] / high_spacing).T @ (low[:3, :3] / low_spacing))
    return [max(1.0, float(low_spacing[row.argmax()] / s)) for row, s in zip(cosines, high_spacing, strict=True)]


class RandPaird(Randomizable, Transform):
    """Cut a training example out of a registered pair: ``image``, ``label`` (1, size, size, size), ``condition``,
    ``context`` and ``cells``, as :class:`bundle.augmentation.RandAcquired` does.

    Args:
        size: side of the crop.
        random: random place, flips and axes; else the middle as it is.
    """

    def __init__(self, size: int, random: bool = True) -> None:
        super().__init__()
        self.size, self.random = size, random

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        pair, factors, axes = data["pair"], list(data["factors"]), [0, 1, 2]
        if min(pair.shape[1:]) < self.size:
            raise ValueError(f"{data['high']}: {tuple(pair.shape[1:])} voxels; crops of {self.size} do not fit")
        view = data["head"].float()
        corner = self._corner(pair)
        centre, step = [c + self.size / 2 for c in corner], view_step(pair[:1])
        cells = shift_cells(cells_around(view, step, centre, 1.0, self.size), (0, 0, 0))
        pair = pair[(slice(None), *(slice(c, c + self.size) for c in corner))].float()
        if self.random:
            axes = [int(a) for a in self.R.permutation(3)]
            flips = [a for a in (1, 2, 3) if self.R.rand() < 0.5]
            pair, cells = (v.permute(0, *(1 + a for a in axes)).flip(flips) for v in (pair, cells))
        condition = encode_condition(data["contrast"], data["modality"], [factors[a] for a in axes])
        low, high = pair.contiguous().unbind(0)
        images = {"image": low[None], "label": high[None]}
        return images | {"condition": condition, "context": pad_view(view), "cells": cells.contiguous()}

    def _corner(self, pair: Tensor) -> Sequence[int]:
        """First voxel of the crop on every axis."""
        starts: Sequence[int] = [(n - self.size) // 2 for n in pair.shape[1:]]
        for _ in range(10 if self.random else 0):  # places that hold some head
            starts = [int(self.R.randint(n - self.size + 1)) for n in pair.shape[1:]]
            if float(pair[(0, *(s + self.size // 2 for s in starts))]) > 0.1:
                break
        return starts
