import numpy as np
import pytest
import torch

from bundle.simulation.phantom import brain_phantom
from bundle.simulation.protocol import draw, signals
from bundle.simulation.rendering import (
    add_fat,
    add_lesions,
    brain_mask,
    deform,
    draw_shape,
    prepare_map,
    render,
    smooth_noise,
    subdivide,
)
from bundle.simulation.tissues import CLASSES, to_classes

WM, GM, SOFT, SKIN = (CLASSES.index(n) for n in ("WM", "cortical GM", "soft tissue", "skin"))


def _ball(n=32, radius=11.0, centre=None):
    axes = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2] * 3, indexing="ij")
    distance = sum((a - c) ** 2 for a, c in zip(axes, centre or (0, 0, 0), strict=True)).sqrt()
    classes = torch.zeros(n, n, n, dtype=torch.uint8)
    classes[distance < radius] = GM
    classes[distance < radius - 4] = WM
    return classes, distance


def test_subdividing_keeps_volumes_and_takes_the_stairs_away():
    classes, _ = _ball()
    fine = subdivide(classes)
    assert fine.shape == (64, 64, 64) and fine.dtype == torch.uint8
    for tissue in (GM, WM):
        assert int((fine == tissue).sum()) / 8 == pytest.approx(int((classes == tissue).sum()), rel=0.06)
    nearest = classes.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    axes = torch.meshgrid(*[(torch.arange(64) - 31.5) / 2] * 3, indexing="ij")
    distance = sum(a**2 for a in axes).sqrt()

    def roughness(volume):
        border = (volume > 0) & (torch.nn.functional.avg_pool3d((volume > 0).float()[None, None], 3, 1, 1)[0, 0] < 0.99)
        return float(distance[border].std())

    assert roughness(fine) < 0.8 * roughness(nearest)


def test_fat_lies_under_the_skin_and_only_in_soft_tissue():
    _, distance = _ball(48)
    classes = torch.zeros(48, 48, 48, dtype=torch.uint8)
    classes[distance < 22] = SKIN
    classes[distance < 20] = SOFT
    classes[distance < 6] = WM
    fat = add_fat(classes, (1, 1, 1), torch.Generator().manual_seed(0)) == CLASSES.index("fat")
    assert (classes[fat] == SOFT).all()
    share = [float(fat[(distance > r) & (distance < r + 2)].float().mean()) for r in (17.5, 8)]
    assert share[0] > 0.5 > 0.35 > share[1]


def test_no_deformation_is_the_identity_and_a_turn_is_a_turn():
    classes, _ = _ball(24, 6, (4.0, 0.0, 0.0))
    still = {"matrix": np.eye(3).tolist(), "displacement": np.zeros((3, 5, 5, 5)).tolist()}
    assert torch.equal(deform(classes, still, (1, 1, 1)), classes)
    turn = {**still, "matrix": [[0, -1, 0], [1, 0, 0], [0, 0, 1]]}
    turned = deform(classes, turn, (1, 1, 1))
    assert torch.equal(turned, torch.rot90(classes, -1, (0, 1))) or torch.equal(turned, torch.rot90(classes, 1, (0, 1)))
    shift = {**still, "displacement": (np.ones((3, 5, 5, 5)) * 1.0).tolist()}  # 1 mm is two voxels of half a mm
    moved = deform(classes, shift, (0.5, 0.5, 0.5))
    assert torch.equal(moved[:-2, :-2, :-2], classes[2:, 2:, 2:])


def test_shapes_vary_with_the_seed_and_stay_heads():
    classes, _ = _ball(40, 14)
    volumes = []
    for seed in range(5):
        warped = deform(classes, draw_shape(np.random.RandomState(seed)), (4.0, 4.0, 4.0))
        volumes.append(int((warped > 0).sum()) / int((classes > 0).sum()))
    assert len(set(volumes)) == 5 and min(volumes) > 0.6 and max(volumes) < 1.6


def test_lesions_lie_in_white_matter():
    classes = torch.full((60, 60, 60), WM, dtype=torch.uint8)
    classes[:30] = GM
    found = [add_lesions(classes, np.random.RandomState(s), (0.5, 0.5, 0.5)) for s in range(40)]
    with_some = [(c, listed) for c, listed in found if listed]
    assert 1 <= len(with_some) < 20  # a share of the heads
    for changed, listed in with_some:
        lesion = changed == CLASSES.index("WM lesion")
        assert lesion.any() and (classes[lesion] == WM).all()
        assert all(1 <= one["radius"] <= 4 for one in listed)


def test_a_tissue_has_its_signal_on_average_and_texture_follows_t1():
    parameters = draw(np.random.RandomState(3), "T1w", 1.5, 7.0)
    parameters |= {"b1": np.zeros((3, 3, 3)).tolist(), "variation": {"amplitude": 0.05, "grain": 2.0}}
    classes = torch.full((40, 40, 40), GM, dtype=torch.uint8)
    low, high = render(classes, parameters, (0.5, 0.5, 0.5))
    for image, which in ((low, "low"), (high, "high")):
        assert float(image.mean()) == pytest.approx(float(signals(parameters, which)[GM]), rel=0.02)
        assert 0.005 < float(image.std() / image.mean()) < 0.15
    assert np.corrcoef(low.flatten(), high.flatten())[0, 1] > 0.99  # one T1 map behind both
    again = render(classes, parameters, (0.5, 0.5, 0.5))
    assert torch.equal(low, again[0]) and torch.equal(high, again[1])


def test_prepared_maps_are_repeatable_and_noise_has_unit_deviation():
    classes, _ = _ball()
    assert torch.equal(prepare_map(classes, (1, 1, 1)), prepare_map(classes, (1, 1, 1)))
    noise = smooth_noise((30, 40, 50), 5.0, torch.Generator().manual_seed(1))
    assert noise.shape == (30, 40, 50) and float(noise.std()) == pytest.approx(1, abs=1e-4)
    assert float((noise[1:] - noise[:-1]).std()) < 0.8  # smooth: white noise has 1.4


def test_a_brain_mask_keeps_the_brain_and_loses_the_skull():
    classes = to_classes(brain_phantom((88, 104, 92), 2.0))
    mask = brain_mask(classes, 4, 2)
    assert mask.shape == classes.shape and set(mask.unique().tolist()) == {0.0, 1.0}
    assert float(mask[classes == WM].mean()) > 0.99 and float(mask[classes == GM].mean()) > 0.9
    assert float(mask[classes == SKIN].mean()) < 0.02
