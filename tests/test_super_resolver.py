import numpy as np
import pytest
import torch
from data import small_network

from bundle.networks.super_resolver import SIZES, SuperResolver, encode_condition

IMAGE = torch.rand(1, 1, 20, 24, 28, generator=torch.Generator().manual_seed(0))


def test_unknown_sizes_and_words_are_refused():
    with pytest.raises(ValueError, match="huge"):
        SuperResolver("huge")
    with pytest.raises(ValueError, match="noise"):
        SuperResolver("small", prediction="noise")
    with pytest.raises(ValueError, match="CT"):
        encode_condition("input", "CT", (2, 2, 2))


def test_the_condition_is_flags_and_logarithms():
    assert encode_condition("7T", "T2w", (1, 2, 8)).tolist() == [1, 0, 1, 0, 1, 3]


@pytest.mark.parametrize("size", SIZES)
def test_a_new_network_returns_its_input_in_any_size(size):
    assert torch.allclose(SuperResolver(size)(IMAGE), IMAGE, atol=1e-6)


def test_residuals_are_encoded_and_decoded_without_loss():
    network = small_network()
    network.residual_std[0, 1] = torch.linspace(0.1, 0.8, 8)
    condition = encode_condition("input", "T1w", (2, 2, 2))[None]
    low, high = torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 16)
    clean = network.encode_residual(low, high, condition)
    assert torch.allclose(network.decode_residual(low, clean, condition), high, atol=1e-5)
    assert torch.allclose(clean, network.latent.encode(high - low) / torch.linspace(0.1, 0.8, 8).reshape(1, 8, 1, 1, 1))


@pytest.mark.parametrize("parts", [{}, {"prior": True, "modulation": True}], ids=["plain", "guided"])
def test_scripted_and_exported_programs_give_the_same_numbers(parts):
    network = small_network(**parts)
    with torch.no_grad():
        expected = network(IMAGE)
        assert not torch.allclose(expected, IMAGE, atol=1e-3)
        scripted = torch.jit.script(network)
        assert torch.allclose(scripted(IMAGE), expected, atol=1e-5)
        exported = torch.export.export(network, (IMAGE,)).module()
        assert torch.allclose(exported(IMAGE), expected, atol=1e-5)


def test_scripted_methods_for_tiles_work():
    plain = small_network(uncertainty=True)
    network = torch.jit.script(plain)
    tile, noise, condition = torch.rand(1, 1, 16, 16, 16), torch.randn(1, 8, 8, 8, 8), network.default_condition[None]
    context = network.context(tile)
    assert context.shape == (1, 0)
    with torch.no_grad():
        one, four = (network.sample(tile, context, noise, condition, n, None, None) for n in (1, 4))
        log_scale = network.predict_with_scale(tile, noise, torch.ones(1), context, condition, None, None)[1]
        same = plain.predict_with_scale(tile, noise, torch.ones(1), context, condition)[1]
    assert one.shape == tile.shape and not torch.allclose(one, four)
    assert torch.allclose(log_scale, same, atol=1e-5)
    assert torch.allclose(network.uncertainty(log_scale, condition), plain.uncertainty(same, condition), atol=1e-5)


def test_onnx_gives_the_same_numbers(tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    network, image = small_network(), torch.rand(1, 1, 16, 16, 24)
    torch.onnx.export(network, (image,), str(tmp_path / "net.onnx"), dynamo=True, verbose=False)
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    result = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
    with torch.no_grad():
        assert np.allclose(result, network(image).numpy(), atol=1e-4)


def test_prior_and_modulation_change_the_result_and_follow_the_head():
    network, tile = small_network(prior=True, modulation=True), torch.rand(1, 1, 16, 16, 16)
    noise, condition = torch.zeros(1, 8, 8, 8, 8), network.default_condition[None]
    context, other = network.context(tile), network.context(torch.rand(1, 1, 40, 40, 40) ** 3)
    assert context.shape == (1, 64)
    with torch.no_grad():
        result = network.sample(tile, context, noise, condition, 1)
        assert (network.sample(tile, other, noise, condition, 1) - result).abs().max() > 1e-5
        network.modulator = None
        without = network.sample(tile, context, noise, condition, 1)
        assert (without - result).abs().max() > 1e-5


def test_the_prior_is_frozen_and_dropped_now_and_then_in_training_only():
    network = small_network(prior=True, prior_dropout=0.5)
    assert not any(p.requires_grad for p in network.anatomy.parameters())
    tile = torch.rand(32, 1, 8, 8, 8)
    condition = network.default_condition[None].expand(32, -1)
    prior, maps = network.guidance(tile, None, network.context(tile), condition)
    assert maps is None and prior.shape == (32, 19, 4, 4, 4) and bool(prior.flatten(1).any(1).all())
    network.train()
    kept = network.guidance(tile, None, network.context(tile), condition)[0].flatten(1).any(1)
    assert 4 < int(kept.sum()) < 28


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_other_predictions_sample_too(prediction):
    network = small_network(prediction=prediction)
    tile, noise = torch.rand(1, 1, 16, 16, 16), torch.randn(1, 8, 8, 8, 8)
    with torch.no_grad():
        result = network.sample(tile, network.context(tile), noise, network.default_condition[None], 3, None)
        assert torch.isfinite(result).all() and not torch.allclose(result, tile)
        scripted = torch.jit.script(network)
        again = scripted.sample(tile, network.context(tile), noise, network.default_condition[None], 3, None, None)
        assert torch.allclose(result, again, atol=1e-5)


def test_guidance_maps_join_where_the_prior_joins_and_none_are_zeros():
    network = small_network(guided=True, modulation=True)
    assert network.denoiser.entry.in_channels == 16 + 8 + 2
    assert SuperResolver("small", modulation=True).denoiser.entry.in_channels == 16  # what is not guided pays nothing
    tile, noise, condition = torch.rand(1, 1, 16, 16, 16), torch.zeros(1, 8, 8, 8, 8), network.default_condition[None]
    fields, context = 0.2 * torch.randn(1, 3, 16, 16, 16), network.context(tile)
    with torch.no_grad():
        told = (None, torch.zeros_like(fields), fields)
        none, zeros, guided = (network.sample(tile, context, noise, condition, 1, None, f) for f in told)
        scripted = torch.jit.script(network)
        again = scripted.sample(tile, context, noise, condition, 1, None, fields)
        assert torch.allclose(scripted(tile), network(tile), atol=1e-5)
    assert torch.equal(none, zeros) and not torch.allclose(none, guided, atol=1e-3)
    assert torch.allclose(again, guided, atol=1e-5)


def test_guidance_maps_are_dropped_now_and_then_in_training_only():
    network = small_network(guided=True, guidance_dropout=0.5)
    tile, fields = torch.rand(32, 1, 8, 8, 8), torch.ones(32, 3, 8, 8, 8)
    condition = network.default_condition[None].expand(32, -1)
    maps = network.guidance(tile, None, network.context(tile), condition, fields)[0]
    assert maps.shape == (32, 10, 4, 4, 4) and bool(maps.flatten(1).any(1).all())
    network.train()
    kept = network.guidance(tile, None, network.context(tile), condition, fields)[0].flatten(1).any(1)
    assert 4 < int(kept.sum()) < 28
