"""A head that needs no data: a procedural label map with folded cortex, ventricles, deep nuclei, cerebellum and skull.

Shapes are level sets of functions of position. The cortex is a shell of even thickness around a surface that smooth
noise has folded, so that it has gyri and sulci of about the right width. It is anatomy for software to work on, not
for anyone to learn from: train on real label maps where there are some.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .rendering import smooth_noise

Place = tuple[Tensor, Tensor, Tensor]  # coordinates in mm along each axis, ready to broadcast

SHAPE = (176, 208, 184)  # voxels of 1 mm
CORTEX, FOLD, GYRUS = 2.6, 6.5, 10.0  # mm: thickness, depth of folding (standard deviation), grain of the folding

# Ellipsoids inside the cerebrum: left and right label, centre of the right one, radii, in mm from the centre of the
# brain (right, anterior, superior); later ones lie over earlier ones.
NUCLEI = (
    ((10, 49), (11, -8, 6), (8, 13, 8)),  # thalamus
    ((28, 60), (9, -10, -6), (7, 8, 5)),  # ventral diencephalon
    ((11, 50), (14, 14, 12), (5, 13, 9)),  # caudate
    ((12, 51), (25, 4, 3), (5, 15, 9)),  # putamen
    ((13, 52), (18, 0, 1), (4, 8, 6)),  # pallidum
    ((26, 58), (8, 15, -3), (4, 5, 4)),  # accumbens
    ((17, 53), (26, -18, -14), (5, 17, 5)),  # hippocampus
    ((18, 54), (23, 3, -16), (6, 7, 6)),  # amygdala
    ((4, 43), (9, 2, 16), (5, 30, 8)),  # lateral ventricle
    ((5, 44), (29, -20, -9), (2.5, 14, 2.5)),  # its inferior horn
    ((136, 163), (10, -10, 13), (1.8, 6, 1.8)),  # choroid plexus
)


def brain_phantom(shape: Sequence[int] = SHAPE, spacing: float = 1.0, seed: int = 0) -> Tensor:
    """Label map ``(D, H, W)`` int32 with the numbers of :data:`bundle.simulation.tissues.LABELS`, axes RAS.

    Args:
        shape: voxels; at 1 mm the default holds the whole head.
        spacing: mm, isotropic.
        seed: of sizes, folding and everything else that varies.
    """
    generator = torch.Generator().manual_seed(seed)
    axes = [(torch.arange(n) - (n - 1) / 2) * spacing for n in shape]
    axes[2] = axes[2] - 18.0  # room for the neck
    size = 1 + 0.05 * torch.randn(3, generator=generator).clamp(-2, 2)
    x, y, z = (axis / s for axis, s in zip(axes, size, strict=True))
    place = (x[:, None, None], y[None, :, None], z[None, None, :])
    depth = _ellipsoid(place, (0, 0, 8), (68, 85, 62))
    below = _ellipsoid(place, (0, -45, -36), (50, 34, 27))
    stem = _ellipsoid(place, (0, -20, -38), (12, 13, 36))
    labels = _outside(place, torch.maximum(torch.maximum(depth, below), stem), generator, spacing)
    _cerebellum(labels, below, place, generator, spacing)
    _paint(labels, 16, stem > 0)
    _paint(labels, 512, (place[0].hypot(place[1] + 24) < 5) & (place[2] < -66) & (labels > 0))
    _cerebrum(labels, torch.minimum(depth, -1 - torch.maximum(below, stem)), place, generator, spacing)
    return labels


def _ellipsoid(place: Place, centre: Sequence[float], radii: Sequence[float]) -> Tensor:
    """Depth below the surface of an ellipsoid in mm, negative outside (first order)."""
    scaled = [((axis - c) / r) ** 2 for axis, c, r in zip(place, centre, radii, strict=True)]
    level = (scaled[0] + scaled[1] + scaled[2]).sqrt_()
    slope = sum(square / r**2 for square, r in zip(scaled, radii, strict=True)).sqrt_()
    return (1 - level) * level / slope.clamp_min_(1e-6)


def _within(place: Place, centre: Sequence[float], radii: Sequence[float]) -> Tensor:
    """Inside an ellipsoid."""
    scaled = [((axis - c) / r) ** 2 for axis, c, r in zip(place, centre, radii, strict=True)]
    return scaled[0] + scaled[1] + scaled[2] < 1


def _paint(labels: Tensor, number: int, where: Tensor) -> None:
    labels.masked_fill_(where, number)


def _paint_sides(labels: Tensor, pair: tuple[int, int], place: Place, where: Tensor) -> None:
    """Left or right number by the side of the midline."""
    left = place[0] < 0
    _paint(labels, pair[0], where & left)
    _paint(labels, pair[1], where & ~left)


def _outside(place: Place, brain: Tensor, generator: torch.Generator, spacing: float) -> Tensor:
    """Everything around the brain: fluid, skull, soft tissue, skin, eyes, air, the sagittal sinus."""
    labels = torch.zeros(brain.shape, dtype=torch.int32)
    wavy = smooth_noise(brain.shape, 60 / spacing, generator)
    face = _ellipsoid(place, (0, 14, -52), (62, 78, 62))
    head = torch.maximum(brain + 14 + wavy, face)
    _paint(labels, 511, head > 0)
    _paint(labels, 507, head > 2)
    _paint(labels, 509, _within(place, (0, 66, -34), (16, 24, 20)))
    _paint(labels, 0, _within(place, (0, 66, -34), (12, 20, 16)))
    for side in (-1, 1):
        _paint(labels, 506, _within(place, (side * 32, 66, -18), (12, 12, 12)))
    _paint(labels, 515, (brain > -9.5 - 0.5 * wavy) & (place[2] > -62))
    _paint(labels, 516, (brain > -8 - 0.5 * wavy) & (brain < -4.5) & (place[2] > -30))
    _paint(labels, 24, brain > -2.8)
    _paint(labels, 514, (brain > -2.8) & (brain < 0) & (place[0].abs() < 3.5) & (place[2] > 20))
    return labels


def _cerebrum(labels: Tensor, depth: Tensor, place: Place, generator: torch.Generator, spacing: float) -> None:
    """Folded cortex and white matter of two hemispheres, joined in the middle, and what lies within."""
    core = _ellipsoid(place, (0, 0, 4), (30, 42, 22))
    hemisphere = torch.minimum(depth, place[0].abs() - 0.8 + core.clamp_min(0) * 10)
    hemisphere = torch.minimum(hemisphere, place[2] + 44)
    fold = FOLD * torch.exp(-((hemisphere / 22) ** 2))  # sulci reach some 20 mm deep
    level = hemisphere - fold * smooth_noise(depth.shape, GYRUS / spacing, generator) - 1.5
    slope = torch.stack(torch.gradient(level, spacing=spacing)).norm(dim=0).clamp_min(0.5)
    thick = level / slope
    inside = hemisphere > 0
    _paint(labels, 24, inside)
    _paint_sides(labels, (3, 42), place, inside & (thick > 0))
    _paint_sides(labels, (2, 41), place, inside & ((thick > CORTEX) | (core > 4)))
    mirrored = (place[0].abs(), place[1], place[2])
    for pair, centre, radii in NUCLEI:
        _paint_sides(labels, pair, place, inside & _within(mirrored, centre, radii))
    _paint(labels, 14, inside & _within(place, (0, -4, 4), (2.2, 13, 9)))


def _cerebellum(labels: Tensor, depth: Tensor, place: Place, generator: torch.Generator, spacing: float) -> None:
    """Finer folds, one above the other, around a white core; the fourth ventricle in front of it."""
    wavy = smooth_noise(depth.shape, 14 / spacing, generator)
    leaves = torch.cos((place[2] + 0.25 * place[1] + 2 * wavy) * (2 * torch.pi / 7))
    level = depth - 2.5 * leaves - 2.5
    _paint(labels, 24, depth > 0)
    _paint_sides(labels, (8, 47), place, (depth > 0) & (level > 0))
    _paint_sides(labels, (7, 46), place, (depth > 0) & (level > 5.5))
    _paint(labels, 15, _within(place, (0, -32, -36), (5, 4, 9)))
