import math

import numpy as np
import pytest
import torch
from data import head
from monai.metrics import DiceMetric, MultiScaleSSIMMetric, SSIMMetric
from scipy import ndimage, stats

from bundle.metrics import (
    data_range,
    dice,
    gmsd,
    gradient_error,
    head_mask,
    high_frequency_ratio,
    histogram_distance,
    local_contrast_error,
    ms_ssim,
    psnr,
    ssim,
)

METRICS = (psnr, ssim, ms_ssim, gmsd, gradient_error, high_frequency_ratio, histogram_distance, local_contrast_error)


def _pair(shape=(24, 20, 22), noise=0.1):
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(shape, generator=generator)
    image = reference + noise * torch.randn(shape, generator=generator)
    return image, reference, torch.ones(shape, dtype=torch.bool)


def _box(shape):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[6:-6, 7:-7, 6:-8] = True
    return mask


def test_psnr_is_its_formula_and_looks_at_the_mask_only():
    reference = torch.zeros(10, 10, 10)
    image = reference.clone()
    image[:5] = 0.1
    image[5:] = 9.0
    mask = torch.zeros(10, 10, 10, dtype=torch.bool)
    mask[:5] = True
    assert psnr(image, reference, mask, 2.0) == pytest.approx(10 * math.log10(4 / 0.01), abs=1e-4)


def test_ssim_agrees_with_monai():
    reference = torch.rand(24, 20, 22)
    image = reference + 0.1 * torch.randn(24, 20, 22)
    expected = SSIMMetric(spatial_dims=3, data_range=1.3)(image[None, None], reference[None, None])
    mask = torch.ones_like(reference, dtype=torch.bool)
    assert ssim(image, reference, mask, 1.3) == pytest.approx(float(expected), abs=1e-5)
    assert ssim(reference, reference, mask, 1.0) == pytest.approx(1.0, abs=1e-5)


def test_psnr_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    image, reference, mask = _pair()
    expected = metrics.peak_signal_noise_ratio(reference.numpy(), image.numpy(), data_range=1.3)
    assert psnr(image, reference, mask, 1.3) == pytest.approx(expected, abs=1e-4)


def test_ssim_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    image, reference, mask = _pair()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.3}
    _, full = metrics.structural_similarity(reference.numpy(), image.numpy(), full=True, **options)
    inside = _box(image.shape)
    assert ssim(image, reference, inside, 1.3) == pytest.approx(float(full[inside.numpy()].mean()), abs=1e-4)


@pytest.mark.parametrize(("scales", "side"), [(1, 18), (2, 30), (3, 48)])
def test_multi_scale_ssim_agrees_with_monai(scales, side):
    image, reference, mask = _pair((side, side + 2, side + 1), 0.3)
    image, reference = (torch.from_numpy(ndimage.gaussian_filter(v.numpy(), 1)) for v in (image, reference))
    weights = np.array((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)[:scales])
    metric = MultiScaleSSIMMetric(spatial_dims=3, data_range=1.3, weights=tuple(weights / weights.sum()))
    expected = float(metric(image[None, None], reference[None, None]))
    assert ms_ssim(image, reference, mask, 1.3) == pytest.approx(expected, abs=1e-4)


def test_gmsd_agrees_with_scipys_prewitt():
    image, reference, _ = _pair()
    mask = _box(image.shape)
    g, h = (
        np.sqrt(sum((ndimage.prewitt(v.numpy().astype(float), axis, mode="nearest") / 9) ** 2 for axis in range(3)))
        for v in (image, reference)
    )
    c = 0.0026 * 1.3**2
    expected = ((2 * g * h + c) / (g**2 + h**2 + c))[mask.numpy()].std()
    assert gmsd(image, reference, mask, 1.3) == pytest.approx(expected, abs=1e-5)


def test_the_gradient_error_agrees_with_numpy():
    image, reference, mask = _pair()
    expected = np.mean([np.abs(np.diff((image - reference).numpy(), axis=a)).mean() for a in range(3)]) / 1.3
    assert gradient_error(image, reference, mask, 1.3) == pytest.approx(expected, rel=1e-5)
    mask[:12] = False
    assert gradient_error(torch.where(mask, reference, image), reference, mask, 1.3) == 0


def test_the_high_frequency_ratio_agrees_with_numpys_full_transform():
    image, reference, mask = _pair()
    radius = np.sqrt(sum(np.ix_(*(np.fft.fftfreq(n) ** 2 for n in image.shape))))
    energy = [(np.abs(np.fft.fftn(v.numpy()))[radius > 0.25] ** 2).sum() for v in (image, reference)]
    assert high_frequency_ratio(image, reference, mask, 1.0) == pytest.approx(energy[0] / energy[1], rel=1e-4)
    assert high_frequency_ratio(2 * reference, reference, mask, 1.0) == pytest.approx(4, rel=1e-4)
    smooth = torch.from_numpy(ndimage.gaussian_filter(reference.numpy(), 2))
    assert high_frequency_ratio(smooth, reference, mask, 1.0) < 0.01


def test_the_local_contrast_error_agrees_with_scipys_gaussian():
    image, reference, _ = _pair((40, 36, 38))
    mask, sigma = torch.zeros(40, 36, 38, dtype=torch.bool), 5 / (8 * np.log(2)) ** 0.5
    mask[15:-15, 15:-15, 15:-15] = True  # the two treat the faces in different ways
    deviations = []
    for v in (image.numpy().astype(float), reference.numpy().astype(float)):
        mean, square = (ndimage.gaussian_filter(x, sigma, truncate=8) for x in (v, v**2))
        deviations.append(np.sqrt(square - mean**2))
    expected = np.abs(deviations[0] - deviations[1])[mask.numpy()].mean() / 1.3
    assert local_contrast_error(image, reference, mask, 1.3) == pytest.approx(expected, rel=1e-3)


def test_the_distance_of_histograms_agrees_with_scipy():
    image, reference, mask = _pair((30, 30, 30))
    expected = stats.wasserstein_distance(image.flatten().numpy(), reference.flatten().numpy()) / 1.3
    assert histogram_distance(image, reference, mask, 1.3) == pytest.approx(expected, rel=0.03)


def test_dice_agrees_with_monai():
    image, reference, _ = _pair()
    ours, truth = image > 0.5, reference > 0.5
    expected = DiceMetric(include_background=True)(ours[None, None].float(), truth[None, None].float())
    assert dice(ours, truth) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)
def test_a_reference_compared_with_itself_is_perfect(metric):
    _, reference, mask = _pair()
    found = metric(reference, reference, mask, 1.0)
    best = {"psnr": math.inf, "ssim": 1, "ms_ssim": 1, "high_frequency_ratio": 1}.get(metric.__name__, 0)
    assert found == pytest.approx(best, abs=1e-5)


def test_the_mask_is_the_head_without_air_or_holes():
    volume = torch.from_numpy(head((40, 44, 36)))
    volume[20:23, 20:23, 17:20] = 0
    mask = head_mask(volume / 600)
    assert bool(mask[21, 21, 18]) and not bool(mask[0, 0, 0])
    assert 0.2 < float(mask.float().mean()) < 0.5


def test_the_range_is_taken_inside_the_mask():
    reference = torch.linspace(0, 1, 1000).reshape(10, 10, 10)
    assert data_range(reference, reference > 0.5) == pytest.approx(0.5, abs=0.01)


def test_dice_is_twice_the_overlap_over_the_sum():
    a, b = torch.tensor([1, 1, 1, 0]), torch.tensor([0, 1, 1, 1])
    assert dice(a, b) == pytest.approx(2 * 2 / 6) and dice(a, 1 - a) == 0 and dice(0 * a, 0 * a) == 1


def test_the_distance_of_histograms_does_not_care_where_the_voxels_are():
    reference = torch.rand(20, 20, 20)
    mask = torch.ones_like(reference, dtype=torch.bool)
    assert histogram_distance(reference.flip(0), reference, mask, 1.0) == pytest.approx(0, abs=1e-6)
    assert histogram_distance(reference + 0.3, reference, mask, 2.0) == pytest.approx(0.15, abs=1e-3)
