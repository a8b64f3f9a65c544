import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch.nn import functional as F

from bundle.augmentation import PrepareSourced, RandAcquired, RandHeadCropd
from bundle.neighbourhood import cells_around, pad_view, shift_cells
from bundle.networks.context import CELL, REACH, VIEW, surround
from bundle.simulation.rendering import smooth_noise


def test_cells_are_those_that_inference_sees():
    volume = torch.rand(1, 64, 64, 64)
    cells = cells_around(volume, 1, (32, 24, 40), 1.0, 32)  # a crop of 32 whose middle is there
    expected = surround(volume[None])[0]
    start = [(c - 16) // CELL for c in (32, 24, 40)]
    expected = expected[(..., *(slice(s, s + 4 + 2 * REACH) for s in start))]
    assert torch.allclose(cells[:, 1:-1, 1:-1, 1:-1], expected, atol=1e-5)
    coarse = F.avg_pool3d(volume[None], 2)[0]
    again = cells_around(coarse, 2, (32, 24, 40), 1.0, 32)
    assert torch.allclose(again, cells, atol=1e-5)
    wider = cells_around(volume, 1, (32, 32, 32), 2.0, 32)
    assert torch.allclose(wider.mean() * 2**3 * wider.numel(), cells.sum(), rtol=0.3)


def test_a_shift_moves_the_cells_along():
    volume = torch.rand(1, 64, 64, 64)
    cells = cells_around(volume, 1, (32, 32, 32), 1.0, 32)
    for shift in ((8, 0, -8), (0, 8, 0)):
        moved = cells_around(volume, 1, [32 + s for s in shift], 1.0, 32)[:, 1:-1, 1:-1, 1:-1]
        assert torch.allclose(shift_cells(cells, shift), moved, atol=1e-5)
    half = shift_cells(cells, (4, 0, 0))
    ends = shift_cells(cells, (0, 0, 0)), shift_cells(cells, (8, 0, 0))
    assert torch.allclose(half, (ends[0] + ends[1]) / 2, atol=1e-5)


def test_the_surround_of_a_training_crop_lies_where_the_crop_does():
    volume = 2 + 0.5 * smooth_noise((90, 96, 80), 24, torch.Generator().manual_seed(0))[None]
    item = PrepareSourced("image")({"image": MetaTensor(volume), "kind": "sharp", "modality": "T1w"})
    for seed in range(6):
        crop = RandHeadCropd("image", {"sharp": 64}).set_random_state(seed)(dict(item))
        acquire = RandAcquired("image", size=24, noise=0.0).set_random_state(seed)
        acquire._shading = lambda shape: 1.0  # the surround knows nothing of it
        out = acquire(crop)
        own = out["cells"][0, REACH:-REACH, REACH:-REACH, REACH:-REACH].flatten()
        seen = F.avg_pool3d(out["label"][None], CELL).flatten()
        assert np.corrcoef(own, seen)[0, 1] > 0.9 and own.std() == pytest.approx(float(seen.std()), rel=0.4)


def test_views_are_filled_up_with_air():
    view = pad_view(torch.ones(1, 20, 64, 30))
    assert view.shape == (1, VIEW, VIEW, VIEW) and float(view.sum()) == 20 * 64 * 30
