"""Tables of quality under a fixed protocol: sharp volumes are degraded, restored by every method, and compared.

Label maps stand for pairs of 1.5 T and 7 T: the simulated low field is degraded, and the truth is the high field.
"""

import csv
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .consistency import back_project, default_operator, project_back
from .geometry import CanonicalAxes, Grid, resample
from .inferer import SuperResolutionInferer
from .intensity import fit_intensity, match_linearly, percentiles
from .io import read_volume, write_json
from .metrics import data_range, head_mask, histogram_distance, psnr, ssim
from .modality import modality_by_histogram, modality_by_name
from .networks.super_resolver import SuperResolver, encode_condition
from .simulate import read_maps
from .simulation.acquisition import Acquisition, AcquisitionOperator, bias_field
from .simulation.protocol import MODALITIES, draw
from .simulation.rendering import deform, draw_shape, prepare_map, render
from .simulation.tissues import GROUP_OF_CLASS

# Noise is relative to the 0.1 to 99.9 percentile range. Training draws Gaussian profiles only: C is new to the network.
PROTOCOLS = {
    "A": Acquisition(noise=0.01),
    "B": Acquisition(noise=0.03),
    "C": Acquisition(profile=("box",) * 3, width=(0.8,) * 3, truncation=(0.9,) * 3, noise=0.01),
}
# Iterations and damping of back-projection that were best on the tuning subject (t1/seg3d), by noise and by whether
# slices are thick: see `tune_back_projection`.
BACK_PROJECTION = {("A", False): (3, 1.0), ("A", True): (5, 1.0), ("B", False): (1, 0.5), ("B", True): (2, 0.5)}
CLASSICAL = ("trilinear", "cubic", "IBP")
COLUMNS = ("volume", "modality", "protocol", "factors", "method", "psnr", "ssim", "histogram", "seconds")

Restorer = Callable[["Case"], Tensor]


class Case(NamedTuple):
    """A degraded volume and its truth, normalised: ``low`` (1, 1, d, h, w), ``reference`` and ``mask`` (D, H, W).

    Where ``contrast`` is 7T the truth has another contrast than the input; methods without a network are then fitted to
    it linearly, inside the mask, before they are compared. ``tissue`` (D, H, W) uint8 is the true tissue group of a
    simulated head. All are in the axes of the file; ``axes`` turns them.
    """

    name: str
    modality: str
    protocol: str
    factors: tuple[int, int, int]
    low: Tensor
    reference: Tensor
    mask: Tensor
    span: float
    axes: CanonicalAxes
    contrast: str = "input"
    tissue: Tensor | None = None

    @property
    def condition(self) -> Tensor:
        """Condition of the network, (1, 6), for canonical axes."""
        return encode_condition(self.contrast, self.modality, [self.factors[i] for i in self.axes.order])[None]

    @property
    def interpolated(self) -> Tensor:
        """What a network is given: ``low`` on the grid of the reference, in canonical axes, (1, 1, ...)."""
        return self.axes.enter(resample(self.low, self.reference.shape))

    def quality(self, image: Tensor) -> dict[str, float]:
        """PSNR, SSIM and distance of histograms of a result (D, H, W)."""
        truth = self.reference, self.mask, self.span
        measures = {"psnr": psnr, "ssim": ssim, "histogram": histogram_distance}
        return {name: round(measure(image, *truth), 4) for name, measure in measures.items()}


def make_case(path: str | Path, protocol: str, factors: Sequence[int], seed: int = 0) -> Case:
    """Degrade a sharp volume; it is first cropped so that the factors divide it.

    The volume keeps the axes of its file, so that the third factor falls on the slices of a two-dimensional scan.
    """
    volume = read_volume(path)
    modality = modality_by_name(Path(path)) or modality_by_histogram(volume.as_tensor(), tuple(volume.pixdim.tolist()))
    shape = [n // f * f for n, f in zip(volume.shape[1:], factors, strict=True)]
    sharp = volume.as_tensor()[0, : shape[0], : shape[1], : shape[2]]
    low_end, high_end = percentiles(sharp, (0.1, 99.9))
    noisy = replace(PROTOCOLS[protocol], noise=PROTOCOLS[protocol].noise * (high_end - low_end))
    generator = torch.Generator().manual_seed(seed)
    low = noisy(sharp[None, None], [n // f for n, f in zip(shape, factors, strict=True)], generator)
    intensity = fit_intensity(low, str(path))
    reference = intensity.normalise(sharp)
    mask = head_mask(reference)
    normalised, span = intensity.normalise(low), data_range(reference, mask)
    axes = CanonicalAxes.of(volume.affine.numpy())
    return Case(Path(path).name, modality, protocol, tuple(factors), normalised, reference, mask, span, axes)


def make_simulated_case(path: str | Path, modality: str, protocol: str, factors: Sequence[int], seed: int = 0) -> Case:
    """One person made of a label map: 1.5 T degraded by the protocol, 7 T at the map's spacing as the truth.

    The shading of the input stays in the truth, since nothing in a single scan tells it from anatomy for sure.
    """
    return make_person(path, modality, protocol, factors, seed)[0]


def make_person(
    path: str | Path, modality: str, protocol: str, factors: Sequence[int], seed: int = 0
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
    views = Acquisition()(torch.stack(render(fine, parameters, spacing)), shape)
    low_shape = [n // f for n, f in zip(shape, factors, strict=True)]
    whole = [slice(n * f) for n, f in zip(low_shape, factors, strict=True)]
    sharp, reference = views[:, *whole] * bias_field([s.stop for s in whole], torch.tensor(parameters["bias"]).float())
    low_end, high_end = percentiles(sharp, (0.1, 99.9))
    noisy = replace(PROTOCOLS[protocol], noise=PROTOCOLS[protocol].noise * (high_end - low_end))
    low = noisy(sharp[None, None], low_shape, torch.Generator().manual_seed(seed))
    intensity = fit_intensity(low, str(path))
    reference = intensity.normalise(reference)
    mask = head_mask(reference)
    normalised, span = intensity.normalise(low), data_range(reference, mask)
    case = Path(path).name, modality, protocol, tuple(factors), normalised, reference, mask, span
    return Case(*case, CanonicalAxes.of(affine), "7T", main_group(fine)[tuple(whole)]), sharp[0]


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


def classical_methods() -> dict[str, Restorer]:
    """Methods without a network."""

    def ibp(case: Case) -> Tensor:
        thick = max(case.factors) > 1.5 * min(case.factors)
        iterations, damping = BACK_PROJECTION["B" if case.protocol == "B" else "A", thick]
        return back_project(case.low, _operator(case), iterations, damping)

    return {
        "trilinear": lambda case: resample(case.low, case.reference.shape, order=1),
        "cubic": lambda case: resample(case.low, case.reference.shape, order=3),
        "IBP": ibp,
    }


def network_method(
    network: SuperResolver, device: torch.device, project: bool = True, spread: bool = False, **inferer: object
) -> Restorer:
    """The bundle's way: interpolation, network, projection onto the input; with the spread as second channel."""
    network = network.to(device, memory_format=torch.channels_last_3d)
    run = SuperResolutionInferer(**inferer)

    def restore(case: Case) -> Tensor:
        result = case.axes.leave(run(case.interpolated.to(device), network, case.condition.to(device)))
        if project and case.contrast == "input":
            result[:, :1] = project_back(result[:, :1], case.low.to(device), _operator(case))
        return (result if spread else result[:, :1]).cpu()

    return restore


def _operator(case: Case) -> AcquisitionOperator:
    return default_operator(tuple(case.reference.shape), tuple(case.low.shape[2:]))


def make_cases(item: Mapping, protocols: Sequence[str], factors: Sequence[Sequence[int]]) -> Iterator[Case]:
    """All cases of an item of a datalist, one after the other."""
    for protocol in protocols:
        for factor in factors:
            if item.get("kind") == "label_map":
                yield from (make_simulated_case(item["image"], m, protocol, factor) for m in MODALITIES)
            else:
                yield make_case(item["image"], protocol, factor)


def compare(
    items: Iterable[Mapping],
    methods: Mapping[str, Restorer],
    protocols: Sequence[str],
    factors: Sequence[Sequence[int]],
) -> list[dict]:
    """One row per volume, modality, protocol, factors and method, with the keys of :data:`COLUMNS`."""
    rows = []
    for item in items:
        for case in make_cases(item, protocols, factors):
            for name, method in methods.items():
                start = time.perf_counter()
                image = method(case)[0, 0]
                seconds = time.perf_counter() - start
                if case.contrast == "7T" and name in CLASSICAL:
                    image = match_linearly(image, case.reference, case.mask)
                rows.append(row_of(case, name, image, seconds))
    return rows


def row_of(case: Case, method: str, image: Tensor, seconds: float) -> dict:
    """What a table says of one result (D, H, W): the keys of :data:`COLUMNS`."""
    factors = "x".join(str(f) for f in case.factors)
    head = (case.name, case.modality, case.protocol, factors, method)
    return dict(zip(COLUMNS, (*head, *case.quality(image).values(), round(seconds, 3)), strict=True))


def tune_back_projection(path: str | Path, protocol: str, factors: Sequence[int]) -> tuple[int, float]:
    """Iterations and damping with the highest PSNR on one volume."""
    case = make_case(path, protocol, factors)
    grid = [(n, d) for n in (1, 2, 3, 5, 8) for d in (0.5, 1.0)]
    score = {
        pair: psnr(back_project(case.low, _operator(case), *pair)[0, 0], case.reference, case.mask, case.span)
        for pair in grid
    }
    return max(score, key=score.get)


def write_tables(rows: Sequence[Mapping], folder: Path) -> str:
    """Write ``results.json`` and ``results.csv``; return the table as Markdown."""
    write_json(folder / "results.json", {"rows": list(rows)})
    with open(folder / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return markdown(rows)


def markdown(rows: Sequence[Mapping]) -> str:
    """Rows as a Markdown table: PSNR in dB, SSIM, distance of histograms as a share of the range, and seconds."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in rows:
        cells = [
            *(str(row[c]) for c in COLUMNS[:5]),
            f"{row['psnr']:.2f}",
            f"{row['ssim']:.4f}",
            f"{row['histogram']:.4f}",
            f"{row['seconds']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
