import copy
from types import SimpleNamespace

import pytest
import torch
from data import small_network

from bundle.diffusion import add_noise, step
from bundle.engines.diffusion import DiffusionStep
from bundle.engines.distillation import DistillationStep, FeatureProjections, parse_stages, tapped
from bundle.losses import IntensityLoss
from bundle.networks.context import surround
from bundle.networks.super_resolver import SuperResolver, encode_condition

STAGES = [
    {"name": "weak", "until": 0.5, "strength": 0.5, "steps": 4},
    {"name": "full", "until": 1.0, "steps": 1},
]


def _batch(n=4):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(n, 1, 16, 16, 16, generator=generator)
    high = low + 0.1 * torch.randn(low.shape, generator=generator)
    condition = encode_condition("7T", "T1w", (2, 2, 2))[None].expand(n, -1)
    return {"image": low, "label": high, "condition": condition, "context": low, "cells": surround(low)}


def _distillation(teacher, student, **options):
    projections = FeatureProjections(student, teacher)
    update = DistillationStep(teacher, projections, STAGES, **{"teacher_steps": 4, "amp": False, **options})
    engine = SimpleNamespace(
        network=student,
        optimizer=torch.optim.AdamW([*student.parameters(), *projections.parameters()], 3e-3),
        state=SimpleNamespace(device=torch.device("cpu")),
    )
    return engine, update


def test_stages_are_checked():
    assert [stage.name for stage in parse_stages(STAGES, 8)] == ["weak", "full"]
    with pytest.raises(ValueError, match="a stage has name, until, strength, steps"):
        parse_stages([{"name": "x", "until": 1, "width": 3}], 8)
    with pytest.raises(ValueError, match="must rise from above 0 to 1"):
        parse_stages(STAGES[:1], 8)
    with pytest.raises(ValueError, match="stage 'x': steps divide 8"):
        parse_stages([{"name": "x", "until": 1, "steps": 3}], 8)
    with pytest.raises(ValueError, match=r"strength lies in \(0, 1\]"):
        parse_stages([{"name": "x", "until": 1, "strength": 0}], 8)


def test_a_student_that_is_the_teacher_has_nothing_to_learn_from_its_own_steps():
    teacher = small_network(modulation=True)
    engine, update = _distillation(teacher, copy.deepcopy(teacher), beta=0.0)
    update.stages[0] = update.stages[0]._replace(strength=1.0)
    update.enter(0)
    assert update(engine, _batch())["loss"] == pytest.approx(0, abs=1e-5)


def test_images_at_temperature_0_count_for_the_teacher_and_for_the_truth():
    teacher, batch, image_loss = small_network(), _batch(), IntensityLoss(squared=60.0, gradient=0.0, histogram=0.0)
    options = {"alpha": 2.0, "beta": 0.0, "share": 1.0, "image_loss": image_loss}
    own, update = _distillation(teacher, copy.deepcopy(teacher), **options)
    update.enter(1)
    assert update(own, batch)["loss"] == pytest.approx(0, abs=1e-5)
    engine, update = _distillation(teacher, copy.deepcopy(teacher), truth=0.5, **options)
    update.enter(1)
    noise, context = 0 * teacher.latent.encode(batch["image"]), teacher.context(batch["context"])
    mean = teacher.sample(batch["image"], context, noise, batch["condition"], 1, batch["cells"])
    latents = [teacher.encode_residual(batch["image"], x, batch["condition"]) for x in (mean, batch["label"])]
    expected = 0.5 * (latents[0] - latents[1]).square().mean() + 30 * (mean - batch["label"]).square().mean()
    assert update(engine, batch)["loss"] == pytest.approx(float(expected), rel=1e-4)


def test_in_a_stage_without_the_teacher_the_student_learns_from_the_truth_as_without_one():
    batch, networks = _batch(), []
    stages = [{"name": "taught", "until": 0.5}, {"name": "alone", "until": 1.0, "teacher": False}]
    for alone in (True, False):
        torch.manual_seed(0)
        teacher, student = small_network(), SuperResolver("small")
        engine, update = _distillation(teacher, student)
        update = DistillationStep(teacher, update.projections, stages, 4, amp=False, reuse=3)
        update.enter(1)
        teacher.forward = teacher.predict = None  # nobody asks it
        engine.loss_function = torch.nn.MSELoss()
        torch.manual_seed(1)
        (update if alone else DiffusionStep(amp=False))(engine, batch)
        networks.append(student)
    pairs = list(zip(*(n.state_dict().values() for n in networks), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert float(networks[0].denoiser.exit.weight.abs().max()) > 0  # it began as zero


def test_one_step_from_the_target_lands_where_the_teachers_steps_do():
    teacher = small_network()
    _, update = _distillation(teacher, SuperResolver("small"), share=0.0)
    update.enter(1)
    batch = _batch(2)
    lesson = update.ask(*(batch[k] for k in ("image", "label", "condition", "context", "cells")))
    assert torch.equal(lesson.t, torch.ones(2))
    z, context = lesson.noisy, teacher.context(batch["context"])
    for now in (1.0, 0.75, 0.5, 0.25):
        t = torch.full((2,), now)
        output = teacher.predict(batch["image"], z, t, context, batch["condition"], batch["cells"])
        z = step(z, teacher.clean(z, output, t), t, t - 0.25)
    assert torch.allclose(step(lesson.noisy, lesson.target, lesson.t, torch.zeros(2)), z, atol=1e-4)


def test_at_temperature_0_the_target_is_the_teachers_mean_weakened_by_the_stage():
    teacher = small_network()
    _, update = _distillation(teacher, SuperResolver("small"), share=1.0)
    batch = _batch(2)
    lesson = update.ask(*(batch[k] for k in ("image", "label", "condition", "context", "cells")))
    assert float(lesson.noisy.abs().max()) < 1e-6
    image = teacher.sample(
        batch["image"], teacher.context(batch["context"]), lesson.noisy, batch["condition"], 1, batch["cells"]
    )
    half_way = (batch["image"] + image) / 2
    assert torch.allclose(
        teacher.decode_residual(batch["image"], lesson.target, batch["condition"]), half_way, atol=1e-5
    )


def test_the_teacher_has_the_heads_own_view():
    teacher, batch = small_network(modulation=True), _batch(2)
    _, update = _distillation(teacher, SuperResolver("small"), share=1.0)
    given = [batch[k] for k in ("image", "label", "condition", "context", "cells")]
    expected = update.ask(*given).target
    given[3] = torch.rand_like(given[3])
    assert not torch.allclose(update.ask(*given).target, expected, atol=1e-4)
    lesson = update.ask(*given, own_view=batch["context"])
    assert torch.allclose(lesson.target, expected) and torch.equal(lesson.context, given[3])


def test_noisy_latents_of_a_weaker_stage_hold_the_weaker_truth():
    torch.manual_seed(0)
    _, update = _distillation(small_network(), SuperResolver("small"), share=0.0)
    batch = _batch(64)
    lesson = update.ask(*(batch[k] for k in ("image", "label", "condition", "context", "cells")))
    noise = lesson.noisy - add_noise(lesson.clean, torch.zeros_like(lesson.clean), lesson.t)
    sigma = torch.sin(lesson.t * torch.pi / 2)
    assert torch.allclose(noise.std((1, 2, 3, 4)), sigma, rtol=0.1)
    early = lesson.t == 0.25
    correlation = torch.corrcoef(torch.stack([noise[early].flatten(), lesson.clean[early].flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.05


@pytest.mark.parametrize("reuse", [1, 3])
def test_the_student_comes_nearer_to_the_teacher(reuse):
    torch.manual_seed(0)
    teacher, student = small_network(prior=True, modulation=True), SuperResolver("small")
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    engine, update = _distillation(teacher, student, reuse=reuse, share=1.0)
    update.enter(1)
    losses = [update(engine, _batch())["loss"] for _ in range(45 // reuse)]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert len(update.past) == min(16, 45 // reuse)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    update.enter(0)
    assert not update.past


def test_features_of_every_scale_are_projected_to_the_teachers_width():
    student, teacher = SuperResolver("small"), SuperResolver("student")
    with tapped(student.denoiser) as features:
        student(torch.rand(1, 1, 16, 16, 16))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 2, 2, 2), (32, 4, 4, 4), (16, 8, 8, 8)]
    projected = [p(f) for p, f in zip(FeatureProjections(student, teacher), features, strict=True)]
    assert [p.shape[1] for p in projected] == [128, 64, 32]
    student(torch.rand(1, 1, 16, 16, 16))
    assert len(features) == 3  # nothing is gathered after the tap is closed


def test_options_out_of_range_are_refused():
    teacher = SuperResolver("small")
    with pytest.raises(ValueError, match="reuse 0: 1 or more"):
        _distillation(teacher, SuperResolver("small"), reuse=0)
    with pytest.raises(ValueError, match="no temperature 0"):
        _distillation(SuperResolver("small", prediction="epsilon"), SuperResolver("small"))


def test_a_mixture_of_experts_can_be_the_teacher():
    torch.manual_seed(0)
    teacher, student = small_network(experts=True, modulation=True), SuperResolver("small")
    student.residual_std.copy_(teacher.residual_std)
    engine, update = _distillation(teacher, student)
    widths = [(p.in_channels, p.out_channels) for p in update.projections]
    assert widths == [(64, 64), (32, 32), (16, 16)]
    batch = _batch()
    losses = [update(engine, batch)["loss"] for _ in range(25)]
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3])
    lesson = update.ask(*(batch[k] for k in ("image", "label", "condition", "context", "cells")))
    assert [f.shape[1] for f in lesson.features] == [64, 32, 16]


def test_a_teachers_maps_are_privileged_and_a_student_without_them_learns_all_the_same():
    torch.manual_seed(0)
    teacher, student = small_network(guided=True), SuperResolver("small")
    engine, update = _distillation(teacher, student, share=1.0)
    update.enter(1)
    batch = {**_batch(), "fields": 0.3 * torch.rand(4, 3, 16, 16, 16, generator=torch.Generator().manual_seed(1))}
    keys = ("image", "label", "condition", "context", "cells")
    told, untold = update.ask(*(batch[k] for k in (*keys, "fields"))), update.ask(*(batch[k] for k in keys))
    assert not torch.allclose(told.target, untold.target, atol=1e-3)
    losses = [update(engine, batch)["loss"] for _ in range(30)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
