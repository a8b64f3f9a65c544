import numpy as np
import pytest
import torch
from data import head
from monai.data import MetaTensor
from torch.nn.functional import avg_pool3d

from bundle.augmentation import PrepareSourced, RandHeadCropd
from bundle.gradients import GradientField
from bundle.guided_augmentation import HEAD, RandGuidedAcquired, draw_coil, draw_log_bias, log_bias_at


def _crop(seed=0):
    item = PrepareSourced("image")({"image": MetaTensor(torch.from_numpy(head((60, 60, 60)))[None]), "modality": "T1w"})
    return RandHeadCropd("image", {"sharp": 56}).set_random_state(seed)(item)


def _acquired(item, seed=0, **options):
    return RandGuidedAcquired("image", size=24, noise=0.0, **options).set_random_state(seed)(dict(item))


def test_made_up_coils_distort_by_millimetres_where_a_head_ends_and_are_one_to_one_there():
    random, shifts = np.random.RandomState(0), []
    for _ in range(10):
        field = GradientField(draw_coil(random))
        assert field.valid_radius > HEAD / 2
        ends = 100 * np.stack([np.eye(3), -np.eye(3)], axis=1).reshape(3, 6)
        shifts.append(np.abs(field.displacement(ends)).max())
    assert 1 < np.median(shifts) < 8


def test_the_log_field_has_no_constant_and_the_strength_that_is_asked_for():
    coefficients = torch.stack([draw_log_bias(np.random.RandomState(i), (0.2, 0.2)) for i in range(50)])
    assert float(coefficients[:, 0, 0, 0].abs().max()) == 0
    assert float(coefficients.std()) == pytest.approx(0.2, rel=0.1)
    flat = log_bias_at(torch.zeros(3, 3, 3), [torch.linspace(0, 1, 5)] * 3)
    assert flat.shape == (5, 5, 5) and float(flat.abs().max()) == 0


def test_an_example_has_maps_beside_everything_that_other_examples_have():
    out = _acquired(_crop())
    assert out["image"].shape == out["label"].shape == (1, 24, 24, 24) and out["fields"].shape == (3, 24, 24, 24)
    assert out["context"].shape == (1, 64, 64, 64) and bool(torch.isfinite(out["fields"]).all())
    assert {"cells", "condition", "tissue", "level"} <= set(out)


def test_true_maps_lead_from_the_image_to_the_label():
    errors = []
    for seed in range(6):
        item = _crop(seed)
        out = _acquired(item, seed, error=(0.0, 0.0), known=1.0, bias=(0.25, 0.25), factors=(1.2, 1.2))
        low, label, correction = (
            avg_pool3d(v, 4)
            for v in (out["image"], out["label"], out["fields"][:1])  # detail is the network's matter
        )
        before, after = ((v - label).square().mean() for v in (low, low + correction))
        errors.append(float(after / before))
    assert np.median(errors) < 0.6


def test_estimated_maps_are_off_and_unknown_coils_leave_no_jacobian():
    item = _crop()
    true, estimated = (_acquired(item, 3, error=e, known=0.0)["fields"] for e in ((0.0, 0.0), (0.1, 0.1)))
    assert float(true[2].abs().max()) == 0
    assert 0.02 < float((true[1] - estimated[1]).abs().mean()) < 1


def test_heads_are_mirrored_and_never_turned():
    item = _crop()
    item["image"] = torch.linspace(0.2, 1, 56)[None, None, None].expand(1, 56, 56, 56)  # grows along the third axis
    item["tissue"] = torch.zeros(1, 56, 56, 56, dtype=torch.uint8)
    item["tissue"][:, :28] = 1
    sides = set()
    for seed in range(8):
        out = _acquired(item, seed, known=0.0)
        assert float(out["label"][..., 18:].mean() - out["label"][..., :6].mean()) > 0.05
        sides.add(bool(out["tissue"][:, :6].float().mean() > 0.5))
    assert sides == {True, False}
