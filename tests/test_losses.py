import pytest
import torch

from bundle.losses import IntensityLoss, gradient_difference, histogram_distance, soft_histogram

CENTRES = torch.linspace(0, 2, 21)


def test_gradients_differ_by_the_slope_and_not_by_the_level():
    ramp = torch.arange(8.0)[None, None, :, None, None].expand(1, 1, 8, 8, 8)
    assert gradient_difference(ramp + 5, ramp) == 0
    assert gradient_difference(3 * ramp, ramp) == pytest.approx(2 / 3)  # one axis of three has a slope


def test_a_histogram_counts_every_voxel_once_and_close_to_its_bin():
    volume = torch.tensor([[0.0, 0.1, 0.15, 7.0]])
    counts = soft_histogram(volume, CENTRES)
    assert counts.sum() == pytest.approx(1)
    assert counts[0, [0, 1, 2, 20]].tolist() == pytest.approx([0.25, 0.375, 0.125, 0.25], abs=1e-5)


def test_the_distance_of_histograms_is_how_far_the_mass_moved_and_has_a_gradient():
    volume = 0.2 + torch.rand(2, 1, 8, 8, 8)
    moved = (volume + 0.3).requires_grad_()
    distance = histogram_distance(moved, volume, CENTRES)
    assert float(distance) == pytest.approx(0.3, abs=0.01)
    distance.backward()
    assert moved.grad.sum() > 0.5  # moving back lowers it
    shuffled = volume.flatten()[torch.randperm(volume.numel())].reshape(1, 1, 16, 8, 8)
    assert float(histogram_distance(shuffled, volume.reshape(1, 1, 16, 8, 8), CENTRES)) < 1e-5


def test_the_sum_has_its_weights():
    pred, target = torch.rand(1, 1, 8, 8, 8), torch.rand(1, 1, 8, 8, 8)
    assert IntensityLoss()(target, target) == 0
    assert IntensityLoss(2.0, 0, 0)(pred, target) == pytest.approx(2 * float((pred - target).square().mean()), rel=1e-5)
    assert IntensityLoss(0, 1.0, 0)(pred, target) == pytest.approx(float(gradient_difference(pred, target)))
