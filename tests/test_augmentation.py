import numpy as np
import pytest
import torch
from data import head
from monai.data import MetaTensor

from bundle.augmentation import UNKNOWN, PrepareSourced, RandAcquired, RandCutd, RandHeadCropd, pad_view
from bundle.errors import InputError

SIZES = {"sharp": 48, "label_map": 40}


def _labels(n=40):
    labels = torch.zeros(1, n, n, n)
    labels[:, 4:-4, 4:-4, 4:-4] = 515  # bone
    labels[:, 8:-8, 8:-8, 8:-8] = 3  # cortex
    labels[:, 12:-12, 12:-12, 12:-12] = 41  # white matter
    return labels


def _item(kind="sharp"):
    volume = torch.from_numpy(head((60, 60, 60)))[None] if kind == "sharp" else _labels(60)
    return PrepareSourced("image")({"image": MetaTensor(volume), "kind": kind, "modality": "T1w"})


def test_sources_become_small_and_bad_labels_are_refused():
    assert _item()["image"].dtype == torch.float16 and float(_item()["image"].max()) > 0.8
    fine = _item("label_map")["image"]
    assert fine.dtype == torch.uint8 and fine.shape == (1, 120, 120, 120)  # half the voxel size
    assert _item("label_map")["head"].shape == (1, 30, 30, 30) and _item()["head"].shape == (1, 60, 60, 60)
    with pytest.raises(InputError, match="unknown"):
        PrepareSourced("image")({"image": MetaTensor(_labels() + 7000), "kind": "label_map"})


@pytest.mark.parametrize("kind", SIZES)
def test_crops_have_the_size_of_their_kind_and_small_volumes_are_mirrored(kind):
    item = _item(kind)
    crop = RandHeadCropd("image", SIZES).set_random_state(0)
    assert crop(item)["image"].shape == (1, *[SIZES[kind]] * 3)
    item["image"] = item["image"][:, :, :, :20]
    out = crop(item)["image"]
    assert out.shape == (1, *[SIZES[kind]] * 3)
    assert torch.equal(out[..., 20], out[..., 19])  # mirrored at the edge


def test_a_cut_leaves_a_hard_edge():
    item = _item()
    cut = RandCutd("image", prob=1.0).set_random_state(3)(dict(item))["image"]
    gone = (cut == 0) & (item["image"] > 0.1)
    assert float(gone.float().mean()) > 0.05 and torch.equal(cut[cut != 0], item["image"][cut != 0])


def test_pairs_have_the_same_grid_and_the_condition_of_their_factors():
    item = RandHeadCropd("image", {"sharp": 56}).set_random_state(0)(_item())
    pair = RandAcquired("image", size=24).set_random_state(0)
    seen = set()
    for _ in range(20):
        out = pair(dict(item))
        assert out["image"].shape == out["label"].shape == (1, 24, 24, 24)
        assert torch.isfinite(out["image"]).all()
        assert out["context"].shape == (1, 64, 64, 64) and bool((out["tissue"] == UNKNOWN).all())
        assert bool(out["level"].isnan())
        factors = 2 ** out["condition"][3:].numpy()
        assert (factors > 0.99).all() and (factors < 9).all() and factors.max() > 1.2
        seen.add(tuple(out["condition"][:3].tolist()))
    assert seen == {(0, 1, 0), (0, 0, 0)}  # the modality is dropped now and then


def test_a_pair_of_two_fields_keeps_its_views_aligned_and_shares_no_gamma():
    item = RandHeadCropd("image", {"sharp": 56}).set_random_state(0)(_item())
    item |= {"kind": "label_map", "low": 1.0 - item["image"].float()}  # a contrast turned over
    out = RandAcquired("image", size=24, noise=0.0).set_random_state(1)(item)
    assert out["condition"].tolist()[:3] == [1, 1, 0]
    assert np.corrcoef(out["image"].flatten(), out["label"].flatten())[0, 1] < -0.5


def test_a_fixed_pair_is_the_same_volume_degraded_by_two():
    item = _item()
    item["image"] = item["image"][:, 2:-2, 2:-2, 2:-2]
    transform = RandAcquired("image", size=24, fixed=2.0)
    out = transform.set_random_state(0)(dict(item))
    assert torch.equal(out["label"][0], item["image"][0, 16:40, 16:40, 16:40].float())
    assert out["condition"].tolist() == [0, 1, 0, 1, 1, 1]
    correlation = np.corrcoef(out["image"].flatten(), out["label"].flatten())[0, 1]
    assert 0.8 < correlation < 0.999


def test_tissue_turns_and_moves_with_the_images():
    item = RandHeadCropd("image", {"sharp": 56}).set_random_state(0)(_item())
    sharp = item["image"].float()
    tissue = (sharp > float(sharp[:, 16:40, 16:40, 16:40].median())).byte()
    item |= {"kind": "label_map", "low": sharp, "tissue": tissue, "level": 0.7}
    for seed in range(4):
        out = RandAcquired("image", size=24, noise=0.0).set_random_state(seed)(dict(item))
        inside, outside = out["label"][out["tissue"] == 1], out["label"][out["tissue"] == 0]
        assert min(len(inside), len(outside)) > 500 and float(out["level"]) == pytest.approx(0.7)
        assert float(inside.mean() - outside.mean()) > 0.4 * float(out["label"].std())


def test_gain_and_gamma_change_the_view_of_the_head_as_they_change_the_crop():
    item = RandHeadCropd("image", {"sharp": 56}).set_random_state(0)(_item())
    before = pad_view(item["head"].float())
    after = RandAcquired("image", size=24).set_random_state(0)(item)["context"]
    inside = before > 0.2
    slope = np.polyfit(before[inside].log(), after[inside].log(), 1)
    assert not torch.allclose(before, after, atol=0.01)
    assert np.abs(np.polyval(slope, before[inside].log()) - after[inside].log().numpy()).max() < 1e-3


def test_without_turning_only_left_and_right_are_mirrored():
    item = RandHeadCropd("image", {"sharp": 56}).set_random_state(0)(_item())
    item["image"] = torch.linspace(0, 1, 56)[None, None, None].expand(1, 56, 56, 56)  # grows along the third axis
    transform = RandAcquired("image", size=24, noise=0.0, turn=False)
    for seed in range(5):
        label = transform.set_random_state(seed)(dict(item))["label"][0]
        assert float(label[:, :, 18:].mean() - label[:, :, :6].mean()) > 0.1
