import pytest
import torch
from data import small_network

from bundle.networks.experts import EXPERTS, TILE, MixtureDenoiser
from bundle.networks.super_resolver import SuperResolver

CONDITION = torch.tensor([[1.0, 1, 0, 1, 1, 1]])


def _mixture(threshold=0.0, sharp=False):
    network = small_network(experts=True, modulation=True)
    network.denoiser.threshold = threshold
    if sharp:
        torch.nn.init.normal_(network.denoiser.gate.logits.weight, std=2.0)
    return network


def _inputs(size=(24, 16, 20)):
    return torch.randn(1, 8, *size), torch.randn(1, 8, *size), torch.ones(1), CONDITION


def test_thresholds_out_of_range_are_refused():
    with pytest.raises(ValueError, match="threshold 1"):
        MixtureDenoiser(threshold=1)


def test_a_new_mixture_changes_nothing():
    image = torch.rand(1, 1, 20, 24, 28)
    assert torch.allclose(SuperResolver("experts", experts=True)(image), image, atol=1e-6)


def test_the_default_network_is_not_touched():
    names = set(SuperResolver("small").state_dict())
    assert not [n for n in names if "gate" in n or "experts" in n] and "denoiser.exit.weight" in names


def test_the_output_is_the_sum_of_shares_and_experts():
    denoiser, inputs = _mixture().denoiser, _inputs()
    with torch.no_grad():
        shares, each = denoiser.parts(*inputs)
        expected = sum(shares[:, k : k + 1] * each[:, k] for k in range(len(EXPERTS)))
        assert torch.allclose(denoiser(*inputs), expected, atol=1e-5) and expected.std() > 1e-3


def test_shares_do_not_depend_on_the_noise():
    denoiser, (noisy, low, t, condition) = _mixture().denoiser, _inputs()
    with torch.no_grad():
        first, second = (denoiser.parts(z, low, s, condition)[0] for z, s in ((noisy, t), (-noisy, 0.3 * t)))
    assert torch.equal(first, second)


def test_routing_that_leaves_nothing_out_gives_the_dense_result():
    denoiser, inputs = _mixture().denoiser, _inputs()
    with torch.no_grad():
        dense = denoiser(*inputs)
        denoiser.threshold = 1e-9
        assert torch.allclose(denoiser(*inputs), dense, atol=1e-5)


def test_the_same_holds_where_the_volume_is_several_tiles_and_a_batch():
    denoiser, (noisy, low, _, condition) = _mixture().denoiser, _inputs((40, 20, 16))
    inputs = torch.cat([noisy, low]), torch.cat([low, noisy]), torch.tensor([1.0, 0.4]), condition.expand(2, -1)
    with torch.no_grad():
        dense = denoiser(*inputs)
        denoiser.threshold = 1e-9
        assert torch.allclose(denoiser(*inputs), dense, atol=1e-5)


def test_experts_below_the_threshold_do_not_run_and_the_others_make_up_for_them():
    denoiser = _mixture(0.3).denoiser
    shares = torch.zeros(1, 3, 2 * TILE, TILE, TILE)
    shares[:, :, :TILE] = torch.tensor([0.7, 0.2, 0.1]).reshape(1, 3, 1, 1, 1)
    shares[:, :, TILE:] = torch.tensor([0.0, 0.5, 0.5]).reshape(1, 3, 1, 1, 1)
    run = denoiser.routed(shares, 0.3)[1]
    assert run[0, :, :, 0, 0].T.tolist() == [[True, False, False], [False, True, True]]
    features, embedding = torch.randn(1, 16, 2 * TILE, TILE, TILE), torch.randn(1, 64)
    with torch.no_grad():
        each, found = denoiser.each(features, embedding)[0], denoiser.route(features, shares, embedding)[0]
    assert torch.allclose(found[:, :TILE], each[0][:, :TILE], atol=1e-5)
    assert torch.allclose(found[:, TILE:], (each[1] + each[2])[:, TILE:] / 2, atol=1e-5)


def test_a_tile_always_has_an_expert():
    denoiser = _mixture().denoiser
    assert denoiser.routed(torch.full((1, 3, TILE, TILE, TILE), 1 / 3), 0.9)[1].sum() >= 1


def test_training_runs_every_expert():
    denoiser = _mixture(0.9, sharp=True).denoiser.train()
    denoiser(*_inputs()).square().mean().backward()
    assert all(expert.first.weight.grad.abs().sum() > 0 for expert in denoiser.experts)
    assert denoiser.gate.logits.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_the_scripted_mixture_gives_the_same_numbers(threshold):
    network, image = _mixture(threshold, sharp=True), torch.rand(1, 1, 36, 40, 32)
    with torch.no_grad():
        expected = network(image)
        assert not torch.allclose(expected, image, atol=1e-3)
        assert torch.allclose(torch.jit.script(network)(image), expected, atol=1e-5)


def test_tiles_agree_with_the_whole_volume():
    from bundle.inferer import SuperResolutionInferer

    network, image = _mixture(sharp=True), torch.rand(1, 1, 32, 128, 32)
    whole, tiled = (SuperResolutionInferer(amp=False, tile=n, overlap=48)(image, network) for n in (512, 96))
    inner = (tiled - whole).abs()
    assert inner.max() < 0.2 * (whole - image).abs().max() and inner.median() < 1e-3 * (whole - image).abs().max()
