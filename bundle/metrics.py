"""Image quality against a reference, inside the head."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from .geometry import apply_axes, blur
from .intensity import percentiles

_WINDOW = 11  # of structural similarity, voxels
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of multi-scale structural similarity, finest first


def head_mask(volume: Tensor) -> Tensor:
    """Head in a normalised volume (D, H, W): the largest bright component, closed and filled.

    Bright is above a tenth of the 99th percentile, which lies well below every tissue but compact bone, and above
    the noise of air.
    """
    image = volume.detach().cpu().numpy()
    bright = image > 0.1 * percentiles(volume[volume > 0], (99.0,))[0]
    labels, count = ndimage.label(ndimage.binary_opening(bright, iterations=1))
    if count == 0:
        return torch.from_numpy(bright)
    head = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    head = ndimage.binary_closing(np.pad(head, 4), iterations=4)[4:-4, 4:-4, 4:-4]
    return torch.from_numpy(ndimage.binary_fill_holes(head))


def data_range(reference: Tensor, mask: Tensor) -> float:
    """Distance from the 0.1 to the 99.9 percentile of the reference inside the mask."""
    low, high = percentiles(reference[mask], (0.1, 99.9))
    return high - low


def psnr(image: Tensor, reference: Tensor, mask: Tensor, span: float) -> float:
    """Peak signal-to-noise ratio in dB: ``10 log10(span^2 / mean squared error)`` over the mask; inf where equal."""
    return float(10 * torch.log10(span**2 / (image - reference)[mask].square().mean()))


def ssim(image: Tensor, reference: Tensor, mask: Tensor, span: float) -> float:
    """Structural similarity in 3D (Wang et al., IEEE TIP 2004), averaged over the mask.

    Gaussian window of 11 voxels with sigma 1.5, K1 = 0.01, K2 = 0.03, as in MONAI's SSIMMetric; only windows that lie
    wholly inside the volume count. The window is applied axis by axis, which takes a tenth of the time.
    """
    return _mean_inside(_similarity(image, reference, span)[0], mask)


def _similarity(image: Tensor, reference: Tensor, span: float) -> tuple[Tensor, Tensor]:
    """Structural similarity of every window inside the volume, and its part without luminance."""
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    x, y, xx, yy, xy = (_window(v.float()) for v in (image, reference, image**2, reference**2, image * reference))
    structure = (2 * (xy - x * y) + c2) / ((xx - x**2) + (yy - y**2) + c2)
    return structure * (2 * x * y + c1) / (x**2 + y**2 + c1), structure


def _mean_inside(values: Tensor, mask: Tensor) -> float:
    """Mean over windows whose middle lies in the mask."""
    edge = _WINDOW // 2
    return float(values[mask[edge:-edge, edge:-edge, edge:-edge]].mean())


def ms_ssim(image: Tensor, reference: Tensor, mask: Tensor, span: float) -> float:
    """Multi-scale structural similarity in 3D (Wang et al., Asilomar 2003), inside the mask.

    The product over five scales, each half as fine, of the mean structure, at the coarsest of the mean similarity,
    to the powers of the paper; as MONAI's MultiScaleSSIMMetric, which knows no mask. A volume too small for five
    scales gets fewer, with powers that sum to one again.
    """
    fit = [k for k in range(1, 1 + len(_SCALES)) if min(image.shape) >> (k - 1) >= _WINDOW]
    if not fit:
        return float("nan")
    weights = torch.tensor(_SCALES[: max(fit)]) / sum(_SCALES[: max(fit)])
    x, y, inside, result = image.float()[None, None], reference.float()[None, None], mask[None, None].float(), 1.0
    for scale, weight in enumerate(weights.tolist()):
        similarity, structure = _similarity(x[0, 0], y[0, 0], span)
        part = _mean_inside(similarity if scale + 1 == len(weights) else structure, inside[0, 0] >= 0.5)
        result *= max(0.0, part) ** weight
        x, y, inside = (F.avg_pool3d(v, 2) for v in (x, y, inside))
    return result


def gmsd(image: Tensor, reference: Tensor, mask: Tensor, span: float) -> float:
    """Gradient magnitude similarity deviation (Xue et al., IEEE TIP 2014) in 3D; 0 is best.

    Standard deviation over the mask of ``(2 g h + c) / (g^2 + h^2 + c)``, with ``g`` and ``h`` the magnitudes of the
    Prewitt gradients and ``c = 0.0026 span^2``, which is the paper's 170 for 8-bit images.
    """
    g, h = (_prewitt(v.float()) for v in (image, reference))
    c = 0.0026 * span**2
    return float(((2 * g * h + c) / (g**2 + h**2 + c))[mask].std(unbiased=False))


def _prewitt(volume: Tensor) -> Tensor:
    """Gradient magnitude of (D, H, W): central differences, averaged over 3x3 neighbours; edges are repeated."""
    padded = F.pad(volume[None, None], [1] * 6, mode="replicate")
    square = torch.zeros_like(volume)
    for axis in (2, 3, 4):
        kernel = [3, 3, 3]
        kernel[axis - 2] = 1
        mean = F.avg_pool3d(padded, kernel, stride=1)
        n = mean.shape[axis]
        square += ((mean.narrow(axis, 2, n - 2) - mean.narrow(axis, 0, n - 2))[0, 0]) ** 2
    return square.sqrt()


def gradient_error(image: Tensor, reference: Tensor, mask: Tensor, span: float) -> float:
    """Mean over axes of ``mean |d image - d reference| / span`` with forward differences ``d`` inside the mask.

    What :func:`bundle.losses.gradient_difference` minimises.
    """
    difference, errors = image - reference, []
    for axis in range(3):
        n = mask.shape[axis]
        inside = mask.narrow(axis, 1, n - 1) & mask.narrow(axis, 0, n - 1)
        errors.append(float(difference.diff(dim=axis)[inside].abs().mean()))
    return sum(errors) / 3 / span


def high_frequency_ratio(image: Tensor, reference: Tensor, mask: Tensor, span: float) -> float:
    """Energy above 0.25 cycles per voxel, of the image over that of the reference, both zero outside the mask.

    Such detail is beyond what an input of half the resolution holds. Below 1 the image is too smooth; above 1 it is
    noisy or over-sharpened. That it has as much detail does not say that the detail is true.
    """
    frequencies = [np.fft.fftfreq(n) for n in image.shape[:2]] + [np.fft.rfftfreq(image.shape[2])]
    radius = sum(np.ix_(*(f**2 for f in frequencies)))
    weight = torch.from_numpy(2.0 * (radius > 0.25**2))
    for index in (0, *((-1,) if image.shape[2] % 2 == 0 else ())):
        weight[..., index] /= 2  # the other half of the spectrum mirrors all planes but these
    energy = [float((torch.fft.rfftn(v.float() * mask).abs() ** 2 * weight).sum()) for v in (image, reference)]
    return energy[0] / energy[1] if energy[1] else float("nan")


def local_contrast_error(image: Tensor, reference: Tensor, mask: Tensor, span: float) -> float:
    """Mean over the mask of ``|s - t| / span``: the standard deviations around every voxel of image and reference."""
    ours, truth = (local_deviation(v.float()) for v in (image, reference))
    return float((ours - truth)[mask].abs().mean() / span)


def local_deviation(volume: Tensor, fwhm: float = 5.0) -> Tensor:
    """Standard deviation around every voxel of (D, H, W), under a Gaussian window of ``fwhm`` voxels."""
    return (blur(volume**2, fwhm) - blur(volume, fwhm) ** 2).clamp_min(0).sqrt()


def histogram_distance(image: Tensor, reference: Tensor, mask: Tensor, span: float) -> float:
    """Earth mover's distance of the two histograms inside the mask, in one dimension, as a share of the range.

    That is the mean distance of equal quantiles (Rubner et al., IJCV 2000).
    """
    shares = tuple(np.linspace(0.05, 99.95, 1000))
    ours, truth = (np.array(percentiles(v[mask], shares)) for v in (image, reference))
    return float(np.abs(ours - truth).mean() / span)


def dice(image: Tensor, reference: Tensor) -> float:
    """Overlap of two masks, ``2 |A and B| / (|A| + |B|)``; 1 where both are empty."""
    a, b = image.bool(), reference.bool()
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def _window(volume: Tensor) -> Tensor:
    """Gaussian average of (D, H, W) over all windows inside it."""
    matrices = []
    for n in volume.shape:
        offset = torch.arange(n)[None] - torch.arange(n - _WINDOW + 1)[:, None] - _WINDOW // 2
        weights = torch.exp(-0.5 * (offset / 1.5) ** 2) * (offset.abs() <= _WINDOW // 2)
        matrices.append(weights / weights.sum(1, keepdim=True))
    return apply_axes(volume, matrices)
