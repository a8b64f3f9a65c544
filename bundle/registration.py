"""Real pairs: rigid registration of two scans of one person, with a measure of how well they fit."""

from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from torch import Tensor

from .geometry import apply_axes, gaussian_matrix
from .intensity import percentiles

EDGE_AGREEMENT = 0.77  # below this, two scans are not taken for one head: right pairs had 0.83, wrong ones 0.70
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Registration(NamedTuple):
    """What was found: the moving volume on the fixed grid, where it was scanned, the motion, and how well it fits."""

    volume: Tensor  # (D, H, W)
    seen: Tensor  # (D, H, W) boolean
    motion: np.ndarray  # 4x4, from the fixed to the moving world, mm (RAS+)
    agreement: float  # see `edge_agreement`


def to_sitk(volume: Tensor, affine: np.ndarray) -> sitk.Image:
    """(D, H, W) with a voxel-to-world affine (RAS+) as SimpleITK image (LPS)."""
    world = _LPS @ np.asarray(affine, dtype=np.float64)
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.numpy().T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(world[:3, 3].tolist())
    image.SetDirection((world[:3, :3] / spacing).flatten().tolist())
    return image


def register(fixed: MetaTensor, moving: MetaTensor, seed: int = 1) -> Registration:
    """Find the rigid motion between two scans by mutual information, on three scales.

    Args:
        fixed: (1, D, H, W) with affine.
        moving: (1, d, h, w) with affine, of any contrast.
        seed: of the voxels that are sampled.
    """
    images = [to_sitk(_balanced(v.as_tensor()[0]), v.affine.numpy()) for v in (fixed, moving)]
    start = sitk.CenteredTransformInitializer(
        *images, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    starts = (sitk.Euler3DTransform(start), _still(images[0]))
    _, motion = min((_optimise(*images, t, seed) for t in starts), key=lambda found: found[0])
    volume = _resample(to_sitk(moving.as_tensor()[0], moving.affine.numpy()), images[0], motion, sitk.sitkBSpline)
    ones = to_sitk(torch.ones(moving.shape[1:]), moving.affine.numpy())
    seen = _resample(ones, images[0], motion, sitk.sitkNearestNeighbor) > 0.5
    spacing = np.linalg.norm(fixed.affine.numpy()[:3, :3], axis=0)
    agreement = edge_agreement(fixed.as_tensor()[0], volume, seen, spacing)
    return Registration(volume, seen, _matrix(motion), agreement)


def _resample(image: sitk.Image, grid: sitk.Image, motion: sitk.Transform, interpolator: int) -> Tensor:
    result = sitk.GetArrayFromImage(sitk.Resample(image, grid, motion, interpolator))
    return torch.from_numpy(np.ascontiguousarray(result.T))


def _balanced(volume: Tensor) -> Tensor:
    """Bright outliers compressed, so that they do not take the histogram's bins."""
    return volume.float().clamp(*percentiles(volume, (0.1, 99.5)))


def _still(fixed: sitk.Image) -> sitk.Euler3DTransform:
    """No motion, about the middle of the volume: scans of one session start close."""
    transform = sitk.Euler3DTransform()
    middle = [(n - 1) / 2 for n in fixed.GetSize()]
    transform.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint(middle))
    return transform


def _optimise(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform, seed: int) -> tuple[float, sitk.Transform]:
    """Metric (lower is better) and transform."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(48)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentagePerLevel([0.5, 0.3, 0.1], seed)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-4, 150, 0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([3, 1.5, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # no overlap
        return float("inf"), start
    return method.GetMetricValue(), start


def _matrix(transform: sitk.Transform) -> np.ndarray:
    """4x4 in RAS+ world mm of a SimpleITK transform, which works in LPS."""
    points = np.vstack([np.zeros(3), np.eye(3)])
    moved = np.array([transform.TransformPoint(p) for p in points.tolist()])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = (moved[1:] - moved[0]).T, moved[0]
    return _LPS @ matrix @ _LPS


def edge_agreement(first: Tensor, second: Tensor, seen: Tensor, spacing: np.ndarray) -> float:
    """How far edges of two volumes on one grid point the same way: 1/3 by chance, 1 if everywhere.

    ``sum w (n1 . n2)^2 / sum w`` with unit gradients ``n`` and ``w`` the product of their lengths (Haber and
    Modersitzki, MICCAI 2006); whichever of two tissues is brighter does not matter.

    Args:
        first: (D, H, W).
        second: (D, H, W).
        seen: where both have been scanned, boolean.
        spacing: mm.
    """
    if not seen.any():
        return 0.0
    directions, weight = [], torch.ones(int(seen.sum()))
    for volume in (first, second):
        smooth = _smooth(volume.float(), spacing)
        gradient = torch.stack(torch.gradient(smooth, spacing=[float(s) for s in spacing]))[:, seen]
        length = gradient.norm(dim=0)
        directions.append(gradient / length.clamp_min(1e-9))
        weight = weight * length.clamp(max=4 * float(length.mean()))  # no edge counts for many
    cosine = (directions[0] * directions[1]).sum(0)
    return float((weight * cosine**2).sum() / weight.sum().clamp_min(1e-12))


def _smooth(volume: Tensor, spacing: np.ndarray) -> Tensor:
    """Blur of 2 mm, so that noise does not count."""
    sizes = zip(volume.shape, spacing, strict=True)
    return apply_axes(volume, [gaussian_matrix(n, n, 2.0 / float(s)) for n, s in sizes])
