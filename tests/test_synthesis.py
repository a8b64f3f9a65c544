import numpy as np
import pytest
import torch
from data import phantom_map
from monai.data import MetaTensor

from bundle.augmentation import PrepareSourced, RandHeadCropd
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
