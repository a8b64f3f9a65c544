"""What a page is about: input, result and maps of one scan, in canonical axes."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..consistency import default_operator
from ..geometry import CanonicalAxes, Grid
from ..intensity import Intensity
from ..metrics import head_mask
from ..simulation.acquisition import AcquisitionOperator

_MARGIN = 3  # input voxels around the head that are shown


class Case(NamedTuple):
    """One scan; every volume is (X, Y, Z) towards right, anterior, superior, over the same field of view.

    ``low`` and ``high`` are normalised, ``uncertainty`` is in the input's units, ``mask`` is the head on the grid of
    ``low``, ``spacing`` in mm that of ``high``, ``width`` that of the point-spread function in voxels of ``low``.
    """

    low: Tensor
    high: Tensor
    mask: Tensor
    spacing: tuple[float, float, float]
    intensity: Intensity
    contrast: str
    uncertainty: Tensor | None = None
    tissue: Tensor | None = None
    width: float = 1.0

    @property
    def operator(self) -> AcquisitionOperator:
        """The acquisition that is assumed between the two."""
        return default_operator(tuple(self.high.shape), tuple(self.low.shape), self.width)

    @property
    def low_spacing(self) -> tuple[float, ...]:
        """Voxel size of ``low`` in mm."""
        return tuple(s * n / m for s, n, m in zip(self.spacing, self.high.shape, self.low.shape, strict=True))

    @property
    def box(self) -> list[tuple[float, float]]:
        """Where the head begins and ends on every axis, as shares of the field of view."""
        inside = self.mask.nonzero()
        if not len(inside):
            return [(0.0, 1.0)] * 3
        ends = zip(inside.amin(0).tolist(), inside.amax(0).tolist(), self.mask.shape, strict=True)
        return [(max(0, a - _MARGIN) / n, min(n, b + 1 + _MARGIN) / n) for a, b, n in ends]


def make_case(item: Mapping[Hashable, Any], pred: Tensor) -> Case:
    """The case of an item of the main job.

    Args:
        item: with ``source``, ``intensity``, ``condition``, and ``tissue`` where there is one.
        pred: (C, D, H, W) MetaTensor in the axes of the file and the input's units: image, and uncertainty.
    """
    affine = pred.affine.numpy()
    axes, intensity = CanonicalAxes.of(affine), Intensity(*(float(v) for v in item["intensity"]))
    turned = axes.enter(torch.as_tensor(pred).cpu().float())
    spacing = Grid(tuple(turned.shape[1:]), affine).spacing
    low = torch.as_tensor(item["source"]).cpu().float()[0]
    return Case(
        low,
        intensity.normalise(turned[0]),
        head_mask(low),
        tuple(spacing[i] for i in axes.order),
        intensity,
        "7T" if item["condition"][0] > 0 else "input",
        turned[1] if len(turned) > 1 else None,
        axes.enter(torch.as_tensor(item["tissue"]).cpu())[0] if "tissue" in item else None,
        item.get("width", 1.0),
    )


def cut(volume: Tensor, box: Sequence[tuple[float, float]]) -> tuple[Tensor, list[int]]:
    """The part of a volume inside ``box`` and the index of its first voxel per axis."""
    starts = [int(a * n) for (a, _), n in zip(box, volume.shape, strict=True)]
    stops = [max(s + 1, round(b * n)) for (_, b), n, s in zip(box, volume.shape, starts, strict=True)]
    return volume[tuple(slice(s, e) for s, e in zip(starts, stops, strict=True))], starts
