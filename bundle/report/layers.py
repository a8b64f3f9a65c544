"""What the viewer draws: input, result, and coloured maps over them."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..intensity import percentiles
from ..networks.anatomy import TISSUES
from ..simulation.acquisition import Acquisition
from .case import Case, cut
from .checks import residual, residual_noise
from .sheets import Encode, data_uri, jpeg, make_sheets, png

MAX_VOXELS = 24_000_000  # of the result as shown; a finer one is shown in larger voxels
QUALITIES = (92, 85, 78, 70)  # of JPEG: the best that stays below
GREY_BYTES = 4_000_000  # of input and result together, as text
_LEVELS = 16  # colours of a map
_DISAGREEMENT = (2.0, 6.0)  # times the noise, where colour begins and where it is full
TISSUE_COLOURS = {  # bright, told apart also by eyes that see no red or green (after Okabe and Ito, 2008)
    "CSF": (86, 180, 233),
    "cortical GM": (230, 159, 0),
    "deep GM": (213, 94, 0),
    "WM": (240, 240, 200),
    "cerebellar GM": (204, 121, 167),
    "cerebellar WM": (250, 200, 230),
    "brainstem": (0, 158, 115),
    "skull": (120, 120, 200),
    "fat": (240, 228, 66),
    "other": (130, 110, 90),
}
_HEAT = ((90, 0, 160), (200, 20, 120), (240, 50, 40), (255, 140, 0), (255, 235, 0))
_COLD_HOT = ((30, 90, 255), (120, 200, 255), (255, 190, 90), (255, 60, 30))


def make_layers(case: Case) -> dict[str, dict[str, Any]]:
    """Everything that is drawn, by name: ``before``, ``after``, and what there is of the maps.

    Every layer is :func:`bundle.report.sheets.make_sheets` of the head's box, with ``step`` and ``start``, mm from the
    corner of the field of view to the middle of the first voxel; a map has ``legend`` too.
    """
    low, high = window(case)
    grey = [_grey(v, low, high) for v in (case.low, _shown(case.high))]
    for quality in QUALITIES:
        layers = {name: _layer(case, v, jpeg(quality)) for name, v in zip(("before", "after"), grey, strict=True)}
        if sum(len(uri) for layer in layers.values() for uri in layer["images"]) <= GREY_BYTES:
            break
    if case.uncertainty is not None:
        layers["uncertainty"] = _uncertainty(case, case.uncertainty)
    if case.tissue is not None:
        layers["tissue"] = _tissue(case, case.tissue)
    if case.contrast == "input" and case.mask.any():
        layers["disagreement"] = _disagreement(case)
    return layers


def window(case: Case) -> tuple[float, float]:
    """Normalised values shown as black and as white, the same for input and result."""
    inside = case.low[case.mask] if case.mask.any() else case.low
    low, high = percentiles(case.low, (0.5,))[0], percentiles(inside, (99.8,))[0]
    high = low + 1.05 * (high - low)
    return min(low, high - 1e-3), high


def montage(layers_of: Case, height: int = 220) -> str:
    """The middle slices of input (above) and result as one JPEG, for readers whose browser runs no scripts."""
    low, high = window(layers_of)
    rows = []
    for volume in (layers_of.low, layers_of.high):
        row = []
        for axis in (2, 1, 0):
            plane = _grey(volume.select(axis, volume.shape[axis] // 2), low, high)
            spacing = [s * n / m for s, n, m in zip(layers_of.spacing, layers_of.high.shape, volume.shape, strict=True)]
            wide, tall = (spacing[a] * volume.shape[a] for a in range(3) if a != axis)
            image = Image.fromarray(np.ascontiguousarray(plane.T[::-1, ::-1]))
            row.append(
                np.asarray(image.resize((max(1, round(height * wide / tall)), height), Image.Resampling.BICUBIC))
            )
        rows.append(np.hstack(row))
    return data_uri(Image.fromarray(np.vstack(rows)), "JPEG", quality=QUALITIES[1])


def _grey(volume: Tensor, low: float, high: float) -> np.ndarray:
    return ((volume - low) / (high - low) * 255).round().clamp(0, 255).byte().numpy()


def _shown(volume: Tensor) -> Tensor:
    """The volume, or one of :data:`MAX_VOXELS` over the same field of view where it has more."""
    share = (MAX_VOXELS / volume.numel()) ** (1 / 3)
    if share >= 1:
        return volume
    return Acquisition().operator(tuple(volume.shape), tuple(int(n * share) for n in volume.shape))(volume)


def _layer(case: Case, volume: np.ndarray, encode: Encode) -> dict[str, Any]:
    part, starts = cut(torch.from_numpy(volume), case.box)
    step = [s * n / m for s, n, m in zip(case.spacing, case.high.shape, volume.shape, strict=True)]
    begin = [(i + 0.5) * s for i, s in zip(starts, step, strict=True)]
    return make_sheets(part.numpy(), encode) | {"step": step, "start": begin}


def ramp(colours: tuple[tuple[int, int, int], ...], alphas: np.ndarray) -> list[tuple[int, int, int, int]]:
    """As many colours as ``alphas``, interpolated between the given ones, with those opacities (0 to 255)."""
    place = np.linspace(0, len(colours) - 1, len(alphas))
    channels = [np.interp(place, range(len(colours)), channel) for channel in zip(*colours, strict=True)]
    return [tuple(round(float(v)) for v in (*rgb, a)) for *rgb, a in zip(*channels, alphas, strict=True)]


def _uncertainty(case: Case, values: Tensor) -> dict[str, Any]:
    """Uncertainty in voxels twice as large, coloured between its 1 and 99.5 percentiles inside the head."""
    sizes = [max(1, n // 2) for n in values.shape]
    coarse = F.adaptive_avg_pool3d(values[None], sizes)[0]
    inside = F.interpolate(case.mask[None, None].float(), sizes, mode="trilinear")[0, 0] > 0.5
    least, most = percentiles(coarse[inside] if inside.any() else coarse, (1.0, 99.5))
    share = ((coarse - least) / max(most - least, 1e-12)).clamp(0, 1)
    index = (1 + share * (_LEVELS - 2)).round() * inside
    colours = [(0, 0, 0, 0), *ramp(_HEAT, np.linspace(50, 255, _LEVELS - 1))]
    legend = {"kind": "bar", "from": f"{least:.3g}", "to": f"{most:.3g}", "colours": colours[1:]}
    legend["text"] = "Uncertainty (one standard deviation, in the input's units)"
    return _layer(case, index.byte().numpy(), png(colours)) | {"legend": legend, "smooth": True}


def _tissue(case: Case, labels: Tensor) -> dict[str, Any]:
    """Tissue, as seen: no background, which would only hide the picture."""
    palette = [(*TISSUE_COLOURS.get(name, (0, 0, 0)), 0 if name == "background" else 255) for name in TISSUES]
    share = (MAX_VOXELS / labels.numel()) ** (1 / 3)
    if share < 1:
        sizes = [int(n * share) for n in labels.shape]
        labels = F.interpolate(labels[None, None].float(), sizes, mode="nearest-exact")[0, 0].byte()
    found = set(torch.unique(labels).tolist())
    entries = [[name, list(palette[i][:3])] for i, name in enumerate(TISSUES) if i in found and palette[i][3]]
    legend = {"kind": "classes", "classes": entries}
    legend["text"] = "Most probable tissue, good for large structures only"
    return _layer(case, labels.numpy(), png(palette)) | {"legend": legend}


def _disagreement(case: Case) -> dict[str, Any]:
    """Where input and degraded result differ by more than noise, on the grid of the input."""
    begin, full = _DISAGREEMENT
    ratio = residual(case) / max(residual_noise(case), 1e-6)
    half = _LEVELS // 2
    level = ((ratio.abs() - begin) / (full - begin) * half).ceil().clamp(0, half) * case.mask
    index = torch.where(ratio < 0, level, level + half) * (level > 0)
    alphas = np.linspace(110, 255, half)
    colours = [(0, 0, 0, 0), *ramp(_COLD_HOT[1::-1], alphas), *ramp(_COLD_HOT[2:], alphas)]
    bar = [*colours[half:0:-1], *colours[half + 1 :]]
    legend = {"kind": "bar", "from": f"-{full:g}", "to": f"+{full:g}", "colours": bar}
    legend["text"] = f"Input minus degraded result, in standard deviations of the noise (from {begin:g})"
    return _layer(case, index.byte().numpy(), png(colours)) | {"legend": legend}
