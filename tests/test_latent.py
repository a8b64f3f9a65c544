import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.networks.latent import HaarLatent


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
