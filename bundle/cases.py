"""What methods are judged on: a degraded volume and its truth, made of a sharp volume, a label map or a given pair."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import InputError
from .geometry import CanonicalAxes, Grid, resample
from .given import read_pair
from .intensity import fit_intensity, percentiles
from .io import read_volume
from .metrics import data_range, head_mask
from .modality import modality_by_histogram, modality_by_name
from .networks.super_resolver import encode_condition
from .simulate import read_maps
from .simulation.acquisition import Acquisition, bias_field
from .simulation.protocol import MODALITIES, draw
from .simulation.rendering import deform, draw_shape, prepare_map, render
from .simulation.tissues import GROUP_OF_CLASS

# Noise is relative to the 0.1 to 99.9 percentile range. Training draws Gaussian profiles only: C is new to the network.
PROTOCOLS = {
    "A": Acquisition(noise=0.01),
    "B": Acquisition(noise=0.03),
    "C": Acquisition(profile=("box",) * 3, width=(0.8,) * 3, truncation=(0.9,) * 3, noise=0.01),
}
Alter = Callable[[Tensor, Sequence[float]], Tensor]


class Case(NamedTuple):
    """A degraded volume and its truth, normalised: ``low`` (1, 1, d, h, w), ``reference`` and ``mask`` (D, H, W).

    Where ``contrast`` is 7T the truth has another contrast than the input; methods without a network are then fitted to
    it linearly, inside the mask, before they are compared. ``tissue`` (D, H, W) uint8 is the true tissue group, where
    that is known, ``prediction`` (D, H, W) a result that came with the data, ``spacing`` the reference's voxel in mm.
    All are in the axes of the file; ``axes`` turns them.
    """

    name: str
    modality: str
    protocol: str
    factors: tuple[float, float, float]
    low: Tensor
    reference: Tensor
    mask: Tensor
    span: float
    axes: CanonicalAxes
    contrast: str = "input"
    tissue: Tensor | None = None
    prediction: Tensor | None = None
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def condition(self) -> Tensor:
        """Condition of the network, (1, 6), for canonical axes."""
        return encode_condition(self.contrast, self.modality, [self.factors[i] for i in self.axes.order])[None]

    @property
    def interpolated(self) -> Tensor:
        """What a network is given: ``low`` on the grid of the reference, in canonical axes, (1, 1, ...)."""
        return self.axes.enter(resample(self.low, self.reference.shape))


def grids_of(shape: Sequence[int], factors: Sequence[float]) -> tuple[list[int], list[int]]:
    """The largest part of a grid that factors, whole numbers or halves, divide, and what they make of it, in voxels."""
    parts = [Fraction(f).limit_denominator(2) for f in factors]
    high = [n // p.numerator * p.numerator for n, p in zip(shape, parts, strict=True)]
    return high, [n * p.denominator // p.numerator for n, p in zip(high, parts, strict=True)]


def make_case(
    path: str | Path, protocol: str, factors: Sequence[float], seed: int = 0, alter: Alter | None = None
) -> Case:
    """Degrade a sharp volume; it is first cropped so that the factors divide it.

    The volume keeps the axes of its file, so that the third factor falls on the slices of a two-dimensional scan.
    ``alter`` may change the sharp volume (D, H, W), of a spacing in mm, before it is degraded.
    """
    volume = read_volume(path)
    modality = modality_by_name(Path(path)) or modality_by_histogram(volume.as_tensor(), tuple(volume.pixdim.tolist()))
    shape, low_shape = grids_of(volume.shape[1:], factors)
    sharp = volume.as_tensor()[0, : shape[0], : shape[1], : shape[2]]
    if alter is not None:
        sharp = alter(sharp, volume.pixdim.tolist())
    low_end, high_end = percentiles(sharp, (0.1, 99.9))
    noisy = replace(PROTOCOLS[protocol], noise=PROTOCOLS[protocol].noise * (high_end - low_end))
    generator = torch.Generator().manual_seed(seed)
    low = noisy(sharp[None, None], low_shape, generator)
    intensity = fit_intensity(low, str(path))
    reference = intensity.normalise(sharp)
    mask = masked(reference, str(path))
    normalised, span = intensity.normalise(low), data_range(reference, mask)
    axes, spacing = CanonicalAxes.of(volume.affine.numpy()), tuple(volume.pixdim.tolist())
    case = Path(path).name, modality, protocol, tuple(factors), normalised, reference, mask, span, axes
    return Case(*case, spacing=spacing)


def make_simulated_case(
    path: str | Path,
    modality: str,
    protocol: str,
    factors: Sequence[float],
    seed: int = 0,
    alter: Alter | None = None,
) -> Case:
    """One person made of a label map: 1.5 T degraded by the protocol, 7 T at the map's spacing as the truth.

    The shading of the input stays in the truth, since nothing in a single scan tells it from anatomy for sure.
    ``alter`` may change the fine tissue classes (2D, 2H, 2W), of a spacing in mm, before they are rendered.
    """
    return make_person(path, modality, protocol, factors, seed, alter)[0]


def make_person(
    path: str | Path,
    modality: str,
    protocol: str,
    factors: Sequence[float],
    seed: int = 0,
    alter: Alter | None = None,
) -> tuple[Case, Tensor]:
    """The case of :func:`make_simulated_case`, and the low field's image (D, H, W) before it was degraded."""
    person = zlib.crc32(Path(path).name.encode())  # every map gets a shape, tissue and scanner of its own
    random = np.random.RandomState([seed, MODALITIES.index(modality), person])
    prepared, affine = _prepared(str(path))
    parameters = draw(random, modality, 1.5, 7.0)
    parameters |= {"profile": ["gaussian"] * 3, "width": [1.0] * 3, "truncation": [1.0] * 3, "ghost": None, "noise": 0}
    shape = tuple(n // 2 for n in prepared.shape)
    spacing = [s / 2 for s in Grid(shape, affine).spacing]
    fine = deform(prepared, draw_shape(random), spacing)
    if alter is not None:
        fine = alter(fine, spacing)
    views = Acquisition()(torch.stack(render(fine, parameters, spacing)), shape)
    high_shape, low_shape = grids_of(shape, factors)
    whole = [slice(n) for n in high_shape]
    sharp, reference = views[:, *whole] * bias_field(high_shape, torch.tensor(parameters["bias"]).float())
    low_end, high_end = percentiles(sharp, (0.1, 99.9))
    noisy = replace(PROTOCOLS[protocol], noise=PROTOCOLS[protocol].noise * (high_end - low_end))
    low = noisy(sharp[None, None], low_shape, torch.Generator().manual_seed(seed))
    intensity = fit_intensity(low, str(path))
    reference = intensity.normalise(reference)
    mask = masked(reference, str(path))
    normalised, span = intensity.normalise(low), data_range(reference, mask)
    case = Path(path).name, modality, protocol, tuple(factors), normalised, reference, mask, span
    tissue = main_group(fine)[tuple(whole)]
    made = Case(*case, CanonicalAxes.of(affine), "7T", tissue, spacing=tuple(2 * s for s in spacing))
    return made, sharp


def masked(reference: Tensor, name: str) -> Tensor:
    """The head of a normalised volume.

    Raises:
        InputError: there is none.
    """
    mask = head_mask(reference) if bool((reference > 0).any()) else torch.zeros_like(reference, dtype=torch.bool)
    if not mask.any():
        raise InputError(f"{name}: the mask of the head is empty, so there is nothing to compare; check the volume")
    return mask


@lru_cache(maxsize=1)
def _prepared(path: str) -> tuple[Tensor, np.ndarray]:
    """A label map in voxels half as large, and its affine; kept, since several cases are made of it."""
    _, classes, affine = next(read_maps(path))
    return prepare_map(classes, Grid(tuple(classes.shape), affine).spacing), affine


def main_group(fine: Tensor) -> Tensor:
    """The tissue group that holds most of every cube of two fine voxels: (2D, 2H, 2W) uint8 classes to (D, H, W)."""
    groups = GROUP_OF_CLASS[fine.int()]
    best = torch.zeros([n // 2 for n in fine.shape])
    result = torch.zeros(best.shape, dtype=torch.uint8)
    for group in torch.unique(groups).tolist():
        share = F.avg_pool3d((groups == group).float()[None, None], 2)[0, 0]
        result[share > best] = group
        best = torch.maximum(best, share)
    return result


def make_cases(item: Mapping, protocols: Sequence[str], factors: Sequence[Sequence[float]]) -> Iterator[Case]:
    """All cases of an item of a datalist, one after the other; a given pair is one, whatever the protocols."""
    if "low" in item:
        yield make_given_case(item)
        return
    for protocol in protocols:
        for factor in factors:
            if item.get("kind") == "label_map":
                yield from (make_simulated_case(item["image"], m, protocol, factor) for m in MODALITIES)
            else:
                yield make_case(item["image"], protocol, factor)


def make_given_case(item: Mapping) -> Case:
    """The case of a pair of :func:`bundle.given.read_given`."""
    pair = read_pair(item)
    mask = masked(pair["reference"], item["high"])
    span = data_range(pair["reference"], mask)
    if not span > 0:
        raise InputError(f"{item['high']}: all voxels of the head have the same value; this is not an image")
    case = Path(item["high"]).name, pair["modality"], "given", pair["factors"], pair["low"], pair["reference"]
    extras = {key: pair.get(key) for key in ("tissue", "prediction")}
    return Case(*case, mask, span, pair["axes"], item.get("contrast", "input"), spacing=pair["spacing"], **extras)
