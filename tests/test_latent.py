import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.networks.latent import AutoencoderLatent, HaarLatent
from bundle.networks.super_resolver import SuperResolver


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 8)] * 3), st.integers(0, 99))
def test_haar_is_lossless_and_orthonormal(half, seed):
    image = torch.randn(2, 1, *(2 * n for n in half), generator=torch.Generator().manual_seed(seed))
    haar = HaarLatent()
    latent = haar.encode(image)
    assert latent.shape == (2, 8, *half)
    assert torch.allclose(haar.decode(latent), image, atol=1e-5)
    assert torch.allclose(latent.square().sum(), image.square().sum(), rtol=1e-4)


def test_the_first_subband_is_the_scaled_mean_and_the_others_ignore_constants():
    latent = HaarLatent().encode(torch.full((1, 1, 4, 4, 4), 3.0))
    assert torch.allclose(latent[:, 0], torch.full((1, 2, 2, 2), 3 * 8**0.5))
    assert float(latent[:, 1:].abs().max()) < 1e-6


def test_no_residual_is_no_change_and_the_residual_of_a_pair_leads_from_one_to_the_other():
    low, high = torch.rand(1, 1, 8, 8, 8), torch.rand(1, 1, 8, 8, 8)
    haar = HaarLatent()
    assert torch.allclose(haar.apply_residual(low, haar.residual(low, high)), high, atol=1e-5)
    learned = AutoencoderLatent()
    learned.scale.fill_(2.5)
    with torch.no_grad():
        residual = learned.residual(low, high)
        assert residual.shape == (1, 8, 4, 4, 4)
        assert torch.allclose(learned.apply_residual(low, torch.zeros_like(residual)), low, atol=1e-6)
        expected = low + learned(high) - learned(low)
        assert torch.allclose(learned.apply_residual(low, residual), expected, atol=1e-5)
        assert torch.allclose(learned.encode(low) / 2.5, learned.autoencoder.encode(low)[0], atol=1e-6)


def test_a_super_resolver_runs_on_the_learned_latent_and_begins_as_nothing():
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        network = SuperResolver("small", latent="autoencoder").eval()
        assert torch.allclose(network(image), image, atol=1e-5)
