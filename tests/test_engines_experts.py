from types import SimpleNamespace

import pytest
import torch
from data import small_network

from bundle.engines.diffusion import DiffusionStep, fit_residual_std
from bundle.engines.experts import (
    WEIGHTS,
    MixtureStep,
    agreement_term,
    anatomy_term,
    diversity_term,
    frequency_error,
    gradient_error,
    smooth_error,
)
from bundle.networks.experts import EXPERTS
from bundle.networks.super_resolver import SuperResolver, encode_condition
from bundle.regions import region_shares
from bundle.simulation.tissues import GROUPS


def _batch(n=2):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(n, 1, 16, 16, 16, generator=generator)
    high = low + 0.3 * torch.roll(low, 1, dims=2)
    tissue = torch.full(low.shape, list(GROUPS).index("WM"), dtype=torch.uint8)
    tissue[:, :, 10:] = list(GROUPS).index("cortical GM")
    condition = encode_condition("7T", "T1w", (2, 2, 2))[None].expand(n, -1)
    return {"image": low, "label": high, "condition": condition, "tissue": tissue}


def _engine(network, rate=3e-3):
    return SimpleNamespace(
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), rate),
        loss_function=torch.nn.MSELoss(),
        state=SimpleNamespace(device=torch.device("cpu")),
    )


def test_unknown_terms_are_refused():
    with pytest.raises(ValueError, match="weights of anatomi: allowed are expert, anatomy"):
        MixtureStep(weights={"anatomi": 1})


def test_without_its_terms_the_step_is_the_diffusion_step():
    losses = []
    for kind, options in ((DiffusionStep, {}), (MixtureStep, {"weights": dict.fromkeys(WEIGHTS, 0.0), "routed": 0.0})):
        network = small_network(experts=True, modulation=True)
        torch.manual_seed(1)
        losses.append(kind(share=0.5, amp=False, **options)(_engine(network), _batch())["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_steps_lower_the_loss_and_lead_the_gate_to_the_regions():
    torch.manual_seed(0)
    network, batch = SuperResolver("experts", experts=True), _batch()
    fit_residual_std(network, [batch])
    engine, step = _engine(network, 5e-3), MixtureStep(share=1.0, weights={"anatomy": 1.0}, amp=False)
    losses = []
    for _ in range(30):
        losses.append(step(engine, batch)["loss"])
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert set(engine.state.mixture) == {"shares", *WEIGHTS}
    assert sum(engine.state.mixture["shares"]) == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        shares = network.eval().denoiser.gate(network.latent.encode(batch["image"]), batch["condition"])
    means = {"centrum semiovale": shares[:, :, :3], "junction": shares[:, :, 4:6], "cortex": shares[:, :, 6:]}
    for name, part in means.items():
        assert part.mean((0, 2, 3, 4)).argmax() == EXPERTS.index(name)


def test_smooth_error_does_not_see_what_averages_out_and_looks_where_the_mask_is():
    truth, mask = torch.zeros(1, 1, 12, 12, 12), torch.ones(1, 1, 12, 12, 12)
    checkers = (-1.0) ** torch.arange(12)
    noisy = truth + checkers
    assert smooth_error(noisy, truth, mask) < 0.2 < smooth_error(truth + 1, truth, mask)
    assert smooth_error(truth + 1 - mask, truth, mask) == 0
    half = mask.clone()
    half[:, :, 6:] = 0
    wrong = truth.clone()
    wrong[:, :, 8:] = 1
    assert smooth_error(wrong, truth, half) == 0 < smooth_error(wrong, truth, 1 - half)


def test_gradient_error_forgives_levels_and_not_edges():
    truth, mask = torch.zeros(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8)
    edge = truth.clone()
    edge[:, :, 4:] = 1
    assert gradient_error(truth + 1, truth, mask) == 0
    assert gradient_error(edge, truth, mask) == pytest.approx(1 / 7 / 3)


def test_frequency_error_weighs_fast_waves_more_than_slow_ones_of_the_same_energy():
    z = torch.arange(16.0)
    slow, fast = (torch.cos(2 * torch.pi * k * z / 16).reshape(1, 1, 16, 1, 1).expand(1, 1, 16, 16, 16) for k in (1, 6))
    truth, mask = torch.zeros_like(slow), torch.ones_like(slow)
    assert frequency_error(fast, truth, mask) == pytest.approx(6 * float(frequency_error(slow, truth, mask)), rel=1e-3)
    assert frequency_error(truth + 1, truth, mask) == 0  # levels belong to others


def test_the_anatomy_term_is_least_for_the_region_itself_and_nothing_without_labels():
    tissue = _batch()["tissue"]
    right = region_shares(tissue)
    even = torch.full_like(right, 1 / 3)
    assert anatomy_term(right, tissue) < 0.4 < anatomy_term(even, tissue)  # a voxel may hold two regions
    assert anatomy_term(even, tissue) == pytest.approx(1.0986, abs=1e-3)  # log 3, whatever the sizes of the regions
    assert anatomy_term(even, torch.full_like(tissue, 255)) == 0


def test_the_agreement_term_wants_the_expert_with_the_smaller_error():
    errors = torch.ones(1, 3, 8, 8, 8, 8)
    errors[:, 1] = 0.25
    good, bad = (torch.full((1, 3, 8, 8, 8), 0.05) for _ in range(2))
    good[:, 1], bad[:, 0] = 0.9, 0.9
    assert agreement_term(good, errors, 4.0) < 0.2 < agreement_term(bad, errors, 4.0)


def test_the_diversity_term_counts_errors_that_are_alike():
    one = torch.randn(2, 1, 8, 4, 4, 4)
    assert diversity_term(one.expand(-1, 3, -1, -1, -1, -1)) == pytest.approx(0.2, abs=1e-5)
    assert diversity_term(torch.randn(2, 3, 8, 4, 4, 4)) == 0
