import torch

from bundle.networks.experts import EXPERTS
from bundle.regions import DEPTH, region_shares, regions
from bundle.simulation.tissues import GROUPS

NAMES = list(GROUPS)


def _layers():
    """Fluid, four voxels of cortex, and white matter, one behind the other along the first axis."""
    tissue = torch.full((1, 1, 24, 8, 8), NAMES.index("WM"), dtype=torch.uint8)
    tissue[:, :, :4], tissue[:, :, 4:8] = NAMES.index("CSF"), NAMES.index("cortical GM")
    return tissue


def test_regions_follow_the_distance_to_the_borders_of_tissue():
    found = dict(zip(EXPERTS, regions(_layers())[0, :, :, 4, 4], strict=True))
    assert found["cortex"].nonzero().flatten().tolist() == [4, 5, 6]
    assert found["junction"].nonzero().flatten().tolist() == [7, 8]
    assert found["centrum semiovale"].nonzero().flatten().tolist() == list(range(8 + DEPTH, 24))


def test_regions_do_not_overlap_and_other_tissue_has_none():
    tissue = torch.randint(len(NAMES), (1, 1, 12, 12, 12)).byte()
    assert regions(tissue).sum(1).max() <= 1
    for number in (NAMES.index("fat"), NAMES.index("CSF"), 255):
        assert not regions(torch.full((1, 1, 8, 8, 8), number, dtype=torch.uint8)).any()


def test_white_matter_beside_fluid_is_not_deep():
    tissue = _layers()
    tissue[tissue == NAMES.index("cortical GM")] = NAMES.index("CSF")
    found = dict(zip(EXPERTS, regions(tissue)[0, :, :, 4, 4], strict=True))
    assert not found["junction"].any() and found["centrum semiovale"].nonzero().min() == 8 + DEPTH


def test_shares_of_latent_voxels_are_means_over_cubes_of_two():
    tissue = _layers()
    expected = regions(tissue).float().reshape(1, 3, 12, 2, 4, 2, 4, 2).mean((3, 5, 7))
    assert torch.allclose(region_shares(tissue), expected)
    assert region_shares(tissue)[0, EXPERTS.index("cortex"), :, 2, 2].tolist()[:4] == [0, 0, 1, 0.5]
