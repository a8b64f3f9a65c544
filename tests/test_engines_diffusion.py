from types import SimpleNamespace

import pytest
import torch
from data import small_network

from bundle.engines.diffusion import DiffusionStep, fit_residual_std
from bundle.networks.super_resolver import SuperResolver, encode_condition


def _batch(n=4, contrast="input", modality="T1w", scale=1.0):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(n, 1, 16, 16, 16, generator=generator)
    high = low + scale * 0.1 * torch.randn(low.shape, generator=generator)
    condition = encode_condition(contrast, modality, (2, 2, 2))[None].expand(n, -1)
    return {"image": low, "label": high, "condition": condition}


def _engine(network):
    return SimpleNamespace(
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), 3e-3),
        loss_function=torch.nn.MSELoss(),
        state=SimpleNamespace(device=torch.device("cpu")),
    )


def test_a_share_outside_zero_to_one_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        DiffusionStep(share=1.5)
    with pytest.raises(ValueError, match="1 or more"):
        DiffusionStep(accumulate=0)


def test_the_first_loss_of_a_regression_is_the_residual_itself():
    network = SuperResolver("small")
    batch = _batch()
    clean = network.encode_residual(batch["image"], batch["label"], batch["condition"])
    loss = DiffusionStep(share=1.0, amp=False)(_engine(network), batch)["loss"]
    assert loss == pytest.approx(float(clean.square().mean()), rel=1e-4)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_steps_lower_the_loss(share):
    network = SuperResolver("small")
    batch = _batch()
    batch["label"] = batch["image"] + 0.3 * torch.roll(batch["image"], 1, dims=2)  # a residual that can be learned
    fit_residual_std(network, [batch])
    engine, step = _engine(network), DiffusionStep(share=share, amp=False)
    losses = [step(engine, batch)["loss"] for _ in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_scale_of_the_residual_is_measured_per_contrast_and_modality():
    network = SuperResolver("small")
    loader = [_batch(), _batch(modality="T2w", scale=3.0), _batch()]
    fit_residual_std(network, loader, batches=2)
    t1, t2 = network.residual_std[0, 1], network.residual_std[0, 2]
    assert torch.allclose(t1, torch.full((8,), 0.1), rtol=0.05) and torch.allclose(t2, 3 * t1, rtol=0.01)
    assert torch.allclose(network.residual_std[0, 0], ((t1**2 + t2**2) / 2).sqrt(), rtol=0.01)
    assert torch.equal(network.residual_std[1], torch.ones(3, 8))  # this contrast did not occur


@pytest.mark.parametrize(("prediction", "share"), [("sample", 0.5), ("epsilon", 0.0)])
def test_other_predictions_learn_too(prediction, share):
    network, batch = SuperResolver("small", prediction=prediction), _batch()
    batch["label"] = batch["image"] + 0.3 * torch.roll(batch["image"], 1, dims=2)
    fit_residual_std(network, [batch])
    engine, step = _engine(network), DiffusionStep(share=share, amp=False)
    losses = [step(engine, batch)["loss"] for _ in range(40)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_noise_cannot_be_predicted_without_noise():
    with pytest.raises(ValueError, match="share must be 0"):
        DiffusionStep(share=0.5)(_engine(SuperResolver("small", prediction="epsilon")), _batch())


def test_the_image_loss_sees_the_decoded_result_at_temperature_zero_only():
    seen = []

    def image_loss(pred, target):
        seen.append((pred.detach(), target))
        return (pred - target).square().mean()

    network, batch = SuperResolver("small"), _batch()
    plain = DiffusionStep(share=1.0, amp=False)(_engine(SuperResolver("small")), batch)["loss"]
    both = DiffusionStep(share=1.0, image_loss=image_loss, amp=False)(_engine(network), batch)["loss"]
    (pred, target) = seen[0]
    assert torch.allclose(pred, batch["image"], atol=1e-6) and torch.equal(target, batch["label"])
    assert both - plain == pytest.approx(float((batch["image"] - batch["label"]).square().mean()), rel=1e-4)
    DiffusionStep(share=0.0, image_loss=image_loss, amp=False)(_engine(network), batch)
    assert len(seen) == 1


def test_the_head_around_a_crop_reaches_the_network():
    network = small_network(modulation=True)
    losses = []
    for head in (0.2, 0.9):
        batch = {**_batch(), "context": torch.full((4, 1, 24, 24, 24), head)}
        optimizer = torch.optim.SGD(network.parameters(), 0.0)
        engine = SimpleNamespace(**{**vars(_engine(network)), "optimizer": optimizer})
        losses.append(DiffusionStep(share=1.0, amp=False)(engine, batch)["loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("options", [{"accumulate": 3}, {"accumulate": 9}, {"recompute": True}], ids=str)
def test_parts_of_a_batch_and_recomputed_blocks_make_the_same_step(options):
    results = []
    for words in ({}, options):
        network = small_network(modulation=True)
        engine, batch = _engine(network), {**_batch(), "context": torch.rand(4, 1, 24, 24, 24, generator=_seeded())}
        torch.manual_seed(0)
        step = DiffusionStep(share=0.6, image_loss=torch.nn.MSELoss(), amp=False, **words)
        losses = [step(engine, batch)["loss"] for _ in range(3)]
        results.append((losses, network.denoiser.entry.weight.detach()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-4)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-4)


def test_recomputed_blocks_keep_less_for_the_way_back():
    kept = []
    for words in ({}, {"recompute": True}):
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda x, n=sizes: n.append(x.numel()) or x, lambda x: x)
        with hooks:
            DiffusionStep(amp=False, **words)(_engine(small_network(modulation=True)), _batch())
        kept.append(sum(sizes))
    assert kept[1] < 0.8 * kept[0]


def _seeded():
    return torch.Generator().manual_seed(1)
