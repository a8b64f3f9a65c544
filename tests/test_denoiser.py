import pytest
import torch

from bundle.networks.blocks import ResidualBlock
from bundle.networks.denoiser import Denoiser


def _inputs(prior=0):
    return torch.randn(1, 8, 8, 8, 12), torch.randn(1, 8, 8, 8, 12), torch.tensor([0.4]), torch.randn(1, 6)


def test_widths_and_blocks_must_agree():
    with pytest.raises(ValueError, match="same length"):
        Denoiser(widths=(8, 16), blocks=(1, 1, 1))


def test_a_new_network_predicts_zero_so_that_the_result_is_the_input():
    assert torch.equal(Denoiser(widths=(8, 16, 32))(*_inputs()), torch.zeros(1, 8, 8, 8, 12))


@pytest.mark.parametrize("what", ["noisy", "low_res", "time", "condition", "prior", "modulation"])
def test_every_input_has_its_effect(what):
    network = Denoiser(widths=(8, 16, 32), prior_channels=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    noisy, low, t, condition = _inputs()
    prior = torch.randn(1, 2, 8, 8, 12)
    maps = [torch.zeros(1, 2 * w, *(n // 2**i for n in (8, 8, 12))) for i, w in enumerate((8, 16, 32))]
    before = network(noisy, low, t, condition, prior, maps)
    assert torch.equal(before, network(noisy, low, t, condition, prior, None))  # zero maps change nothing
    changed = {
        "noisy": (noisy + 1, low, t, condition, prior, maps),
        "low_res": (noisy, low + 1, t, condition, prior, maps),
        "time": (noisy, low, t + 0.5, condition, prior, maps),
        "condition": (noisy, low, t, condition + 1, prior, maps),
        "prior": (noisy, low, t, condition, prior + 1, maps),
        "modulation": (noisy, low, t, condition, prior, [m + 0.5 for m in maps]),
    }[what]
    assert not torch.allclose(before, network(*changed))


def test_an_empty_slot_costs_no_parameter():
    def count(**kwargs):
        return sum(p.numel() for p in Denoiser(widths=(8, 16, 32), **kwargs).parameters())

    assert count(prior_channels=2) - count() == 2 * 8 * 27


def test_work_in_place_without_gradients_gives_the_same_numbers():
    torch.manual_seed(0)
    block, x, embedding = ResidualBlock(8, 16), torch.randn(1, 8, 6, 6, 6), torch.randn(1, 16)
    torch.nn.init.normal_(block.second.weight, std=0.1)
    given = x.clone()
    for maps in (None, torch.randn(1, 16, 6, 6, 6)):
        expected = block(x, embedding, maps).detach()
        with torch.no_grad():
            assert torch.allclose(block(x, embedding, maps), expected, atol=1e-5)
    assert torch.equal(x, given)


def test_coarse_features_without_limit_have_the_effect_of_large_ones():
    torch.manual_seed(0)
    network, given = Denoiser(widths=(8, 16, 32)).eval(), _inputs()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    results = []
    for bias in (0.0, 30.0, 1e3, 1e6):
        torch.nn.init.constant_(network.enter[-1][-1].second.bias, bias)
        results.append(network(*given))
    assert not torch.allclose(results[0], results[1], rtol=0.1) and not torch.allclose(results[1], results[2])
    assert torch.equal(results[2], results[3])
