import math

import pytest
import torch

from bundle.geometry import centres
from bundle.simulation.acquisition import Acquisition, acquisition_matrix, bias_field, ghost, rician


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="triangle"):
        acquisition_matrix(40, 20, "triangle", 1.0)


@pytest.mark.parametrize("profile", ["gaussian", "box"])
@pytest.mark.parametrize("sizes", [(40, 20), (41, 16), (60, 10)])
def test_rows_are_averages_centred_on_their_voxel(profile, sizes):
    matrix = acquisition_matrix(*sizes, profile, 1.0).double()
    assert torch.allclose(matrix.sum(1), torch.ones(sizes[1], dtype=torch.double), atol=1e-6)
    mean = matrix @ torch.arange(sizes[0], dtype=torch.double)
    middle = slice(sizes[1] // 3, -(sizes[1] // 3))
    assert torch.allclose(mean[middle], torch.from_numpy(centres(*sizes))[middle], atol=0.05)


def test_the_gaussian_has_the_width_asked_for():
    matrix = acquisition_matrix(200, 50, "gaussian", 1.5).double()
    position = torch.arange(200, dtype=torch.double)
    row = matrix[25]
    mean = (row * position).sum()
    sigma = ((row * (position - mean) ** 2).sum()).sqrt()
    assert float(sigma) == pytest.approx(1.5 * 4 / math.sqrt(8 * math.log(2)), rel=1e-3)


def test_a_box_below_one_leaves_a_gap():
    matrix = acquisition_matrix(80, 10, "box", 0.5)
    assert (matrix.sum(0) == 0).any()
    assert int((matrix[4] > 0).sum()) in (4, 5)


def test_an_axis_that_keeps_its_sampling_is_left_alone():
    assert torch.allclose(acquisition_matrix(30, 30, "gaussian", 1.0), torch.eye(30), atol=1e-5)


def test_truncation_removes_high_frequencies_only():
    n = 64
    position = (torch.arange(n) + 0.5) / n
    matrix = acquisition_matrix(n, n, "gaussian", 1.0, 0.5)
    slow, fast = torch.cos(math.pi * 10 * position), torch.cos(math.pi * 50 * position)
    assert torch.allclose(matrix @ slow, slow, atol=1e-4)
    assert float((matrix @ fast).abs().max()) < 1e-4


def test_the_same_seed_gives_the_same_noise_and_zero_noise_none():
    volume = torch.rand(1, 1, 20, 20, 20)
    noisy = Acquisition(noise=0.05)
    first, second = (noisy(volume, (10, 10, 10), torch.Generator().manual_seed(s)) for s in (1, 1))
    assert torch.equal(first, second)
    other = noisy(volume, (10, 10, 10), torch.Generator().manual_seed(2))
    assert not torch.equal(first, other)
    clean = Acquisition()
    assert torch.equal(clean(volume, (10, 10, 10)), clean.operator((20, 20, 20), (10, 10, 10))(volume))


def test_rician_noise_has_its_textbook_moments():
    sigma = 0.1
    air = rician(torch.zeros(100, 100, 100), sigma)
    tissue = rician(torch.full((100, 100, 100), 2.0), sigma)
    assert float(air.mean()) == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.01)
    assert float(tissue.std()) == pytest.approx(sigma, rel=0.02)


def test_the_bias_field_is_smooth_positive_and_without_its_constant():
    coefficients = torch.zeros(3, 3, 3)
    coefficients[0, 0, 0] = 5.0
    assert torch.equal(bias_field((8, 9, 10), coefficients), torch.ones(8, 9, 10))
    coefficients[1, 0, 0] = 0.3
    field = bias_field((50, 9, 10), coefficients)
    expected = torch.exp(0.3 * torch.cos(math.pi * (torch.arange(50) + 0.5) / 50))
    assert torch.allclose(field[:, 0, 0], expected, atol=1e-5)


def test_ghosts_are_faint_copies_at_a_share_of_the_field_of_view():
    volume = torch.zeros(8, 40, 8)
    volume[4, 20, 4] = 1.0
    ghosted = ghost(volume, axis=1, strength=0.05, copies=4)
    assert float(ghosted[4, 20, 4]) == 1.0
    assert float(ghosted[4, 30, 4]) == float(ghosted[4, 10, 4]) == pytest.approx(0.05)
    assert int((ghosted > 0).sum()) == 3
    assert (ghost(volume, 1, -0.05, 4) >= 0).all()  # a magnitude image
