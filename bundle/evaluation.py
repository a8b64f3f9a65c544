"""Tables of quality under a fixed protocol: sharp volumes are degraded, restored by every method, and compared."""

import csv
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .consistency import back_project, default_operator, project_back
from .geometry import resample
from .inferer import SuperResolutionInferer
from .intensity import fit_intensity, percentiles
from .io import read_volume, write_json
from .metrics import data_range, head_mask, psnr, ssim
from .modality import modality_by_histogram, modality_by_name
from .networks.super_resolver import SuperResolver, encode_condition
from .simulation.acquisition import Acquisition, AcquisitionOperator

# Noise is relative to the 0.1 to 99.9 percentile range. Training draws Gaussian profiles only: C is new to the network.
PROTOCOLS = {
    "A": Acquisition(noise=0.01),
    "B": Acquisition(noise=0.03),
    "C": Acquisition(profile=("box",) * 3, width=(0.8,) * 3, truncation=(0.9,) * 3, noise=0.01),
}
# Iterations and damping of back-projection that were best on the tuning subject (t1/seg3d), by noise and by whether
# slices are thick: see `tune_back_projection`.
BACK_PROJECTION = {("A", False): (3, 1.0), ("A", True): (5, 1.0), ("B", False): (1, 0.5), ("B", True): (2, 0.5)}
COLUMNS = ("volume", "modality", "protocol", "factors", "method", "psnr", "ssim", "seconds")

Restorer = Callable[["Case"], Tensor]


class Case(NamedTuple):
    """A degraded volume and its truth, normalised: ``low`` (1, 1, d, h, w), ``reference`` and ``mask`` (D, H, W)."""

    name: str
    modality: str
    protocol: str
    factors: tuple[int, int, int]
    low: Tensor
    reference: Tensor
    mask: Tensor
    span: float

    @property
    def condition(self) -> Tensor:
        """Condition of the network, (1, 6)."""
        return encode_condition("input", self.modality, self.factors)[None]


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
    span = data_range(reference, mask)
    return Case(Path(path).name, modality, protocol, tuple(factors), intensity.normalise(low), reference, mask, span)


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


def network_method(network: SuperResolver, device: torch.device, project: bool = True, **inferer: object) -> Restorer:
    """The bundle's way: interpolation, network, projection onto the input."""
    network = network.to(device, memory_format=torch.channels_last_3d)
    run = SuperResolutionInferer(**inferer)

    def restore(case: Case) -> Tensor:
        low = case.low.to(device)
        high = run(resample(low, case.reference.shape), network, case.condition.to(device))[:, :1]
        return (project_back(high, low, _operator(case)) if project else high).cpu()

    return restore


def _operator(case: Case) -> AcquisitionOperator:
    return default_operator(tuple(case.reference.shape), tuple(case.low.shape[2:]))


def compare(
    paths: Iterable[str | Path],
    methods: Mapping[str, Restorer],
    protocols: Sequence[str],
    factors: Sequence[Sequence[int]],
) -> list[dict]:
    """One row per volume, protocol, factors and method, with the keys of :data:`COLUMNS`."""
    rows = []
    for path in paths:
        for protocol in protocols:
            for factor in factors:
                case = make_case(path, protocol, factor)
                for name, method in methods.items():
                    start = time.perf_counter()
                    image = method(case)[0, 0]
                    seconds = time.perf_counter() - start
                    quality = [round(f(image, case.reference, case.mask, case.span), 4) for f in (psnr, ssim)]
                    shown = "x".join(str(f) for f in factor)
                    values = (case.name, case.modality, protocol, shown, name, *quality, round(seconds, 3))
                    rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


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
    """Rows as a Markdown table: PSNR in dB, SSIM and seconds."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in rows:
        cells = [
            *(str(row[c]) for c in COLUMNS[:5]),
            f"{row['psnr']:.2f}",
            f"{row['ssim']:.4f}",
            f"{row['seconds']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
