import pytest
import torch
from data import small_network
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle import inferer
from bundle.cropping import air_level, content_box, framed, paste
from bundle.inferer import SuperResolutionInferer

WHOLE = (slice(0, 96), slice(0, 80), slice(0, 88))


def _padded(level=0.0, noise=0.0):
    """A head of noise in a volume of one value."""
    generator = torch.Generator().manual_seed(0)
    volume = level + noise * torch.randn(1, 1, 96, 80, 88, generator=generator)
    volume[..., 40:60, 24:52, 30:50] = 0.2 + 0.8 * torch.rand(20, 28, 20, generator=generator)
    return volume


def test_the_box_holds_the_content_with_its_margin_and_begins_on_the_grid():
    box = content_box(_padded(), 16)
    assert box == (slice(24, 80), slice(8, 72), slice(8, 72))
    assert content_box(_padded(), 16, grid=16) == (slice(16, 80), slice(0, 72), slice(0, 72))


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(0, 90)] * 3), st.integers(0, 24))
def test_a_single_voxel_anywhere_is_inside_with_its_margin(corner, margin):
    volume = torch.zeros(1, 1, 96, 80, 88)
    index = tuple(min(c, n - 1) for c, n in zip(corner, volume.shape[2:], strict=True))
    volume[(0, 0, *index)] = 1.0
    for i, s, n in zip(index, content_box(volume, margin), volume.shape[2:], strict=True):
        assert max(0, i - margin) >= s.start >= 0 and min(n, i + margin + 1) <= s.stop <= n and s.start % 8 == 0


def test_a_frame_is_the_same_whatever_air_there_was():
    volume = _padded(noise=0.01)
    frame = framed(volume)
    assert frame.shape[2:] == (20 + 16, 28 + 16, 24 + 16)  # what cells of the head cover, and 8 voxels on each side
    assert float(frame.sum()) == pytest.approx(float(volume[..., 32:68, 16:60, 20:60].sum()), rel=1e-4)
    for more in ([8, 4, 12, 0, 4, 16], [-16, -20, -16, 0, -8, -8], [-28, -34, -24, -28, -36, -32]):
        other = framed(torch.nn.functional.pad(volume, more, value=0.0))
        assert other.shape == frame.shape and (other - frame).abs().max() < 0.05
    head = torch.ones(1, 1, 40, 40, 40)
    head[..., :8, :8, :8] = 0.1
    assert air_level(head) == pytest.approx(0.1) and framed(head).shape[2:] == (56, 56, 56)
    assert float(framed(head)[0, 0, -1, -1, -1]) == pytest.approx(0.1)
    assert framed(torch.zeros(1, 1, 16, 16, 16)).shape[2:] == (16, 16, 16)


def test_noise_in_air_counts_as_content_and_so_does_a_volume_without_any():
    assert content_box(_padded(noise=0.01), 16) == WHOLE
    assert content_box(torch.ones(1, 1, 96, 80, 88), 16) == WHOLE
    assert content_box(_padded(), 40) == WHOLE  # what is left out would not pay


def test_padding_of_another_value_is_padding_too():
    assert content_box(_padded(level=-0.3), 16) == content_box(_padded(), 16)


def test_around_the_box_the_image_stays_and_the_uncertainty_is_that_of_its_border():
    volume, box = _padded(), content_box(_padded(), 16)
    part = torch.stack([volume[(0, 0, *box)] + 1, torch.full((56, 64, 64), 0.5)])[None]
    result = paste(volume, box, part)
    assert torch.equal(result[(..., *box)], part) and torch.equal(result[:, :1, :24], volume[:, :, :24])
    assert torch.equal(result[:, 1:], torch.full_like(volume, 0.5))
    assert torch.equal(paste(volume, box, part[:, :1]), result[:, :1])


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "steps": 2, "uncertainty": True}], ids=str)
def test_the_head_is_what_it_is_without_cropping(options, monkeypatch):
    volume, network = _padded(), small_network(modulation=True, uncertainty=True)
    run = SuperResolutionInferer(amp=False, overlap=32, **options)
    cropped = run(volume, network)
    monkeypatch.setattr(inferer, "content_box", lambda *words: WHOLE)
    whole = run(volume, network)
    inside = (..., slice(40, 60), slice(24, 52), slice(30, 50))
    assert cropped.shape == whole.shape
    change = float((whole[:, :1] - volume)[inside].abs().max())
    assert float((cropped - whole)[inside].abs().max()) < 0.01 * change  # of random weights; of the shipped ones 1e-4
    assert torch.equal(cropped[:, :1, :16], volume[:, :, :16]) and not torch.equal(whole[:, :1, :16], volume[:, :, :16])
