"""From a label map to what two scanners would see of that head, at finer spacing than the map.

A map is prepared once (:func:`prepare_map`). Every person made of it is warped (:func:`deform`),
may get lesions (:func:`add_lesions`), and is rendered at two fields (:func:`render`). All functions run on the device
of their tensors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import apply_axes, gaussian_matrix, resample, resample_matrix
from .acquisition import bias_field
from .protocol import LESIONS, SHAPE, signals
from .tissues import CLASSES

_BRAIN = ("GM", "WM", "pallidum", "brainstem", "choroid")  # parts of names of classes
_SLAB = 16  # planes worked on at a time: intermediates stay small
_SLOPE = 0.02  # step for the slopes of the signal with T1 and B1


def smooth_noise(shape: Sequence[int], fwhm: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of unit standard deviation with a grain of ``fwhm`` voxels, ``(*shape,)``.

    Drawn on the CPU, two samples per grain, and interpolated.
    """
    coarse = [min(n, max(4, round(2 * n / fwhm))) for n in shape]
    noise = resample(torch.randn(coarse, generator=generator), shape)
    return noise / noise.std().clamp_min(1e-6)


def add_fat(classes: Tensor, spacing: Sequence[float], generator: torch.Generator) -> Tensor:
    """Turn part of the soft tissue into fat: a layer of varying thickness under the skin, and streaks deeper down.

    Label maps know only "soft tissue", whose bright fat is the brightest thing in a T1-weighted head.

    Args:
        classes: ``(D, H, W)`` uint8, indices into ``CLASSES``.
        spacing: mm.
        generator: on the CPU.
    """
    soft = classes == CLASSES.index("soft tissue")
    outside = (classes == CLASSES.index("skin")).float()[None, None]
    depth = torch.zeros(classes.shape, device=classes.device)
    for _ in range(10):
        depth += 1 - outside[0, 0]
        outside = F.max_pool3d(outside, 3, stride=1, padding=1)
    grain = 12 / float(np.mean(spacing))
    thickness = (3.5 + 1.5 * smooth_noise(classes.shape, 3 * grain, generator)).clamp(1, 8).to(depth)
    streaks = smooth_noise(classes.shape, grain / 2, generator).to(depth) > 1.2
    fat = soft & ((depth * float(np.mean(spacing)) < thickness) | streaks)
    return classes.masked_fill(fat, CLASSES.index("fat"))


def subdivide(classes: Tensor, factor: int = 2, fwhm: float = 1.6) -> Tensor:
    """The same head in voxels ``factor`` times finer, with borders as smooth as the tissue they separate.

    Every class is blurred and interpolated, and the largest wins: the stairs of the label map go, its corners too.

    Args:
        classes: ``(D, H, W)`` uint8.
        factor: whole number.
        fwhm: of the blur, in voxels of the map.

    Returns:
        ``(factor D, factor H, factor W)`` uint8.
    """
    fine = [n * factor for n in classes.shape]
    best = torch.zeros(fine, device=classes.device, dtype=torch.float16)
    result = torch.zeros(fine, device=classes.device, dtype=torch.uint8)
    margin = 2 + round(fwhm)
    for value in torch.unique(classes).tolist():
        inside = classes == value
        ranges = []
        for axis in range(3):
            seen = torch.nonzero(inside.movedim(axis, 0).flatten(1).any(1)).flatten()
            ranges.append((max(0, int(seen[0]) - margin), min(classes.shape[axis], int(seen[-1]) + 1 + margin)))
        coarse = tuple(slice(a, b) for a, b in ranges)
        where = tuple(slice(factor * a, factor * b) for a, b in ranges)
        matrices = [gaussian_matrix(b - a, factor * (b - a), fwhm) for a, b in ranges]
        share = apply_axes(inside[coarse].float(), matrices).half()
        better = share > best[where]
        best[where] = torch.where(better, share, best[where])
        result[where] = torch.where(better, value, result[where])
    return result


def prepare_map(classes: Tensor, spacing: Sequence[float], factor: int = 2) -> Tensor:
    """The class map ``(D, H, W)`` with fat, in voxels ``factor`` times finer; the same map always gives the same."""
    return subdivide(add_fat(classes, spacing, torch.Generator().manual_seed(0)), factor)


def brain_mask(classes: Tensor, grow: int, shrink: int, deep: int = 16) -> Tensor:
    """What a skull-stripping tool leaves, 0 or 1: brain tissue, fluid that a closing takes in, and the ventricles.

    Computed on every other voxel, since a tool works on the scanner's coarser ones.

    Args:
        classes: ``(D, H, W)`` uint8, fine.
        grow: voxels of dilation.
        shrink: voxels of erosion after it.
        deep: voxels from the skull beyond which everything stays, fluid too.
    """
    names = [
        [any(word in name for word in words) for name in CLASSES] for words in (_BRAIN, (*_BRAIN, "CSF", "vessel"))
    ]
    brain, inside = torch.tensor(names, device=classes.device).float()[:, classes[::2, ::2, ::2].int()]
    mask = 1 - _dilate(1 - _dilate(brain, grow // 2), shrink // 2)
    mask = torch.maximum(mask, 1 - _dilate(1 - inside, deep // 2))
    for axis, n in enumerate(classes.shape):
        mask = mask.repeat_interleave(2, axis).narrow(axis, 0, n)
    return mask


def _dilate(mask: Tensor, voxels: int) -> Tensor:
    """A cube of ``2 voxels + 1`` around every voxel of the mask, as three products with band matrices."""
    bands = []
    for n in mask.shape:
        index = torch.arange(n, device=mask.device)
        bands.append(((index[None] - index[:, None]).abs() <= voxels).float())
    return (apply_axes(mask, bands) > 0.5).float()


def draw_shape(random: np.random.RandomState) -> dict[str, Any]:
    """An affine matrix and the displacement of 5x5x5 control points in mm, as plain numbers."""
    angles = np.radians(random.normal(0, SHAPE["rotation"] / 2, 3))
    matrix = np.diag(np.exp(random.normal(0, SHAPE["scale"] / 2, 3)))
    matrix += np.triu(random.normal(0, SHAPE["shear"] / 2, (3, 3)), 1)
    for axis, angle in enumerate(angles):
        turn, (a, b) = np.eye(3), [i for i in range(3) if i != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    control = random.normal(0, SHAPE["displacement"], (3, 5, 5, 5))
    return {"matrix": matrix.tolist(), "displacement": control.tolist()}


def deform(
    classes: Tensor, shape: dict[str, Any], spacing: Sequence[float], about: Sequence[float] | None = None
) -> Tensor:
    """Warp a class map; beyond its faces it goes on as it ends there.

    Args:
        classes: ``(D, H, W)`` uint8.
        shape: of :func:`draw_shape`.
        spacing: mm.
        about: the place, in voxels, that the affine part leaves where it is; default the middle.
    """
    device, size = classes.device, classes.shape
    matrix = torch.tensor(shape["matrix"], device=device, dtype=torch.float32)
    steps = torch.tensor(spacing, device=device, dtype=torch.float32)
    matrix = matrix * steps[None, :] / steps[:, None]
    control = torch.tensor(shape["displacement"], device=device, dtype=torch.float32) / steps[:, None, None, None]
    bases = [resample_matrix(5, n).to(device) for n in size]
    about = [(n - 1) / 2 for n in size] if about is None else about
    centred = [torch.arange(n, device=device, dtype=torch.float32) - c for n, c in zip(size, about, strict=True)]
    flat, result = classes.reshape(-1), torch.empty_like(classes)
    for start in range(0, size[0], _SLAB):
        rows = slice(start, min(size[0], start + _SLAB))
        place = apply_axes(control, [bases[0][rows], bases[1], bases[2]])
        index = None
        for axis in range(3):
            position = place[axis]
            position += matrix[axis, 0] * centred[0][rows, None, None] + matrix[axis, 1] * centred[1][:, None]
            position += matrix[axis, 2] * centred[2] + about[axis]
            whole = position.round_().clamp_(0, size[axis] - 1).int()
            index = whole if index is None else index.mul_(size[axis]).add_(whole)
        torch.index_select(flat, 0, index.flatten(), out=result[rows].view(-1))
    return result


def add_lesions(classes: Tensor, random: np.random.RandomState, spacing: Sequence[float]) -> tuple[Tensor, list]:
    """Lesions in white matter, balls with a rough surface: the map, and their centres (voxels) and radii (mm)."""
    if random.rand() >= LESIONS["share"]:
        return classes, []
    classes, white, lesions = classes.clone(), CLASSES.index("WM"), []
    for _ in range(random.randint(*LESIONS["count"]) + 1):
        centre = [int(random.randint(n)) for n in classes.shape]
        radius = float(random.uniform(*LESIONS["radius"]))
        if classes[tuple(centre)] != white:
            continue
        reach = [int(np.ceil(1.3 * radius / s)) for s in spacing]
        box = tuple(slice(max(0, c - r), c + r + 1) for c, r in zip(centre, reach, strict=True))
        part = classes[box]
        index = torch.meshgrid(
            *(torch.arange(b.start, b.start + n) for b, n in zip(box, part.shape, strict=True)), indexing="ij"
        )
        offset = torch.stack([(i - c) * s for i, c, s in zip(index, centre, spacing, strict=True)])
        distance = offset.square().sum(0).sqrt()
        rough = torch.from_numpy(random.normal(0, 0.12, part.shape)).float()
        ball = (distance / radius + rough < 1).to(classes.device)
        classes[box] = torch.where(ball & (part == white), CLASSES.index("WM lesion"), part)
        lesions.append({"centre": centre, "radius": radius})
    return classes, lesions


def render(classes: Tensor, parameters: dict[str, Any], spacing: Sequence[float]) -> tuple[Tensor, Tensor]:
    """What the low and the high field make of a fine class map, before any acquisition: ``(D, H, W)`` float32 each.

    Within a tissue T1 varies smoothly, and each signal follows it by its own slope; the low field's transmit field
    varies too. White matter is 1 on average.

    Args:
        classes: uint8.
        parameters: of :func:`bundle.simulation.protocol.draw`.
        spacing: mm.
    """
    device, size = classes.device, classes.shape
    generator = torch.Generator().manual_seed(parameters["seed"])
    grain = parameters["variation"]["grain"] / float(np.mean(spacing))
    texture = (parameters["variation"]["amplitude"] * smooth_noise(size, grain, generator)).to(device)
    transmit = bias_field(size, torch.tensor(parameters["b1"], device=device, dtype=torch.float32)) - 1
    low_mean, low_slope, b1_slope = _linear(parameters, "low")
    high_mean, high_slope, _ = _linear(parameters, "high")
    table = torch.stack([low_mean, low_slope, b1_slope, high_mean, high_slope], dim=1).to(device)
    low, high = (torch.empty(size, device=device) for _ in range(2))
    for start in range(0, size[0], _SLAB):
        rows = slice(start, start + _SLAB)
        values = table.index_select(0, classes[rows].flatten().int()).unflatten(0, (-1, *size[1:])).unbind(-1)
        low[rows] = values[0].addcmul(values[1], texture[rows]).addcmul_(values[2], transmit[rows]).clamp_min_(0)
        high[rows] = values[3].addcmul(values[4], texture[rows]).clamp_min_(0)
    return low, high


def _linear(parameters: dict[str, Any], which: str) -> tuple[Tensor, Tensor, Tensor]:
    """Signal of every class, and its slopes with the logarithms of T1 and of the transmit field."""
    mean = signals(parameters, which)
    by_t1 = (signals(parameters, which, t1_factor=1 + _SLOPE) - mean) / _SLOPE
    by_b1 = (signals(parameters, which, b1=1 + _SLOPE) - mean) / _SLOPE
    return mean, by_t1, by_b1
