import numpy as np
import pytest
import torch
from data import phantom_map
from monai.data import MetaTensor

from bundle.augmentation import PrepareSourced, RandHeadCropd
from bundle.simulation.tissues import GROUPS
from bundle.synthesis import RandRenderd

SIZE = 24


@pytest.fixture(scope="module")
def item():
    labels = torch.from_numpy(phantom_map()[0].astype(np.float32))[None]
    return PrepareSourced("image")({"image": MetaTensor(labels), "kind": "label_map"})


def _crop(item, seed=0):
    return RandHeadCropd("image", {"label_map": 2 * SIZE}).set_random_state(seed)(dict(item))


def test_images_are_left_alone():
    sharp = {"image": torch.zeros(1, 30, 30, 30), "kind": "sharp"}
    assert RandRenderd("image", SIZE)(sharp) == sharp


@pytest.mark.parametrize("pairs", [0.0, 1.0])
def test_rendering_follows_the_seed_and_has_the_size_asked_for(item, pairs):
    first, same, other = (RandRenderd("image", SIZE, pairs).set_random_state(s)(_crop(item)) for s in (1, 1, 2))
    assert first["image"].shape == (1, SIZE, SIZE, SIZE) and first["image"].dtype == torch.float32
    assert torch.equal(first["image"], same["image"]) and not torch.equal(first["image"], other["image"])
    assert ("low" in first) == (pairs == 1) and float(first["image"].min()) >= 0


def test_a_pair_shows_one_head_at_two_fields(item):
    seen = set()
    for seed in range(6):
        out = RandRenderd("image", SIZE, pairs=1.0, stripped=0.0).set_random_state(seed)(_crop(item, seed))
        seen.add(out["modality"])
        high, low = out["image"].flatten(), out["low"].flatten()
        if float(high.std()) > 0.02:
            assert not torch.equal(high, low) and np.corrcoef(high, low)[0, 1] > 0.7
    assert seen == {"T1w", "T2w"}


def test_a_stripped_head_loses_the_skull(item):
    whole, stripped = (
        RandRenderd("image", SIZE, 1.0, stripped=share).set_random_state(3)(_crop(item, 5))["image"] for share in (0, 1)
    )
    gone = (stripped < 0.01) & (whole > 0.05)
    assert 0.01 < float(gone.float().mean()) < 1


def test_the_whole_head_is_normalised_as_at_inference_and_tissue_lies_under_the_image(item):
    levels = {"T1w": [], "T2w": []}
    for seed in range(8):
        out = RandRenderd("image", SIZE, pairs=1.0, stripped=0.0).set_random_state(seed)(_crop(item, seed))
        assert out["tissue"].shape == out["image"].shape and out["tissue"].dtype == torch.uint8
        assert max(out["head"].shape) <= 64 and 0.6 < float(out["head"].quantile(0.995)) < 1.6
        levels[out["modality"]].append(float(out["level"]))
        white = out["tissue"] == list(GROUPS).index("WM")
        if int(white.sum()) > 50:
            assert float(out["image"][white].median()) == pytest.approx(float(out["level"]), rel=0.25)
    assert np.mean(levels["T1w"]) > 1.3 * np.mean(levels["T2w"])  # fluid is what is bright in T2w


def test_the_head_turns_with_its_crop(item, monkeypatch):
    turn = {"matrix": [[0, -1, 0], [1, 0, 0], [0, 0, 1]], "displacement": np.zeros((3, 5, 5, 5)).tolist()}
    monkeypatch.setattr("bundle.synthesis.draw_shape", lambda _: turn)
    agreement = {"turned": [], "as it was": []}
    for seed in range(4):
        out, step = _crop(item, seed), item["step"]
        head = out["head"]
        transform = RandRenderd("image", SIZE).set_random_state(seed)
        crop, turned = transform._warp(out["image"][0], head[0], step, out["centre"])
        inside = torch.arange(6, crop.shape[-1] - 6)
        places = [((c - crop.shape[-1] / 2 + inside) / step).long() for c in out["centre"]]
        places = [p.clamp(0, n - 1) for p, n in zip(places, head.shape[1:], strict=True)]
        for name, whole in (("turned", turned), ("as it was", head)):
            seen = whole[0][places[0]][:, places[1]][:, :, places[2]]
            agreement[name].append(float((seen == crop[6:-6, 6:-6, 6:-6]).float().mean()))
    assert min(agreement["turned"]) > 0.5
    assert np.mean(agreement["turned"]) > np.mean(agreement["as it was"]) + 0.2
