import pytest
import torch
from monai.data import MetaTensor

from bundle.networks.anatomy import TISSUES, AnatomyExtractor, AnatomyPrior
from bundle.tissue import AROUND, AnatomyInferer, ExtractTissued, vote, working_shape


def _item():
    affine = torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64))
    return {"image": MetaTensor(torch.rand(1, 20, 24, 18), affine=affine), "condition": torch.zeros(6)}


def test_a_map_of_tissue_has_the_grid_of_the_image(tmp_path):
    extractor = AnatomyExtractor()
    extractor.exit.bias.data[TISSUES.index("fat")] = 9.0
    torch.save(extractor.state_dict(), tmp_path / "anatomy.pt")
    item = _item()
    out = ExtractTissued("image", str(tmp_path / "anatomy.pt"))(item)
    assert out["tissue"].shape == (1, 20, 24, 18) and out["tissue"].dtype == torch.uint8
    assert bool((out["tissue"] == TISSUES.index("fat")).all()) and torch.equal(
        out["tissue"].affine, item["image"].affine
    )


def test_nothing_is_read_or_written_where_it_is_not_asked_for():
    item = _item()
    assert ExtractTissued("image", "gone.pt", enabled=False)(item) == item


def test_on_a_coarser_grid_the_voxels_vote():
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    labels[0, :2, :2, :2] = torch.tensor([5, 5, 5, 5, 5, 3, 3, 3]).reshape(2, 2, 2)
    labels[0, 2:, 2:, 2:] = torch.tensor([7, 7, 7, 7, 2, 2, 2, 2]).reshape(2, 2, 2)
    coarse = vote(labels, (2, 2, 2))
    assert coarse.dtype == torch.uint8 and coarse.shape == (1, 2, 2, 2)
    assert int(coarse[0, 0, 0, 0]) == 5 and int(coarse[0, 1, 1, 1]) == 2  # the lower of two as large
    assert int(coarse.sum()) == 7
    assert torch.equal(vote(labels, (4, 4, 4)), labels)


def _extractor():
    torch.manual_seed(0)
    network = AnatomyExtractor(widths=(8, 16, 32)).eval()
    torch.nn.init.normal_(network.trunk.exit.weight, std=0.2)
    return network


class _Threshold:
    """Takes bright voxels for fat."""

    multiple = 8

    def __init__(self):
        self.seen = []

    def context(self, volume):
        return volume

    def __call__(self, image, *rest):
        self.seen.append(tuple(image.shape[2:]))
        tissue = torch.zeros(1, len(TISSUES), *image.shape[2:])
        tissue[:, TISSUES.index("fat")], tissue[:, 0] = image[:, 0], 1 - image[:, 0]
        return AnatomyPrior(image, tissue)


def test_tissue_in_tiles_is_that_of_the_whole():
    network, image, condition = _extractor(), torch.rand(1, 1, 44, 52, 60), torch.zeros(1, 6)
    whole = AnatomyInferer(tile=64, amp=False)(image, network, condition)
    tiled = AnatomyInferer(tile=40, overlap=32, amp=False)(image, network, condition)
    assert whole.shape == image.shape and whole.dtype == torch.uint8 and len(whole.unique()) > 2
    assert float((whole != tiled).float().mean()) < 0.02


def test_fine_and_long_voxels_are_labelled_on_a_grid_of_1_mm():
    assert working_shape((20, 24, 18), (0.8, 1.0, 1.2)) == (20, 24, 18)
    assert working_shape((20, 24, 18), (0.5, 0.5, 2.5)) == (10, 12, 45)
    network, fine = _Threshold(), 0.2 * torch.rand(1, 1, 48, 48, 40)
    fine[..., 10:30, 12:36, 6:26] = 1
    infer, affine = AnatomyInferer(amp=False), torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64))
    found = infer(fine, network, torch.zeros(1, 6), spacing=(0.5, 0.5, 0.5))
    assert network.seen == [(24, 24, 24)] and found.shape == fine.shape and found.dtype == torch.uint8
    assert float(((found > 0) == (fine > 0.5)).float().mean()) > 0.995
    known = infer(MetaTensor(fine, affine=affine), network, torch.zeros(1, 6))
    assert torch.equal(known.as_tensor(), found) and torch.equal(known.affine, affine)
    infer(fine, network, torch.zeros(1, 6))
    assert network.seen[-1] == (48, 48, 40)


@pytest.mark.parametrize("spacing", [1.0, 0.5])
def test_a_brain_whose_volume_ends_where_it_does_gets_air_around_it_and_a_head_does_not(spacing):
    network, brain = _Threshold(), torch.zeros(1, 1, 48, 48, 40)
    brain[..., 2:46, 2:46, 4:38] = 1
    found = AnatomyInferer(amp=False)(brain, network, torch.zeros(1, 6), spacing=[spacing] * 3)
    assert network.seen == [tuple(-(-int(n * spacing + 2 * AROUND) // 8) * 8 for n in (48, 48, 40))]
    assert found.shape == brain.shape and float(((found > 0) == (brain > 0.5)).float().mean()) > 0.99
    wide, head = torch.nn.functional.pad(brain, [8] * 6), brain + 0.1 * torch.rand(brain.shape)
    for image in (wide, head):
        AnatomyInferer(amp=False)(image, network, torch.zeros(1, 6))
        assert network.seen[-1] == tuple(image.shape[2:])
