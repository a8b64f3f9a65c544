"""Uncertainty that can be believed: how the map ranks the errors, and the scale that makes it cover them.

Split-conformal calibration (Lei et al., JASA 2018): on subjects kept for tuning, the map is scaled so that
``|truth - mean| <= 1.645 u`` for 90 % of the voxels inside the head, with ``u`` the map that is written. If errors were
normal, ``u`` would be their standard deviation.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .evaluation import Case, Restorer, classical_methods, make_cases, network_method
from .io import write_json
from .metrics import local_deviation
from .networks.super_resolver import CONTRASTS, MODALITIES, SuperResolver

COVERAGE, NORMAL = 0.9, 1.645  # of the interval, and its half-width in standard deviations of a normal distribution
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of the reliability curve, half-widths by the normal distribution
_WIDTHS = (0.674, 0.842, 1.036, 1.282, 1.645, 1.960)
_VOXELS = 300_000  # looked at per volume


class Judged(NamedTuple):
    """Voxels inside the head of one volume: absolute error, uncertainty, and local deviation of back-projection."""

    case: Case
    error: np.ndarray
    uncertainty: np.ndarray
    deviation: np.ndarray


def judge(case: Case, restore: Restorer) -> Judged:
    """Compare a result with its spread, (1, 2, D, H, W), to the truth."""
    mean, spread = restore(case)[0]
    index = torch.nonzero(case.mask.flatten())[:, 0]
    index = index[:: max(1, len(index) // _VOXELS)]
    deviation = local_deviation(classical_methods()["IBP"](case)[0, 0])
    picked = ((mean - case.reference).abs(), spread, deviation)
    return Judged(case, *(v.flatten()[index].numpy() for v in picked))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation; ties, rare among floats, are broken by order."""
    ranks = [np.argsort(np.argsort(v)) for v in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def conformal_scale(error: np.ndarray, uncertainty: np.ndarray) -> float:
    """What uncertainties are multiplied by so that ``COVERAGE`` of the errors lie within ``NORMAL`` of them."""
    level = min(1.0, np.ceil((len(error) + 1) * COVERAGE) / len(error))
    return float(np.quantile(error / (NORMAL * uncertainty), level))


def coverage(error: np.ndarray, uncertainty: np.ndarray) -> list[float]:
    """Share of errors within the half-widths that a normal distribution has for :data:`LEVELS`."""
    return [round(float((error <= width * uncertainty).mean()), 4) for width in _WIDTHS]


def calibrate(network: SuperResolver, judged: Sequence[Judged], samples: int) -> dict[str, float]:
    """Set the scale of the spread, or of the head for one sample, from volumes judged with it as it is now.

    Returns:
        What the scale was multiplied by.
    """
    scale, factors = network.spread_scale if samples > 1 else network.scale_head.factor, {}
    for c, contrast in enumerate(CONTRASTS):
        for m, modality in enumerate(MODALITIES):
            own = [j for j in judged if j.case.contrast == contrast]
            own = [j for j in own if j.case.modality == modality] or own  # a modality without subjects takes all
            if own:
                error, uncertainty = (np.concatenate([getattr(j, k) for j in own]) for k in ("error", "uncertainty"))
                factors[f"{contrast} {modality}"] = factor = conformal_scale(error, uncertainty)
                scale[c, m] *= factor
    return factors


def judge_all(
    network: SuperResolver, items: Iterable[Mapping], device: torch.device, samples: int, factors: Sequence[int]
) -> list[Judged]:
    """Every case of protocol A: the mean and spread of ``samples`` samples, or of one what the head says."""
    drawn = {"samples": samples, "temperature": 1.0, "steps": 4} if samples > 1 else {"uncertainty": True}
    restore = network_method(network, device, spread=True, **drawn)
    return [judge(case, restore) for item in items for case in make_cases(item, ["A"], [factors])]


def report(judged: Sequence[Judged], folder: Path) -> list[dict]:
    """One row per volume, written to ``uncertainty.json`` and drawn as a reliability curve in ``reliability.png``."""
    rows = [
        {
            "volume": j.case.name,
            "modality": j.case.modality,
            "contrast": j.case.contrast,
            "spearman": round(rank_correlation(j.error, j.uncertainty), 3),
            "spearman of local deviation": round(rank_correlation(j.error, j.deviation), 3),
            "coverage": dict(zip(map(str, LEVELS), coverage(j.error, j.uncertainty), strict=True)),
        }
        for j in judged
    ]
    write_json(folder / "uncertainty.json", {"rows": rows})
    _draw(rows, folder / "reliability.png")
    return rows


def _draw(rows: Sequence[Mapping], path: Path) -> None:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0.45, 1], [0.45, 1], color="0.7", linewidth=1)
    axes.fill_between([0.88, 0.92], 0.87, 0.93, color="0.9")
    axes.set_prop_cycle(color=colormaps["tab20"].colors)
    for row in rows:
        label = f"{row['volume'].removesuffix('.nii.gz')} {row['modality']}, {row['contrast']}"
        axes.plot(LEVELS, list(row["coverage"].values()), marker="o", markersize=3, linewidth=1, label=label)
    axes.set(
        xlabel="interval asked for", ylabel="share of voxels inside it", title="Reliability of the uncertainty map"
    )
    axes.legend(fontsize=6, frameon=False)
    figure.savefig(path, dpi=120)
