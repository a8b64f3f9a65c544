import math

import pytest
import torch
from data import head
from monai.metrics import SSIMMetric

from bundle.metrics import data_range, dice, head_mask, histogram_distance, psnr, ssim


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
