import torch

from bundle.networks.modulation import IntensityModulator


def test_maps_have_the_scales_of_the_denoiser_and_begin_as_nothing():
    modulator = IntensityModulator(8, (16, 32, 64))
    maps = modulator(torch.randn(2, 8, 8, 12, 8), torch.randn(2, 32), torch.zeros(2, 6))
    assert [tuple(m.shape) for m in maps] == [(2, 32, 8, 12, 8), (2, 64, 4, 6, 4), (2, 128, 2, 3, 2)]
    assert not any(m.any() for m in maps)


def test_maps_follow_the_tile_the_head_and_what_is_wanted():
    torch.manual_seed(0)
    modulator = IntensityModulator(8, (16, 32))
    for layer in modulator.maps:
        torch.nn.init.normal_(layer.weight)
    given = [torch.randn(1, 8, 8, 8, 8), torch.randn(1, 32), torch.randn(1, 6)]
    maps = modulator(*given)
    for index in range(3):
        changed = modulator(*(value + (i == index) for i, value in enumerate(given)))
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(maps, changed, strict=True))


def test_a_head_s_vector_is_left_alone_and_a_longer_one_shortened():
    torch.manual_seed(0)
    modulator = IntensityModulator(8, (16, 32))
    for layer in modulator.maps:
        torch.nn.init.normal_(layer.weight)
    latent, direction, condition = torch.randn(1, 8, 8, 8, 8), torch.randn(1, 32), torch.randn(1, 6)
    direction /= direction.norm()
    at = {length: modulator(latent, length * direction, condition) for length in (0, 8, 15.9, 16, 40, 1000)}
    for far in (40, 1000):
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(at[far], at[16], strict=True))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(at[15.9], at[16], strict=True))
    assert all((a - b).abs().max() > 1e-1 for a, b in zip(at[0], at[8], strict=True))
