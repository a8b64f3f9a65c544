import copy
from types import SimpleNamespace

import pytest
import torch
from data import small_network

from bundle.engines.uncertainty import UncertaintyStep
from bundle.networks.context import surround
from bundle.networks.scale import ScaleHead
from bundle.networks.super_resolver import encode_condition


def _batch(n=8):
    """Errors that are large where the input is bright."""
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(n, 1, 4, 4, 4, generator=generator).round()
    low = torch.nn.functional.interpolate(low, scale_factor=4)
    high = low + (0.01 + 0.2 * low) * torch.randn(low.shape, generator=generator)
    condition = encode_condition("7T", "T1w", (2, 2, 2))[None].expand(n, -1)
    return {"image": low, "label": high, "condition": condition, "context": low, "cells": surround(low)}


def test_the_eight_channels_are_the_eight_voxels_of_a_block():
    head = ScaleHead(4, 8, 2, 3)
    blocks = torch.arange(8.0).reshape(1, 8, 1, 1, 1).expand(1, 8, 2, 3, 4) / 10
    volume = head.volume(blocks)
    assert volume.shape == (1, 1, 4, 6, 8)
    assert torch.allclose(volume[0, 0, 2:, 4:, 6:].flatten(), torch.arange(8.0) / 10)


def test_the_factor_is_that_of_contrast_and_modality():
    head = ScaleHead(4, 8, 2, 3)
    head.factor.copy_(torch.arange(1.0, 7).reshape(2, 3))
    conditions = [encode_condition(c, m, (2, 2, 2)) for c in ("input", "7T") for m in ("T1w", "T2w", "other")]
    result = head.uncertainty(torch.zeros(6, 8, 1, 1, 1), torch.stack(conditions))
    assert sorted(result[:, 0, 0, 0, 0].tolist()) == [1, 2, 3, 4, 5, 6]
    assert float(result[0].mean()) < float(result[3].mean())  # rows are contrasts


def test_the_head_learns_where_errors_are_large_and_nothing_else_changes():
    network = small_network(uncertainty=True, modulation=True)
    torch.nn.init.zeros_(network.scale_head.outer.weight)
    before = copy.deepcopy(network.state_dict())
    engine = SimpleNamespace(
        network=network,
        optimizer=torch.optim.AdamW(network.scale_head.parameters(), 1e-2),
        state=SimpleNamespace(device=torch.device("cpu")),
    )
    batch, update = _batch(), UncertaintyStep(amp=False)
    losses = [update(engine, batch)["loss"] for _ in range(60)]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.2
    changed = {k.split(".")[0] for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"scale_head"}
    with torch.no_grad():
        scale = network.predict_with_scale(
            batch["image"],
            torch.zeros(8, 8, 8, 8, 8),
            torch.ones(8),
            network.context(batch["context"]),
            batch["condition"],
            batch["cells"],
        )[1]
    spread = network.uncertainty(scale, batch["condition"])
    bright = batch["image"] > 0.5
    assert float(spread[bright].mean()) > 2 * float(spread[~bright].mean())


def test_a_network_without_the_head_has_no_uncertainty():
    with pytest.raises(ValueError, match="no head"):
        small_network().uncertainty(torch.zeros(1, 8, 1, 1, 1), torch.zeros(1, 6))
