"""Tables of what guidance is worth: scans with strong shading and distortion, restored with and without its maps.

Every volume is distorted by a made-up coil and shaded, then degraded by a protocol of :mod:`bundle.cases`; the
truth has neither. The methods know the coil, and not the shading, but for the rows that say so.
"""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .bias import BiasEstimator, remove_bias
from .cases import PROTOCOLS, Case, make_case, make_person
from .evaluation import row_of, write_tables
from .geometry import Grid, resample
from .gradients import GradientField
from .guidance_maps import guidance_maps
from .guided_augmentation import draw_coil, draw_log_bias, log_bias_at
from .inferer import SuperResolutionInferer
from .intensity import fit_intensity, match_linearly, percentiles
from .io import read_volume
from .networks.super_resolver import SuperResolver
from .unwarping import apply_field, unwarping_field, warping_field

STRENGTH = 0.2  # standard deviation of the coefficients of the log-field


class GuidedCase(NamedTuple):
    """A :class:`bundle.cases.Case` of a scan with both effects, and what is known of them.

    ``low_grid`` and ``high_grid`` have the isocentre at their origin; ``log_bias`` (3, 3, 3) are the true coefficients.
    """

    case: Case
    low_grid: Grid
    high_grid: Grid
    coil: GradientField
    log_bias: Tensor

    def true_log_bias(self, shape: Sequence[int]) -> Tensor:
        """On any grid over the field of view."""
        return log_bias_at(self.log_bias, [(torch.arange(n) + 0.5) / n for n in shape])


def make_guided_case(item: Mapping, protocol: str, factors: Sequence[int], seed: int = 0) -> GuidedCase:
    """A case of a sharp volume (contrast ``input``) or of a label map (T1w, ``7T``) with both effects."""
    path = item["image"]
    if item.get("kind") == "label_map":
        plain, sharp = make_person(path, "T1w", protocol, factors, seed)
        affine = read_volume(path).affine.numpy()
    else:
        plain, volume = make_case(path, protocol, factors, seed), read_volume(path)
        sharp = volume.as_tensor()[0][tuple(slice(n) for n in plain.reference.shape)]
        affine = volume.affine.numpy()
    spacing = Grid(tuple(sharp.shape), affine).spacing
    random = np.random.RandomState([seed, 1, zlib.crc32(Path(path).name.encode())])
    coil, log_bias = GradientField(draw_coil(random)), draw_log_bias(random, (STRENGTH, STRENGTH))
    high_grid = _around_isocentre(sharp.shape, spacing, affine, random.normal(0, [10, 15, 25]))
    low_shape = tuple(plain.low.shape[2:])
    low_grid = _around_isocentre(low_shape, [s * f for s, f in zip(spacing, factors, strict=True)], affine, None)
    low_grid.affine[:3, 3] = high_grid.affine[:3, 3] + high_grid.affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    warped = apply_field(sharp[None], warping_field(coil, high_grid), order=1)[0]
    field = log_bias_at(log_bias, [(torch.arange(n) + 0.5) / n for n in sharp.shape])
    log_bias[0, 0, 0] = -field[plain.mask].mean()
    shaded = warped * torch.exp(field + log_bias[0, 0, 0])
    low_end, high_end = percentiles(shaded, (0.1, 99.9))
    noisy = replace(PROTOCOLS[protocol], noise=PROTOCOLS[protocol].noise * (high_end - low_end))
    low = noisy(shaded[None, None], low_shape, torch.Generator().manual_seed(seed))
    case = plain._replace(low=fit_intensity(low, str(path)).normalise(low))
    return GuidedCase(case, low_grid, high_grid, coil, log_bias)


def _around_isocentre(
    shape: Sequence[int], spacing: Sequence[float], affine: np.ndarray, offset: np.ndarray | None
) -> Grid:
    """A grid with the directions of an affine whose middle lies at ``offset`` mm."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    result = np.eye(4)
    result[:3, :3] = directions * np.asarray(spacing)
    if offset is not None:
        result[:3, 3] = offset - result[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(tuple(shape), result)


def corrected(guided: GuidedCase, estimator: BiasEstimator) -> Case:
    """The case with its input divided by the field that N4 finds, then unwarped: what a pipeline would do first."""
    low = guided.case.low[0]
    low = remove_bias(low, estimator(low[0], guided.low_grid))
    return guided.case._replace(low=apply_field(low, unwarping_field(guided.coil, guided.low_grid))[None])


def maps_of(guided: GuidedCase, estimator: BiasEstimator | None) -> Tensor:
    """Guidance maps (1, 3, D, H, W) in canonical axes: of N4's field, or of the true one without an estimator."""
    case = guided.case
    shape = case.reference.shape
    if estimator is None:
        log_bias = guided.true_log_bias(shape)
    else:
        log_bias = resample(estimator(case.low[0, 0], guided.low_grid), shape)
    field = unwarping_field(guided.coil, guided.high_grid)
    return case.axes.enter(guidance_maps(resample(case.low, shape)[0], log_bias[None], field)[None])


Method = Callable[[GuidedCase], Tensor]


def methods_of(networks: Mapping[str, SuperResolver]) -> dict[str, Method]:
    """Interpolation and every network, on the input as it is and corrected first; guided ones with their maps too."""
    estimator, run = BiasEstimator(), SuperResolutionInferer()

    def infer(network: SuperResolver, case: Case, fields: Tensor | None = None) -> Tensor:
        return case.axes.leave(run(case.interpolated, network, case.condition, fields=fields))

    methods: dict[str, Method] = {
        "cubic": lambda g: g.case.axes.leave(g.case.interpolated),
        "cubic, corrected first": lambda g: g.case.axes.leave(corrected(g, estimator).interpolated),
    }
    for name, network in networks.items():
        network = network.to(memory_format=torch.channels_last_3d)
        if network.guided:
            methods[f"{name}, N4 and coefficients"] = lambda g, n=network: infer(n, g.case, maps_of(g, estimator))
            methods[f"{name}, true maps"] = lambda g, n=network: infer(n, g.case, maps_of(g, None))
            methods[f"{name}, no maps"] = lambda g, n=network: infer(n, g.case)
        else:
            methods[name] = lambda g, n=network: infer(n, g.case)
            methods[f"{name}, corrected first"] = lambda g, n=network: infer(n, corrected(g, estimator))
    return methods


def evaluate_guidance(
    items: Sequence[Mapping], networks: Mapping[str, SuperResolver], protocol: str, folder: Path, seed: int = 0
) -> str:
    """Write ``results.json`` and ``results.csv`` of all items, factor 2, and return the table.

    Results are fitted linearly to the truth inside the head before they are compared, all alike: how bright a scan is
    without its shading is nobody's to know. Seconds are those of the whole method, N4 and unwarping with it.
    """
    rows = []
    for item in items:
        guided = make_guided_case(item, protocol, (2, 2, 2), seed)
        for name, method in methods_of(networks).items():
            start = time.process_time()
            image = method(guided)[0, 0]
            seconds = time.process_time() - start
            image = match_linearly(image, guided.case.reference, guided.case.mask)
            rows.append(row_of(guided.case, name, image, seconds))
    return write_tables(rows, folder)
