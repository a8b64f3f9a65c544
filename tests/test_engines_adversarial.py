from types import SimpleNamespace

import pytest
import torch
from data import small_network
from monai.networks.nets import PatchDiscriminator

from bundle.engines.adversarial import WEIGHTS, AdversarialStep, consistency, sharpen
from bundle.networks.anatomy import AnatomyExtractor
from bundle.networks.super_resolver import encode_condition
from bundle.simulation.acquisition import Acquisition


def _batch(n=2, size=24):
    generator = torch.Generator().manual_seed(0)
    volume = torch.nn.functional.avg_pool3d(torch.rand(n, 1, size, size, size, generator=generator), 3, 1, 1)
    condition = encode_condition("input", "T1w", (1, 1, 3))[None].expand(n, -1)
    cells = torch.rand(n, 1, *[size // 8 + 30] * 3, generator=generator)
    context = torch.rand(n, 1, 32, 32, 32, generator=generator)
    real = torch.rand(n, 1, size, size, size, generator=generator)
    shown = {"image": volume, "condition": condition, "cells": cells, "context": context}
    return {**shown, "real": real, "pair": {**shown, "label": 1.3 * volume}}


def _engine(network, rate=1e-3):
    judge = PatchDiscriminator(3, 8, 1, num_layers_d=2, norm=("GROUP", {"num_groups": 8}))
    optimizers = {f"{k}_optimizer": torch.optim.AdamW(n.parameters(), rate) for k, n in (("g", network), ("d", judge))}
    return SimpleNamespace(
        state=SimpleNamespace(device=torch.device("cpu"), g_network=network, d_network=judge, **optimizers)
    )


def test_unknown_terms_are_refused():
    with pytest.raises(ValueError, match="weights of structur: allowed are adversarial"):
        AdversarialStep(small_network(), AnatomyExtractor(), {"structur": 1})


def test_a_truth_is_consistent_with_its_scan_and_another_volume_is_not():
    sharp = torch.nn.functional.avg_pool3d(torch.rand(1, 1, 36, 36, 36), 3, 1, 1)
    operator = Acquisition().operator((36, 36, 36), (36, 36, 12))
    scan, condition = operator.upsample(operator(sharp)), encode_condition("input", "T1w", (1, 1, 3))[None]
    assert consistency(sharp, scan, condition) < 1e-3
    assert consistency(sharp + 0.1, scan, condition) == pytest.approx(0.1, abs=2e-3)
    assert consistency(scan, scan, condition) > 5 * consistency(sharp, scan, condition)


def test_steps_move_both_networks_and_leave_the_frozen_ones_alone():
    torch.manual_seed(0)
    network, before, extractor = small_network(), small_network(), AnatomyExtractor()
    frozen = [p.clone() for n in (before, extractor) for p in n.state_dict().values()]
    step, engine = AdversarialStep(before, extractor, {"adversarial": 1.0}, amp=False), _engine(network)
    old = [[p.clone() for p in n.parameters()] for n in (network, engine.state.d_network)]
    found = [step(engine, _batch()) for _ in range(4)]
    assert all(f["loss"] > 0 for f in found) and set(engine.state.adaptation) == set(WEIGHTS)
    for parameters, n in zip(old, (network, engine.state.d_network), strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(parameters, n.parameters(), strict=True))
    kept = [p for n in (before, extractor) for p in n.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(frozen, kept, strict=True))


def test_the_discriminator_learns_to_tell_and_the_generator_to_deceive():
    torch.manual_seed(0)
    network, batch = small_network(), _batch()
    engine = _engine(network, 3e-3)
    step = AdversarialStep(small_network(), AnatomyExtractor(), {**dict.fromkeys(WEIGHTS, 0.0)}, amp=False)
    judged = [step(engine, batch)["discriminator_loss"] for _ in range(12)]
    assert judged[-1] < 0.7 * judged[0]
    step.weights["adversarial"] = 1.0
    engine.state.d_optimizer = torch.optim.SGD(engine.state.d_network.parameters(), 0.0)
    deceived = []
    for _ in range(12):
        step(engine, batch)
        deceived.append(engine.state.adaptation["adversarial"])
    assert deceived[-1] < 0.9 * deceived[0]


def test_pairs_keep_what_was_learned():
    torch.manual_seed(0)
    network, batch = small_network(), _batch()
    weights = {**dict.fromkeys(WEIGHTS, 0.0), "pair": 60.0}
    step, engine = AdversarialStep(small_network(), AnatomyExtractor(), weights, amp=False), _engine(network, 3e-3)
    errors = []
    for _ in range(8):
        step(engine, batch)
        errors.append(engine.state.adaptation["pair"])
    first = sharpen(small_network(), batch).detach() - batch["pair"]["label"]
    assert errors[0] == pytest.approx(float(first.square().mean()), rel=1e-4)
    assert errors[-1] < 0.8 * errors[0]


def test_what_is_kept_costs_nothing_before_the_first_step():
    network = small_network()
    step, engine = AdversarialStep(network, AnatomyExtractor(), amp=False), _engine(small_network())
    engine.state.g_network.load_state_dict(network.state_dict())
    step(engine, _batch())
    assert engine.state.adaptation["intensity"] == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(sharpen(network, _batch())).all()
