"""Small two-dimensional pairs of 1.5 T and 7 T, of phantoms, for the experiments at the paper's scale."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..geometry import resample
from ..intensity import fit_intensity
from ..simulation.acquisition import Acquisition
from ..simulation.phantom import brain_phantom
from ..simulation.protocol import draw
from ..simulation.rendering import deform, draw_shape, prepare_map, render
from ..simulation.tissues import GROUP_OF_CLASS, GROUPS, to_classes

TISSUES = ("other", "CSF", "GM", "WM")
_PHANTOM, _SPACING = (88, 104, 92), 2.0  # voxels and mm of the label map that planes are cut from
_NOISE = 0.01  # of the input, relative to bright tissue
_GROUPS = {"CSF": "CSF", "cortical GM": "GM", "deep GM": "GM", "cerebellar GM": "GM", "WM": "WM", "cerebellar WM": "WM"}
_GROUPS |= {"brainstem": "WM"}


class Pairs(NamedTuple):
    """Planes: ``low`` and ``high`` (N, 1, n, n), normalised as the input is, and ``tissue`` (N, n, n), see TISSUES."""

    low: Tensor
    high: Tensor
    tissue: Tensor


def make_pairs(heads: int, planes: int, phantoms: int, size: int, seed: int) -> Pairs:
    """Axial planes of phantom heads, T1-weighted; the input has half the resolution in the plane and 1 % noise.

    Args:
        heads: persons, each with a shape, tissue and scanner of their own.
        planes: per head, evenly through the brain.
        phantoms: label maps that the heads are made of.
        size: pixels along a side.
        seed: of everything; other seeds share no phantom.
    """
    maps = [brain_phantom(_PHANTOM, _SPACING, seed=1000 * seed + k) for k in range(phantoms)]
    prepared = [prepare_map(to_classes(labels), (_SPACING,) * 3) for labels in maps]
    parts = [_planes(prepared[k % phantoms], planes, size, 1000 * seed + k) for k in range(heads)]
    return Pairs(*(torch.cat(views) for views in zip(*parts, strict=True)))


def _planes(prepared: Tensor, planes: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    random = np.random.RandomState(seed)
    parameters, spacing = draw(random, "T1w", 1.5, 7.0), [_SPACING / 2] * 3
    fine = deform(prepared, draw_shape(random), spacing)
    low, high = render(fine, parameters, spacing)
    depth = np.linspace(0.35, 0.8, planes) * fine.shape[2]
    index = torch.from_numpy(depth.astype(np.int64))
    views = torch.stack([low, high])[..., index]
    sharp, target = Acquisition()(views, (size, size, planes))
    blurred = Acquisition(noise=_NOISE)(sharp, (size // 2, size // 2, planes), torch.Generator().manual_seed(seed))
    blurred = resample(blurred, (size, size, planes))
    intensity = fit_intensity(blurred)
    nearest = [torch.from_numpy(((np.arange(size) + 0.5) * n / size).astype(np.int64)) for n in fine.shape[:2]]
    tissue = _merged(fine[nearest[0]][:, nearest[1]][:, :, index])
    both = (intensity.normalise(v).permute(2, 0, 1)[:, None] for v in (blurred, target))
    return (*both, tissue.permute(2, 0, 1))


def _merged(classes: Tensor) -> Tensor:
    """Tissue classes to indices of TISSUES."""
    table = torch.tensor([TISSUES.index(_GROUPS.get(group, "other")) for group in GROUPS])
    return table[GROUP_OF_CLASS[classes.int()].int()]
