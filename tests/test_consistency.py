import pytest
import torch
from data import head

from bundle.consistency import assumed_width, back_project, default_operator, fit_width, noise_level, project_back
from bundle.geometry import resample
from bundle.metrics import psnr
from bundle.simulation.acquisition import Acquisition, rician

TRUTH = torch.from_numpy(head((48, 48, 48)))[None, None] / 600
OPERATOR = default_operator((48, 48, 48), (24, 24, 24))
MASK = torch.ones(48, 48, 48, dtype=torch.bool)
RULE = (0.82, 5.0)


def _psnr(volume):
    return psnr(volume[0, 0], TRUTH[0, 0], MASK, 1.0)


def test_the_noise_level_is_found_in_noise():
    noise = 0.07 * torch.randn(1, 1, 40, 40, 41)
    assert noise_level(noise, torch.ones_like(noise, dtype=torch.bool)) == pytest.approx(0.07, rel=0.05)
    assert noise_level(noise, torch.zeros_like(noise, dtype=torch.bool)) == 0


def test_back_projection_helps_without_noise():
    low = OPERATOR(TRUTH)
    cubic = resample(low, (48, 48, 48))
    assert _psnr(back_project(low, OPERATOR, 5)) > _psnr(cubic) + 1
    assert _psnr(project_back(cubic, low, OPERATOR, 3)) > _psnr(cubic) + 0.5


def test_the_truth_is_left_alone_and_noise_is_not_put_back():
    assert torch.allclose(project_back(TRUTH, OPERATOR(TRUTH), OPERATOR), TRUTH, atol=1e-5)
    noisy = rician(OPERATOR(TRUTH), 0.05, torch.Generator().manual_seed(0))
    projected, undamped = project_back(TRUTH, noisy, OPERATOR), TRUTH + OPERATOR.upsample(noisy - OPERATOR(TRUTH))
    assert _psnr(projected) > _psnr(undamped) + 5


def test_a_hot_voxel_does_not_switch_the_damping_off():
    noisy = rician(OPERATOR(TRUTH), 0.05, torch.Generator().manual_seed(0))
    calm = project_back(TRUTH, noisy, OPERATOR)
    noisy[..., 12, 12, 12] = 30.0
    spiked = project_back(TRUTH, noisy, OPERATOR)
    away = torch.ones_like(MASK)
    away[8:42, 8:42, 8:42] = False
    assert float((spiked - calm)[0, 0][away].abs().max()) < 0.02


@pytest.mark.parametrize("shape", [(48, 48, 48), (48, 48, 24)])
@pytest.mark.parametrize("width", [0.6, 0.85, 1.1])
def test_the_width_that_made_an_input_is_found(shape, width):
    low_shape = tuple(24 for _ in shape)
    truth = TRUTH[..., : shape[2]]
    low = Acquisition(width=(width,) * 3, noise=0.01)(truth, low_shape, torch.Generator().manual_seed(0))
    found, noise = fit_width(truth, low)
    assert found == pytest.approx(width, abs=0.05) and noise == pytest.approx(0.01, rel=0.25)


def test_a_narrower_function_is_assumed_for_what_is_explained_by_one_and_none_in_noise_or_air():
    wide, narrow = (Acquisition(width=(w,) * 3)(TRUTH, (24, 24, 24)) for w in (1.0, 0.7))
    assert assumed_width(TRUTH, wide, RULE) == 1.0 and assumed_width(TRUTH, narrow, RULE) == 0.6
    noisy = rician(narrow, 0.05, torch.Generator().manual_seed(0))
    assert assumed_width(TRUTH, noisy, RULE) == assumed_width(0 * TRUTH, 0 * narrow, RULE) == 1.0
    assert assumed_width(TRUTH, narrow, (0.82, 0.0)) == 1.0  # a network of which the rule was not measured
    thick = Acquisition(width=(0.7,) * 3)(TRUTH, (24, 24, 12))
    assert assumed_width(TRUTH, thick, RULE) == 1.0  # slices four times as thick


def test_projection_under_the_width_that_made_the_input_is_better_than_under_another():
    low = Acquisition(width=(0.6,) * 3, noise=0.01)(TRUTH, (24, 24, 24), torch.Generator().manual_seed(0))
    start = resample(low, (48, 48, 48))
    own, other = (project_back(start, low, default_operator((48,) * 3, (24,) * 3, w)) for w in (0.6, 1.0))
    assert _psnr(own) > _psnr(other) + 0.1
