from types import SimpleNamespace

import pytest
import torch

from bundle.augmentation import UNKNOWN
from bundle.engines.prior import PrepareLabels, PriorStep
from bundle.networks.anatomy import TISSUES, AnatomyExtractor
from bundle.networks.context import surround
from bundle.networks.super_resolver import encode_condition

WHITE, FLUID = TISSUES.index("WM"), TISSUES.index("CSF")


def _batch(known=(True, True), seed=0):
    """Balls of white matter in fluid; the second half of the batch may have no labels."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.arange(16) - 7.5
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt() < 6
    tissue = torch.where(ball, WHITE, FLUID).byte()[None, None].repeat(len(known), 1, 1, 1, 1)
    image = torch.where(ball, 0.8, 0.2) + 0.02 * torch.randn(len(known), 1, 16, 16, 16, generator=generator)
    level = torch.full((len(known),), 0.8)
    for i, k in enumerate(known):
        if not k:
            tissue[i], level[i] = UNKNOWN, float("nan")
    condition = encode_condition("7T", "T1w", (2, 2, 2))[None].expand(len(known), -1)
    label = image.clone()
    return dict(
        image=image, label=label, condition=condition, tissue=tissue, context=image, cells=surround(image), level=level
    )


def _engine(network, iteration=1):
    return SimpleNamespace(
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), 3e-3),
        state=SimpleNamespace(device=torch.device("cpu"), iteration=iteration),
    )


def test_label_maps_teach_tissue_template_and_level():
    torch.manual_seed(0)
    network, batch = AnatomyExtractor(), _batch()
    step, engine = PriorStep(network, amp=False), _engine(network)
    losses = [step(engine, batch)["loss"] for _ in range(150)]
    assert losses[-1] < 0.3 * losses[0]
    with torch.no_grad():
        context = network.context(batch["context"])
        prior = network(batch["image"], batch["cells"], context, batch["condition"])
    assert float((prior.tissue.argmax(1) == batch["tissue"][:, 0]).float().mean()) > 0.95
    level = network.template(prior.tissue, context, batch["condition"])[1]
    assert level.flatten().tolist() == pytest.approx([0.8, 0.8], rel=0.2)


def test_volumes_without_labels_teach_only_after_the_ramp_begins_and_only_what_the_teacher_says():
    torch.manual_seed(0)
    network, teacher = AnatomyExtractor(), AnatomyExtractor()
    teacher.exit.bias.data[WHITE] = 5.0  # sure of white matter everywhere
    batch = _batch((False, False))
    step = PriorStep(teacher, consistency=1.0, ramp=(10, 20), amp=False)
    assert step(_engine(network, iteration=10), batch)["loss"] == 0
    engine = _engine(network, iteration=20)
    losses = [step(engine, batch)["loss"] for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        context = network.context(batch["context"])
        tissue = network(batch["image"], batch["cells"], context, batch["condition"]).tissue
    assert bool((tissue.argmax(1) == WHITE).all())


def test_a_mixed_batch_uses_both():
    network = AnatomyExtractor()
    step = PriorStep(network, ramp=(0, 1), amp=False)
    both = step(_engine(network, 5), _batch((True, False)))["loss"]
    assert both > 0 and both == both


def test_validation_batches_hold_the_tissue_and_the_head():
    batch = _batch()
    image, label, _, extra = PrepareLabels()(batch, torch.device("cpu"))
    assert torch.equal(image, batch["image"]) and torch.equal(label, batch["tissue"])
    assert set(extra) == {"condition", "context", "cells"}
