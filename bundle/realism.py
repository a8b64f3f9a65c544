"""Does the simulation look like real scans? Tissue contrast and power spectrum, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from torch import Tensor

from .errors import InputError
from .io import prepare_output, read_volume, write_json
from .modality import modality_by_name
from .simulate import read_maps, scan
from .simulation.acquisition import Acquisition
from .simulation.protocol import MODALITIES, draw
from .simulation.rendering import brain_mask, deform, draw_shape, prepare_map, render
from .spectra import radial_mean

FREQUENCIES = np.linspace(0.05, 0.4, 15)  # cycles per mm


def fit_mixture(values: np.ndarray, iterations: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means (rising), standard deviations and shares of three Gaussians, by expectation maximisation."""
    values = np.sort(np.asarray(values, dtype=np.float64))[:: max(1, len(values) // 20_000)]
    mean, share = np.quantile(values, (0.1, 0.45, 0.8)), np.full(3, 1 / 3)
    deviation = np.full(3, values.std() / 4)
    for _ in range(iterations):
        density = share * np.exp(-0.5 * ((values[:, None] - mean) / deviation) ** 2) / deviation
        weight = density / density.sum(1, keepdims=True).clip(1e-300)
        total = weight.sum(0).clip(1e-9)
        mean, share = (weight * values[:, None]).sum(0) / total, total / len(values)
        spread = (weight * (values[:, None] - mean) ** 2).sum(0) / total
        deviation = np.sqrt(spread).clip(1e-3 * values.std())
    order = np.argsort(mean)
    return mean[order], deviation[order], share[order]


def tissue_ratios(volume: Tensor, modality: str) -> dict[str, float]:
    """``GM/WM`` and ``CSF/WM`` of a brain-only volume, from a mixture of three classes.

    Args:
        volume: (D, H, W), background zero.
        modality: ``T1w`` (fluid dark) or ``T2w`` (fluid bright).
    """
    inside = volume[volume > 0.02 * volume.max()].numpy()
    inside = inside[inside < np.percentile(inside, 99.5)]
    dark, middle, bright = fit_mixture(inside)[0]
    white, fluid = (bright, dark) if modality == "T1w" else (dark, bright)
    return {"GM/WM": float(middle / white), "CSF/WM": float(fluid / white)}


def power_spectrum(volume: Tensor, spacing: Sequence[float], frequencies: np.ndarray = FREQUENCIES) -> np.ndarray:
    """Radially averaged power at ``frequencies`` (cycles per mm), of the volume over its mean inside the head.

    Frequencies beyond the Nyquist frequency of the coarsest axis are NaN.
    """
    mean = volume[volume > 0.1 * volume.max()].mean()
    power = torch.fft.rfftn(volume / mean).abs().square() / volume.numel()
    return radial_mean(power, volume.shape, spacing, frequencies)


class Brain(NamedTuple):
    """A brain-only volume of about 1 mm: real, or simulated with its 7 T partner."""

    name: str
    modality: str
    volume: Tensor
    spacing: tuple[float, float, float]
    partner: Tensor | None = None


def real_brain(path: str) -> Brain:
    """A skull-stripped scan, brought to 1 mm where it is finer."""
    volume = Orientation("RAS", labels=None)(read_volume(path))
    shape = [min(n, round(n * s)) for n, s in zip(volume.shape[1:], volume.pixdim.tolist(), strict=True)]
    spacing = [n * s / m for n, s, m in zip(volume.shape[1:], volume.pixdim.tolist(), shape, strict=True)]
    modality = modality_by_name(Path(path)) or next((m for m in MODALITIES if m[:2].lower() in Path(path).name), "")
    if modality not in MODALITIES:
        raise InputError(f"{path}: the name must tell T1w or T2w")
    return Brain(Path(path).name, modality, Acquisition()(volume.as_tensor()[0].clamp_min(0), shape), tuple(spacing))


def simulated_brain(path: str, modality: str, seed: int = 0) -> Brain:
    """What 3 T and 7 T see of a label map's brain at the map's spacing; T1w is an MPRAGE."""
    name, classes, affine = next(read_maps(path))
    classes = Orientation("RAS", labels=None)(MetaTensor(classes[None], affine=torch.from_numpy(affine)))
    spacing, classes = tuple(classes.pixdim.tolist()), classes.as_tensor()[0].contiguous()
    random = np.random.RandomState([seed, MODALITIES.index(modality)])
    parameters = draw(random, modality, 3.0, 7.0)
    while modality == "T1w" and parameters["low_sequence"]["sequence"] != "mprage":
        parameters = draw(random, modality, 3.0, 7.0)
    steps = [s / 2 for s in spacing]
    fine = deform(prepare_map(classes, spacing), draw_shape(random), steps)
    low, high = render(fine, parameters, steps)
    mask = Acquisition()(brain_mask(fine, 6, 4), classes.shape) > 0.5
    low, _ = scan(low, parameters, classes.shape)
    return Brain(name, modality, low * mask, spacing, Acquisition()(high, classes.shape) * mask)


def compare_brains(real: Sequence[Brain], simulated: Sequence[Brain]) -> list[dict]:
    """One row per brain: kind, name, modality, ratios of tissues, power spectrum."""
    rows = []
    for kind, brains in (("real", real), ("simulated 3 T", simulated)):
        for brain in brains:
            spectrum = power_spectrum(brain.volume, brain.spacing)
            ratios = tissue_ratios(brain.volume, brain.modality)
            rows.append({"kind": kind, "name": brain.name, "modality": brain.modality, **ratios, "power": spectrum})
            if brain.partner is not None:
                ratios = tissue_ratios(brain.partner, brain.modality)
                rows.append({"kind": "simulated 7 T", "name": brain.name, "modality": brain.modality, **ratios})
    return rows


def realism(real: Sequence[str], maps: Sequence[str], folder: Path) -> None:
    """Write ``realism.json`` and ``realism.png``, and print the table.

    Args:
        real: skull-stripped scans whose names tell T1w or T2w.
        maps: label maps.
        folder: for the results.

    Raises:
        InputError: no scan of one of the modalities.
    """
    folder = prepare_output(folder)
    brains = [real_brain(path) for path in real]
    missing = [m for m in MODALITIES if all(b.modality != m for b in brains)]
    if missing:
        raise InputError(f"brains: no {' and no '.join(missing)} scan among them; both modalities are compared")
    persons = [simulated_brain(path, m, seed) for seed, path in enumerate(maps) for m in MODALITIES]
    rows = compare_brains(brains, persons)
    ratio = {m: spectral_ratio(rows, m) for m in MODALITIES}
    plain = [{**row, "power": list(row.get("power", []))} for row in rows]
    write_json(
        folder / "realism.json",
        {"frequencies": FREQUENCIES.tolist(), "rows": plain, "spectral_ratio": {m: list(r) for m, r in ratio.items()}},
    )
    draw_realism(rows, brains, persons, folder / "realism.png")
    for m in MODALITIES:
        for kind in ("real", "simulated 3 T", "simulated 7 T"):
            print(f"{m} {kind:13} " + "; ".join(summary(rows, m, kind, key) for key in ("GM/WM", "CSF/WM")))
        print(f"{m} power, simulated over real: {np.nanmin(ratio[m]):.2f} to {np.nanmax(ratio[m]):.2f}")


def spectral_ratio(rows: Sequence[Mapping], modality: str) -> np.ndarray:
    """Geometric mean of the power of simulated brains over that of the real ones, at every frequency."""
    powers = [
        [np.log(r["power"]) for r in rows if (r["kind"], r["modality"]) == (kind, modality)]
        for kind in ("simulated 3 T", "real")
    ]
    return np.exp(np.nanmean(powers[0], axis=0) - np.nanmean(powers[1], axis=0))


def summary(rows: Sequence[Mapping], modality: str, kind: str, key: str) -> str:
    """Median and range of a ratio of tissues."""
    values = [row[key] for row in rows if (row["kind"], row["modality"]) == (kind, modality)]
    return f"{key} {np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def draw_realism(rows: Sequence[Mapping], real: Sequence[Brain], simulated: Sequence[Brain], path: Path) -> None:
    """Slices of a real brain, a simulated one at 3 T and at 7 T, and the spectra, one row per modality."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(15, 7.5), layout="constrained")
    for line, modality in enumerate(MODALITIES):
        first, second = (next(b for b in brains if b.modality == modality) for brains in (real, simulated))
        shown = ("real", first.volume), ("simulated, 3 T", second.volume), ("simulated, 7 T", second.partner)
        for axis, (title, volume) in zip(axes[line], shown, strict=False):
            box = [slice(int(i.min()), int(i.max()) + 1) for i in (volume > 0.1 * volume.max()).nonzero().T]
            plane = volume[tuple(box)]
            axis.imshow(plane[:, :, int(plane.shape[2] * 0.62)].T, cmap="gray", origin="lower", vmin=0)
            axis.set_title(f"{modality}, {title}")
            axis.set_axis_off()
        for row in rows:
            if row["modality"] == modality and "power" in row:
                colour = "black" if row["kind"] == "real" else "tab:orange"
                axes[line, 3].semilogy(FREQUENCIES, row["power"], color=colour, alpha=0.8, label=row["kind"])
        handles, labels = axes[line, 3].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        axes[line, 3].legend(unique.values(), unique.keys())
        axes[line, 3].set(xlabel="cycles per mm", ylabel="power", title=f"{modality}, radial power spectrum")
    figure.savefig(path, dpi=70)
    plt.close(figure)
