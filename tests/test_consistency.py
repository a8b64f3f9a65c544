import pytest
import torch
from data import head

from bundle.consistency import back_project, default_operator, noise_level, project_back
from bundle.geometry import resample
from bundle.metrics import psnr
from bundle.simulation.acquisition import rician

TRUTH = torch.from_numpy(head((48, 48, 48)))[None, None] / 600
OPERATOR = default_operator((48, 48, 48), (24, 24, 24))
MASK = torch.ones(48, 48, 48, dtype=torch.bool)


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
