import pytest
import torch
from data import small_network
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from bundle.inferer import SuperResolutionInferer, tile_slices

IMAGE = torch.rand(1, 1, 36, 40, 44, generator=torch.Generator().manual_seed(0))


def _run(image=IMAGE, **options):
    return SuperResolutionInferer(amp=False, **options)(image, small_network())


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(2, 20)] * 3), st.integers(4, 12), st.integers(0, 3))
def test_tiles_cover_everything_begin_on_multiples_of_eight_and_overlap(blocks, side, overlap):
    shape, side, overlap = tuple(8 * n for n in blocks), 8 * side, 8 * overlap
    seen = torch.zeros(shape, dtype=torch.int)
    for tile in tile_slices(shape, side, overlap):
        assert all(
            s.start % 8 == 0 and s.stop - s.start <= side and s.stop <= n for s, n in zip(tile, shape, strict=True)
        )
        seen[tile] += 1
    assert int(seen.min()) >= 1
    starts = sorted({t[0].start for t in tile_slices(shape, side, overlap)})
    assert all(b - a <= max(8, side - overlap) for a, b in zip(starts[:-1], starts[1:], strict=True))


def test_tiles_that_do_not_fit_the_network_are_refused():
    for tile, overlap in ((100, 32), (96, 30), (32, 32)):
        with pytest.raises(ValueError, match="multiples of 8"):
            SuperResolutionInferer(tile=tile, overlap=overlap)


def test_temperature_zero_is_the_network_itself():
    with torch.no_grad():
        assert torch.allclose(_run(), small_network()(IMAGE), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "steps": 3}])
def test_tiles_agree_with_the_whole_volume(options):
    whole, tiled = _run(**options), _run(tile=32, overlap=24, **options)
    assert whole.shape == tiled.shape == IMAGE.shape
    change = (whole - IMAGE).abs().max()
    assert float((tiled - whole).abs().max()) < 0.1 * float(change)
    assert float((tiled - whole).abs().mean()) < 0.005 * float(change)


def test_the_seed_decides_the_sample():
    first, same, other = (_run(temperature=1.0, steps=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, same) and not torch.allclose(first, other)


def test_samples_give_their_mean_and_spread():
    drawn = torch.stack([_run(temperature=1.0, steps=2, seed=s) for s in range(3)])
    result = _run(temperature=1.0, steps=2, samples=3, seed=0)
    assert result.shape == (1, 2, *IMAGE.shape[2:])
    assert torch.allclose(result[:, :1], drawn.mean(0), atol=1e-5)
    assert torch.allclose(result[:, 1:], drawn.std(0), atol=1e-4)


def test_temperature_scales_the_distance_from_the_mean():
    mean, half, full = _run(), _run(temperature=0.5, steps=2), _run(temperature=1.0, steps=2)
    assert torch.allclose(half - mean, 0.5 * (full - mean), atol=1e-5)


def test_memory_decides_about_tiles():
    def side(memory):
        return SuperResolutionInferer(max_memory=memory).tiles((256, 256, 256), torch.device("cpu"))

    assert side(4 * 2**30) is None
    assert side(2**29) % 8 == 0 and side(2**28) < side(2**29) < 256


def test_the_affine_is_carried_over():
    affine = torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64))
    batch = MetaTensor(IMAGE, affine=affine)
    assert torch.equal(_run(batch).affine, affine)
