import pytest
import torch
from data import small_network
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, decollate_batch

from bundle.cropping import framed
from bundle.errors import InputError
from bundle.inferer import SuperResolutionInferer
from bundle.networks.super_resolver import encode_condition
from bundle.tiles import even_sides, tile_slices

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


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(2, 40)] * 3), st.integers(8, 27))
def test_even_tiles_are_small_enough_and_cover_everything(blocks, side):
    shape, voxels = tuple(8 * n for n in blocks), (8 * side) ** 3
    sides = even_sides(shape, voxels, 32)
    seen = torch.zeros(shape, dtype=torch.bool)
    for tile in tile_slices(shape, sides, 32):
        assert seen[tile].numel() <= voxels
        seen[tile] = True
    assert bool(seen.all())


def test_few_even_tiles():
    assert even_sides((200, 240, 192), 216**3, 32) == [200, 240, 192]
    assert even_sides((256, 256, 256), 216**3, 32) == [144, 256, 256]
    assert len([*tile_slices((256, 256, 256), (144, 256, 256), 32)]) == 2
    assert even_sides((64, 64, 64), 8, 32) == [40, 40, 40]  # no smaller than the overlap allows


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


def test_samples_give_their_mean_and_a_smoothed_spread_that_is_scaled():
    drawn = torch.stack([_run(temperature=1.0, steps=2, seed=s) for s in range(3)])
    options = {"temperature": 1.0, "steps": 2, "samples": 3, "seed": 0, "amp": False}
    network = small_network()
    result = SuperResolutionInferer(**options)(IMAGE, network)
    assert result.shape == (1, 2, *IMAGE.shape[2:])
    assert torch.allclose(result[:, :1], drawn.mean(0), atol=1e-5)
    assert float(result[:, 1:].square().mean()) == pytest.approx(float(drawn.var(0).mean()), rel=0.2)
    assert float(result[:, 1:].std()) < 0.8 * float(drawn.std(0).std())
    network.spread_scale.fill_(3.0)
    assert torch.allclose(SuperResolutionInferer(**options)(IMAGE, network)[:, 1:], 3 * result[:, 1:], rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "steps": 2}])
def test_one_sample_comes_with_the_uncertainty_of_the_head_in_tiles_too(options):
    network = small_network(uncertainty=True)
    network.scale_head.factor.fill_(2.0)
    plain = SuperResolutionInferer(amp=False, **options)(IMAGE, network)
    whole, tiled = (
        SuperResolutionInferer(amp=False, uncertainty=True, **tiles, **options)(IMAGE, network)
        for tiles in ({}, {"tile": 32, "overlap": 24})
    )
    assert torch.allclose(whole[:, :1], plain, atol=1e-6) and whole.shape == (1, 2, *IMAGE.shape[2:])
    spread = whole[:, 1:]
    assert float(spread.min()) > 0 and float(spread.std()) > 0.1 * float(spread.mean())
    assert float((tiled[:, 1:] - spread).abs().mean()) < 0.05 * float(spread.std())
    network.scale_head.factor.fill_(1.0)
    assert torch.allclose(
        SuperResolutionInferer(amp=False, uncertainty=True, **options)(IMAGE, network)[:, 1:], spread / 2
    )


def test_a_network_without_the_head_says_what_to_do():
    with pytest.raises(InputError, match="draw samples"):
        _run(uncertainty=True)


def test_air_around_a_head_does_not_matter_to_a_network_that_frames_it():
    head, run = 0.2 + 0.8 * torch.rand(1, 1, 24, 24, 24), SuperResolutionInferer(amp=False)
    views = [torch.nn.functional.pad(head, [air] * 6) for air in (8, 12)]
    for parts, same in (({}, True), ({"prior": True}, False)):
        network = small_network(modulation=True, **parts)
        contexts = [run.prepare(view, network, None).context for view in views]
        assert torch.allclose(*contexts, atol=1e-6) == same, parts


def test_a_part_of_a_head_can_be_told_of_the_rest():
    network = small_network(modulation=True)
    run = SuperResolutionInferer(amp=False)
    alone, told = run(IMAGE, network), run(IMAGE, network, context=framed(IMAGE))
    other = run(IMAGE, network, context=0.1 + 0.2 * torch.rand(1, 1, 30, 30, 30))
    assert torch.equal(alone, told) and not torch.allclose(alone, other)


def test_temperature_scales_the_distance_from_the_mean():
    mean, half, full = _run(), _run(temperature=0.5, steps=2), _run(temperature=1.0, steps=2)
    assert torch.allclose(half - mean, 0.5 * (full - mean), atol=1e-5)


def test_memory_decides_about_tiles():
    def side(memory):
        return SuperResolutionInferer(max_memory=memory).tiles((256, 256, 256), torch.device("cpu"), 96)

    assert side(4 * 2**30) is None
    assert side(2**29) % 8 == 0 and side(2**28) < side(2**29) < 256


def test_the_affine_is_carried_over():
    affine = torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64))
    batch = MetaTensor(IMAGE, affine=affine)
    assert torch.equal(_run(batch).affine, affine)


def test_the_rule_for_the_width_goes_along_with_every_result():
    network = small_network()
    network.width_rule.copy_(torch.tensor([0.8, 4.0]))
    found = SuperResolutionInferer(amp=False)(MetaTensor(IMAGE.repeat(2, 1, 1, 1, 1)), network)
    assert [item.meta["width_rule"].tolist() for item in decollate_batch(found)] == [pytest.approx([0.8, 4.0])] * 2


def test_the_condition_may_come_with_the_meta_data():
    network, low = small_network(), IMAGE[:, :, :16, :16, :16]
    network.residual_std.uniform_(0.01, 0.2)  # of each contrast and modality its own
    condition = encode_condition("7T", "T2w", (1, 1, 4))
    inferer = SuperResolutionInferer(amp=False)
    wanted = inferer(low, network, condition=condition[None])
    found = inferer(MetaTensor(low[0], meta={"condition": condition})[None], network)  # as MONAI Label calls it
    assert torch.allclose(found.as_tensor(), wanted, atol=1e-6)
    assert not torch.allclose(inferer(low, network), wanted, atol=1e-4)
    assert torch.allclose(inferer(MetaTensor(low), network).as_tensor(), inferer(low, network), atol=1e-6)


def test_guidance_maps_are_cut_with_their_tiles():
    network = small_network(guided=True)
    image, fields = torch.rand(1, 1, 72, 40, 44), 0.3 * torch.rand(1, 3, 72, 40, 44)
    whole = SuperResolutionInferer(amp=False)(image, network, fields=fields)
    tiled = SuperResolutionInferer(amp=False, tile=64, overlap=48)(image, network, fields=fields)
    assert not torch.allclose(whole, SuperResolutionInferer(amp=False)(image, network), atol=1e-2)
    assert float((whole - tiled).abs().mean()) < 0.01 * float(whole.std())
