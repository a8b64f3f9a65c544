import pytest
import torch

from bundle.networks.context import (
    CELL,
    REACH,
    VIEW,
    ContextEncoder,
    SurroundEncoder,
    coarse_view,
    cut_surround,
    surround,
)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((20, 30, 64), (20, 30, 64)), ((100, 130, 60), (34, 44, 20)), ((20, 640, 640), (16, 64, 64))],
)
def test_a_coarse_view_fits_and_keeps_means(shape, expected):
    volume = torch.rand(1, 1, *shape)
    view = coarse_view(volume)
    assert view.shape[2:] == expected and max(view.shape[2:]) <= VIEW
    step = -(-max(shape) // VIEW)
    assert torch.allclose(view[0, 0, 0, 0, 0], volume[0, 0, :step, :step, :step].mean(), atol=1e-6)


def test_air_around_the_head_does_not_matter_but_its_brightness_does():
    torch.manual_seed(0)
    encoder = ContextEncoder()
    head = torch.zeros(1, 1, 64, 64, 64)
    head[..., 16:40, 16:40, 16:40] = 0.3 + 0.5 * torch.rand(24, 24, 24)
    moved, brighter = head.roll((8, 8), (2, 4)), 1.5 * head
    with torch.no_grad():
        vector, same, other = encoder(head), encoder(moved), encoder(brighter)
    assert vector.shape == (1, 32) and torch.allclose(vector, same, atol=1e-4)
    assert (vector - other).abs().max() > 100 * (vector - same).abs().max()


def test_a_tile_sees_of_its_surround_what_the_whole_volume_sees_there():
    torch.manual_seed(0)
    volume, encoder = torch.rand(1, 1, 48, 32, 40), SurroundEncoder(6)
    cells = surround(volume)
    assert cells.shape == (1, 1, 6 + 2 * REACH, 4 + 2 * REACH, 5 + 2 * REACH)
    whole = encoder(cells)
    assert whole.shape == (1, 6, 6, 4, 5)
    tile = (slice(16, 48), slice(0, 16), slice(8, 40))
    part = encoder(cut_surround(cells, tile))
    assert torch.allclose(part, whole[(..., *(slice(s.start // CELL, s.stop // CELL) for s in tile))], atol=1e-5)
    changed = cells.clone()
    changed[..., 0, 0, 0] += 1  # the farthest corner of the first cell's reach
    assert not torch.allclose(encoder(changed)[..., 0, 0, 0], whole[..., 0, 0, 0])
