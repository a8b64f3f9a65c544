import math

import pytest
import torch

from bundle.diffusion import (
    add_noise,
    alpha_sigma,
    clean_from_prediction,
    prediction_target,
    sampling_times,
    start_time,
    step,
)


def test_the_path_is_variance_preserving_with_zero_terminal_signal():
    alpha, sigma = alpha_sigma(torch.tensor([0.0, 0.5, 1.0]))
    assert alpha.flatten().tolist() == pytest.approx([1, math.sqrt(0.5), 0], abs=1e-6)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(3, 1, 1, 1, 1))


@pytest.mark.parametrize("prediction", ["v", "epsilon", "sample"])
def test_every_prediction_gives_the_clean_latent_back(prediction):
    clean, noise, t = torch.randn(4, 8, 3, 3, 3), torch.randn(4, 8, 3, 3, 3), torch.tensor([0.0, 0.3, 0.7, 0.98])
    noisy, output = add_noise(clean, noise, t), prediction_target(prediction, clean, noise, t)
    assert torch.allclose(clean_from_prediction(prediction, noisy, output, t), clean, atol=1e-4)


def test_at_the_end_of_the_path_the_target_does_not_depend_on_the_noise():
    clean, t = torch.randn(2, 8, 3, 3, 3), torch.ones(2)
    assert torch.allclose(prediction_target("v", clean, torch.randn_like(clean), t), -clean, atol=1e-6)


def test_sampling_begins_before_pure_noise_where_the_noise_is_predicted():
    assert sampling_times(2, start_time("epsilon")) == [0.98, 0.49, 0.0] and start_time("v") == 1


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_sampling_with_the_true_prediction_stays_on_the_path_and_ends_at_the_truth(steps):
    clean, noise = torch.randn(1, 8, 3, 3, 3), torch.randn(1, 8, 3, 3, 3)
    z, times = noise, sampling_times(steps)
    assert times[0] == 1 and times[-1] == 0 and len(times) == steps + 1
    for now, then in zip(times[:-1], times[1:], strict=True):
        z = step(z, clean, torch.tensor([now]), torch.tensor([then]))
        assert torch.allclose(z, add_noise(clean, noise, torch.tensor([then])), atol=1e-5)
    assert torch.allclose(z, clean, atol=1e-5)
