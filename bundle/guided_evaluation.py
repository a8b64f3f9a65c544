"""Tables of what guidance is worth: scans with strong shading and distortion, restored with and without its maps.

Every volume is distorted by a made-up coil and shaded, then degraded by a protocol of :mod:`bundle.cases`; the
truth has neither. The methods know the coil, and not the shading, but for the rows that say so.
"""

import time
import zlib
from collections.abc import Mapping, Sequence
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


class View(NamedTuple):
    """A way to be given a scan: its input, guidance maps (1, 3, D, H, W) or None, and what making both took, in s."""

    case: Case
    fields: Tensor | None = None
    seconds: float = 0.0


def views_of(guided: GuidedCase, estimator: BiasEstimator) -> dict[str, View]:
    """The scan as it is, corrected first as a pipeline would (N4's field, then unwarping), and with guidance maps.

    Maps are in canonical axes: those of N4's field, and, which nobody has, those of the true one.
    """
    case, low, shape = guided.case, guided.case.low[0], guided.case.reference.shape
    start = time.process_time()
    found = estimator(low[0], guided.low_grid)
    n4 = time.process_time()
    plain = case._replace(low=apply_field(remove_bias(low, found), unwarping_field(guided.coil, guided.low_grid))[None])
    unwarped = time.process_time()
    estimated = _maps(guided, resample(found, shape))
    maps = time.process_time() - unwarped
    return {
        "as it is": View(case),
        "corrected first": View(plain, seconds=unwarped - start),
        "N4 and coefficients": View(case, estimated, n4 - start + maps),
        "true maps": View(case, _maps(guided, guided.true_log_bias(shape)), maps),
    }


def _maps(guided: GuidedCase, log_bias: Tensor) -> Tensor:
    field = unwarping_field(guided.coil, guided.high_grid)
    image = resample(guided.case.low, guided.case.reference.shape)[0]
    return guided.case.axes.enter(guidance_maps(image, log_bias[None], field)[None])


def rows_of(guided: GuidedCase, networks: Mapping[str, SuperResolver]) -> list[dict]:
    """Rows of cubic interpolation and every network for one scan; ``method`` is ``NAME, VIEW``.

    Networks that are guided get no maps, N4's and the true ones; others the scan as it is and corrected first. Results
    are fitted linearly to the truth inside the head before they are compared, all alike: how bright a scan is without
    its shading is nobody's to know. Seconds of the processor are those of the whole method, N4 and unwarping with it.
    """
    views, run, rows = views_of(guided, BiasEstimator()), SuperResolutionInferer(), []
    for name, network in {"cubic": None, **networks}.items():
        told = network is not None and network.guided
        for label in ("as it is", *(("N4 and coefficients", "true maps") if told else ("corrected first",))):
            case, fields, prepared = views[label]
            start = time.process_time()
            image = case.interpolated
            if network is not None:
                image = run(image, network.to(memory_format=torch.channels_last_3d), case.condition, fields=fields)
            seconds = prepared + time.process_time() - start
            image = match_linearly(case.axes.leave(image)[0, 0], case.reference, case.mask)
            rows.append(row_of(guided.case, f"{name}, {label}", image, seconds))
    return rows


def evaluate_guidance(
    items: Sequence[Mapping], networks: Mapping[str, SuperResolver], protocol: str, folder: Path, seed: int = 0
) -> str:
    """Write ``results.json`` and ``results.csv`` of all items, factor 2, see :func:`rows_of`; return the table."""
    rows = [row for item in items for row in rows_of(make_guided_case(item, protocol, (2, 2, 2), seed), networks)]
    return write_tables(rows, folder)
