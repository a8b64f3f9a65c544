import numpy as np
import pytest
import torch

from bundle.realism import fit_mixture, power_spectrum, tissue_ratios


def test_a_mixture_of_three_is_found():
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(m, s, n) for m, s, n in ((20, 4, 3000), (60, 5, 9000), (90, 4, 8000))])
    mean, deviation, share = fit_mixture(values)
    assert mean == pytest.approx([20, 60, 90], abs=1) and deviation == pytest.approx([4, 5, 4], abs=0.7)
    assert share == pytest.approx([0.15, 0.45, 0.4], abs=0.02)


@pytest.mark.parametrize(("modality", "fluid", "grey", "white"), [("T1w", 25, 70, 100), ("T2w", 200, 80, 60)])
def test_ratios_are_against_white_matter(modality, fluid, grey, white):
    generator = np.random.default_rng(1)
    volume = np.zeros((40, 40, 40), np.float32)
    for index, mean in enumerate((fluid, grey, grey, white, white)):
        part = volume[4 + 6 * index : 10 + 6 * index, 5:35, 5:35]
        part[:] = generator.normal(mean, 3, part.shape)
    ratios = tissue_ratios(torch.from_numpy(volume), modality)
    assert ratios == pytest.approx({"GM/WM": grey / white, "CSF/WM": fluid / white}, rel=0.04)


def test_the_spectrum_of_white_noise_is_flat_and_of_a_wave_a_peak():
    noise = 10 + torch.randn(64, 64, 64)
    power = power_spectrum(noise, (1, 1, 1))
    assert power == pytest.approx(np.full(len(power), 0.01), rel=0.15)
    wave = 10 + torch.cos(2 * torch.pi * 0.2 * torch.arange(60))[:, None, None].expand(60, 60, 60)
    assert power_spectrum(wave, (1, 1, 1)).argmax() == 6  # 0.2 cycles per mm
    assert np.isnan(power_spectrum(noise, (1, 1, 2))[-1])  # beyond what 2 mm can hold
