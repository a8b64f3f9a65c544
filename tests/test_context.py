import pytest
import torch

from bundle.networks.context import VIEW, ContextEncoder, coarse_view


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
