"""Tables of quality under a fixed protocol: sharp volumes are degraded, restored by every method, and compared.

Label maps stand for pairs of 1.5 T and 7 T: the simulated low field is degraded, and the truth is the high field. Given
pairs are taken as they are. What the columns mean stands in docs/evaluation.md.
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .cases import PROTOCOLS, Case, main_group, make_case, make_cases, make_simulated_case
from .consistency import agree, back_project, default_operator
from .geometry import resample
from .inferer import SuperResolutionInferer
from .intensity import match_linearly
from .io import write_json
from .measure import measured
from .metrics import psnr
from .networks.anatomy import AnatomyExtractor
from .networks.super_resolver import SuperResolver
from .scores import DICE_GROUPS, IMAGE_METRICS, image_scores, scorer
from .simulation.acquisition import AcquisitionOperator

__all__ = ["PROTOCOLS", "Case", "main_group", "make_case", "make_cases", "make_simulated_case"]  # also from here

# Iterations and damping of back-projection that were best on the tuning subject (t1/seg3d), by noise and by whether
# slices are thick: see `tune_back_projection`.
BACK_PROJECTION = {("A", False): (3, 1.0), ("A", True): (5, 1.0), ("B", False): (1, 0.5), ("B", True): (2, 0.5)}
CLASSICAL = ("trilinear", "cubic", "IBP")
HEAD = ("volume", "modality", "contrast", "protocol", "factors", "method")
COLUMNS = (*HEAD, *IMAGE_METRICS, "consistency", *DICE_GROUPS, "seconds", "memory_gb")
PRINTED = (*HEAD, "psnr", "ssim", "gmsd", "high_frequency", "histogram", "dice_gm", "seconds")

Restorer = Callable[["Case"], Tensor]
Look = Callable[[Case, Mapping[str, Tensor], Sequence[Mapping]], None]


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
            result[:, :1], _ = agree(result[:, :1], case.low.to(device), network.width_rule)
        return (result if spread else result[:, :1]).cpu()

    return restore


def _operator(case: Case) -> AcquisitionOperator:
    return default_operator(tuple(case.reference.shape), tuple(case.low.shape[2:]))


def compare(
    items: Iterable[Mapping],
    methods: Mapping[str, Restorer],
    protocols: Sequence[str],
    factors: Sequence[Sequence[int]],
    anatomy: AnatomyExtractor | None = None,
    look: Look | None = None,
    device: torch.device | str = "cpu",
    metrics: Sequence[str] = tuple(IMAGE_METRICS),
) -> list[dict]:
    """One row per volume, modality, protocol, factors and method, with keys of :data:`COLUMNS`.

    Args:
        items: of a datalist.
        methods: by name. A case that comes with a prediction gets a row of that name more.
        protocols: for volumes that are to be degraded.
        factors: likewise.
        anatomy: extractor for the tissue scores; None leaves these out.
        look: called with every case, its results by method, and their rows.
        device: where the methods run, for their memory.
        metrics: names of the image metrics that are wanted.
    """
    rows = []
    for item in items:
        for case in make_cases(item, protocols, factors):
            score, images, new = scorer(case, anatomy, metrics), {}, []
            for name, method in methods.items():
                found = measured(lambda method=method, case=case: method(case)[0, 0], device)
                image = found.result
                if case.contrast == "7T" and name in CLASSICAL:
                    image = match_linearly(image, case.reference, case.mask)
                images[name] = image
                new.append(row_of(case, name, image, found.seconds, score(image), found.gigabytes))
            if case.prediction is not None:
                images["prediction"] = case.prediction
                new.append(row_of(case, "prediction", case.prediction, None, score(case.prediction)))
            if look is not None:
                look(case, images, new)
            rows += new
    return rows


def row_of(
    case: Case,
    method: str,
    image: Tensor,
    seconds: float | None,
    scores: Mapping | None = None,
    gigabytes: float | None = None,
) -> dict:
    """What a table says of one result (D, H, W): keys of :data:`COLUMNS`."""
    factors = "x".join(f"{f:.4g}" for f in case.factors)
    head = (case.name, case.modality, case.contrast, case.protocol, factors, method)
    cost = {"seconds": seconds, "memory_gb": gigabytes}
    cost = {name: round(value, 3) for name, value in cost.items() if value is not None}
    return {**dict(zip(HEAD, head, strict=True)), **(image_scores(case, image) if scores is None else scores), **cost}


def tune_back_projection(path: str | Path, protocol: str, factors: Sequence[int]) -> tuple[int, float]:
    """Iterations and damping with the highest PSNR on one volume."""
    case = make_case(path, protocol, factors)
    grid = [(n, d) for n in (1, 2, 3, 5, 8) for d in (0.5, 1.0)]
    score = {
        pair: psnr(back_project(case.low, _operator(case), *pair)[0, 0], case.reference, case.mask, case.span)
        for pair in grid
    }
    return max(score, key=score.get)


def write_tables(rows: Sequence[Mapping], folder: Path, name: str = "results") -> str:
    """Write ``results.json`` and ``results.csv``; return the table as Markdown. Infinite values are text in JSON."""
    write_json(folder / f"{name}.json", {"rows": [{k: _plain(v) for k, v in row.items()} for row in rows]})
    write_csv(rows, folder / f"{name}.csv", COLUMNS)
    return markdown(rows)


def write_csv(rows: Sequence[Mapping], path: Path, columns: Sequence[str] = ()) -> None:
    """Rows as CSV: the columns named, as far as any row has them, then all others in their order."""
    present = list(dict.fromkeys(key for row in rows for key in row))
    names = [c for c in columns if c in present] + [c for c in present if c not in columns]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)


def _plain(value: object) -> object:
    """JSON knows neither infinity nor NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def markdown(rows: Sequence[Mapping], columns: Sequence[str] = PRINTED) -> str:
    """Rows as a Markdown table, the columns named that any row has."""
    columns = [c for c in columns if any(c in row for row in rows)]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(c), c) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object, column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if column in ("psnr", "seconds", "memory_gb") else f"{value:.4f}"
