import torch
from monai.data import MetaTensor

from bundle.networks.anatomy import TISSUES, AnatomyExtractor
from bundle.tissue import ExtractTissued, vote


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
