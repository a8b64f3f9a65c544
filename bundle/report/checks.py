"""Numbers of the page: does the result agree with its input, and is the input like those of training?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..consistency import noise_level
from ..metrics import data_range
from ..registration import EDGE_AGREEMENT, edge_agreement
from ..saving import TRAINED_FACTORS, factor_warnings
from .case import Case

FACTORS = "Factor per axis"
TRAINED_NOISE = 0.05  # largest, relative to bright tissue: configs/train.json and simulation/protocol.py
_FAR = 3.0  # standard deviations


class Row(NamedTuple):
    """A line of a table: what, how much, what that means, and whether it is as it should be (None: no such thing)."""

    name: str
    value: str
    meaning: str
    good: bool | None = None


def residual(case: Case) -> Tensor:
    """Input minus degraded result, normalised, on the grid of the input."""
    return case.low - case.operator(case.high)


def residual_noise(case: Case) -> float:
    """Standard deviation of the white noise in :func:`residual`, inside the head."""
    return noise_level(residual(case)[None, None], case.mask[None, None])


def consistency(case: Case) -> list[Row]:
    """How far the result, degraded again, agrees with the input inside the head."""
    if not case.mask.any():
        return [Row("Agreement", "not measured", "No head was found in the input.", False)]
    return _same_contrast(case) if case.contrast == "input" else _other_contrast(case)


def _same_contrast(case: Case) -> list[Row]:
    off, noise = residual(case)[case.mask], residual_noise(case)
    rms, span = float(off.square().mean().sqrt()), data_range(case.low, case.mask)
    far = float((off.abs() > _FAR * max(noise, 1e-9)).float().mean())
    unit = case.intensity.scale
    return [
        Row(
            "Difference to the input (RMS)",
            f"{100 * rms / span:.2f} % of its range",
            f"{rms * unit:.3g} in the input's units, inside the head.",
        ),
        Row(
            "Noise in that difference",
            f"{100 * noise / span:.2f} % of its range",
            "Where the difference is only noise, both numbers are about the same.",
        ),
        Row(
            f"Voxels off by more than {_FAR:g} times the noise",
            f"{100 * far:.1f} %",
            "0.3 % if all of it were Gaussian noise. The overlay Disagreement shows where they are.",
        ),
    ]


def _other_contrast(case: Case) -> list[Row]:
    degraded, spacing = case.operator(case.high), torch.tensor(case.low_spacing).numpy()
    edges = edge_agreement(case.low, degraded, case.mask, spacing)
    both = torch.stack([case.low[case.mask], degraded[case.mask]])
    correlation = float(torch.corrcoef(both)[0, 1])
    return [
        Row(
            "Edges that point the same way",
            f"{edges:.2f}",
            f"1/3 by chance, 1 everywhere. Scans of one head in two contrasts had 0.83 and more; "
            f"below {EDGE_AGREEMENT} something is wrong.",
            edges >= EDGE_AGREEMENT,
        ),
        Row(
            "Correlation of intensities",
            f"{correlation:.2f}",
            "No value is right or wrong here: the contrast was changed on purpose.",
        ),
    ]


def trained_range(case: Case, sidecar: Mapping[str, Any]) -> list[Row]:
    """The input against the range of the training; what lies outside is marked."""
    factors = [float(f) for f in sidecar["Factors"]]
    ranges = " or ".join(f"{most:g} on one axis with {others:g} on the others" for most, others in TRAINED_FACTORS)
    modality = str(sidecar["Modality"])
    noise = noise_level(case.low[None, None], case.mask[None, None])
    return [
        Row(
            FACTORS,
            " x ".join(f"{f:.3g}" for f in factors),
            f"At most {ranges}.",
            not factor_warnings(factors),
        ),
        Row("Modality", modality, "T1w and T2w; of others few were seen.", modality in ("T1w", "T2w")),
        Row(
            "Noise of the input, estimated",
            f"{100 * noise:.1f} % of bright tissue",
            f"Up to {100 * TRAINED_NOISE:g} %.",
            noise <= TRAINED_NOISE,
        ),
    ]


def range_warnings(rows: list[Row]) -> list[str]:
    """A sentence for every row of :func:`trained_range` that is outside; of factors the sidecar warns by itself."""
    outside = [row for row in rows if row.good is False and row.name != FACTORS]
    return [f"{row.name}: {row.value}. Training had: {row.meaning}" for row in outside]
